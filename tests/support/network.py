"""Hosts for tests: network namespaces on a separate bridge, and certificates with which the hosts trust each other."""

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

# Addresses that are reserved for tests between networks (RFC 2544), so no real network has them.
SUBNETS = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))
_numbers = itertools.count()


def ip(*words: str) -> str:
    """Call `ip` of iproute2; return its output."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A network namespace with an address on the bridge."""

    address: str
    enter: list[str]
    """Prefix of a command that runs it on this host."""


class Network:
    """A bridge with an address of this machine, and the hosts on the bridge."""

    def __init__(self, ends: ExitStack) -> None:
        taken = [
            ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}").network
            for link in json.loads(ip("-json", "-4", "address"))
            for each in link["addr_info"]
        ]
        # Suites that run at the same time begin at different subnets, so that they do not choose the same one.
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
        # `ip netns exec` is not used: it hides the control groups, from which Dask reads its limits.
        return Host(address, ["nsenter", f"--net=/run/netns/{space}"])


@contextmanager
def network() -> Iterator[Network]:
    """Create a network of hosts; delete it at the end."""
    require_server(shutil.which("ip") is not None, "iproute2")
    if os.getuid() != 0:
        pytest.skip("only root may make network namespaces")
    with ExitStack() as ends:
        yield Network(ends)


@dataclass(frozen=True)
class Certificates:
    """A certificate authority, and a certificate that it signed, with its key."""

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
    """Create an authority, and a certificate for this machine, for some hosts and for all clients of a test."""
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
            # Python 3.13 requires these extensions.
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
