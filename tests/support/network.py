"""Hosts for tests: network namespaces on a bridge of their own, and certificates to trust each other by."""

import datetime
import ipaddress
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from distributed import Security

from support.servers import require_server

# Set aside for tests between networks (RFC 2544): no network that a machine is on.
SUBNETS = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))
_numbers = itertools.count()


def ip(*words: str) -> str:
    """Call iproute2."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A network namespace with an address on the bridge."""

    address: str
    enter: list[str]
    """The words before a command that make it run there."""


class Network:
    """A bridge that this machine has an address on, and the hosts that are put on it."""

    def __init__(self, ends: ExitStack) -> None:
        taken = [
            ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}").network
            for link in json.loads(ip("-json", "-4", "address"))
            for each in link["addr_info"]
        ]
        # Suites that run at once start at different places, not to choose the same.
        first = os.getpid() % len(SUBNETS)
        subnet = next(
            each for each in SUBNETS[first:] + SUBNETS[:first] if not any(each.overlaps(other) for other in taken)
        )
        self.ends = ends
        self.address, *self.free = map(str, subnet.hosts())
        self.bridge = f"s2b{os.getpid()}-{next(_numbers)}"
        ip("link", "add", self.bridge, "type", "bridge")
        ends.callback(ip, "link", "delete", self.bridge)
        ip("address", "add", f"{self.address}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def add_host(self) -> Host:
        number = f"{os.getpid()}-{next(_numbers)}"
        space, plug, address = f"s2cube-{number}", f"s2v{number}", self.free.pop(0)
        ip("netns", "add", space)
        self.ends.callback(ip, "netns", "delete", space)
        ip("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", plug, "master", self.bridge, "up")
        ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", space, "link", "set", link, "up")
        ip("-n", space, "route", "add", "default", "via", self.address)
        # Not `ip netns exec`, which hides the control groups that Dask reads its limits from.
        return Host(address, ["nsenter", f"--net=/run/netns/{space}"])


@contextmanager
def network() -> Iterator[Network]:
    """Lay a network of hosts; it goes at the end."""
    require_server(shutil.which("ip") is not None, "iproute2")
    if os.getuid() != 0:
        pytest.skip("only root may make network namespaces")
    with ExitStack() as ends:
        yield Network(ends)


@dataclass(frozen=True)
class Certificates:
    """An authority, and a certificate and key that it signed."""

    ca: Path
    cert: Path
    key: Path

    @property
    def security(self) -> Security:
        return Security(
            tls_ca_file=str(self.ca), tls_client_cert=str(self.cert), tls_client_key=str(self.key),
            require_encryption=True,
        )  # fmt: skip


def write_certificates(folder: Path, *hosts: str) -> Certificates:
    """Make an authority, and a certificate for this machine, some hosts and all clients of a test."""
    folder.mkdir(parents=True)
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in ("authority", "dask")]
    called = [x509.DNSName(each) for each in ("localhost", *hosts)]
    called.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))  # type: ignore[arg-type]
    now = datetime.datetime.now(datetime.UTC)
    for path, name, owner in ((made.ca, names[0], authority), (made.cert, names[1], key)):
        is_authority = owner is authority
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
        usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
        usage |= {"digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority}
        signed = (
            x509.CertificateBuilder(names[0], name, owner.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            # Python 3.13 wants all four of these.
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectAlternativeName(called), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(owner.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
            .sign(authority, hashes.SHA256())
        )  # fmt: skip
        path.write_bytes(signed.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.key.chmod(0o600)
    return made
