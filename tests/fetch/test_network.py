"""Networks of companies, with certificates and proxies of their own; and what is said where nobody answers."""

import json
import os
import re
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import obstore
import pytest
import rasterio
import rasterio.shutil

from s2cube.config.stores import Store
from s2cube.demo.archive import Archive
from s2cube.errors import AssetReadError, ConfigError, S2CubeError, SearchError
from s2cube.fetch import connections, http, object_store, retry, session
from s2cube.fetch.store import Access, fetch
from s2cube.raster import gdal_file
from s2cube.stac.source import open_source
from support.cogs import noise, write_cog
from support.network import Certificates, write_certificates
from support.proxies import Proxy, Secure, proxy
from support.runs import CommandLine, Job
from support.scenes import ramp, write_band
from support.servers import Asked, Faulty, FaultyHandler, answer, faulty, served

pytestmark = pytest.mark.usefixtures("open_network")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Faulty]:
    write_cog(tmp_path / "a.tif", noise())
    with faulty(tmp_path) as server:
        yield server


class Office(FaultyHandler):
    """Files, tokens and a bucket that takes whatever is put, in a network with an authority of its own."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(Asked(self.command, self.path, 0, 0, time.monotonic()))
        self.connection.sendall(answer(200, headers='ETag: "1"\r\n'))

    def do_GET(self) -> None:
        if self.path == "/token":
            content = {"token": "sig=A&se=1&sv=1", "msft:expiry": "2900-01-01T00:00:00Z"}
            self.server.asked.append(Asked(self.command, self.path, 0, 0, time.monotonic()))
            self.connection.sendall(answer(200, json.dumps(content).encode()))
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("office") / "certificates", "archive.office", "cloud.office")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_cog(folder / "a.tif", noise())
    write_band(folder / "plain.tif", ramp(600, 10), 10)
    with rasterio.open(folder / "plain.tif") as file:
        rasterio.shutil.copy(file, folder / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    (folder / "bucket").mkdir()
    (folder / "bucket" / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    (folder / "tokens").mkdir()
    (folder / "tokens" / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    features = json.loads(archive.items.read_text())
    (folder / "items.json").write_text(json.dumps(features))
    return folder


@pytest.fixture
def office(files: Path, authority: Certificates) -> Iterator[Secure]:
    with served(Secure(files, authority, Office)) as server:
        yield server


def search(url: str) -> None:
    assert list(open_source(f"{url}/items.json"))  # type: ignore[arg-type]


def read(url: str) -> None:
    fetch(f"{url}/a.tif", 0, 8, Access(timeout_s=5, retries=0))


def read_by_token(url: str) -> None:
    fetch(f"{url}/tokens/a.tif", 0, 8, Access(timeout_s=5, retries=0, tokens=((f"{url}/tokens", f"{url}/token"),)))


def read_by_gdal(url: str) -> None:
    (raster,) = gdal_file.rasters(f"{url}/a.jp2", Access(timeout_s=5, retries=0), "JP2OpenJPEG")
    assert raster.lattice.width == 600


def read_bucket(url: str) -> None:
    stores = (("s3://bucket", Store(endpoint=url, anonymous=True)),)
    fetch("s3://bucket/a.tif", 0, 8, Access(timeout_s=5, retries=0, stores=stores))


def write(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "abcdef")
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setattr(retry, "WRITES", replace(retry.WRITES, longest_s=1))
        session.reset()
        obstore.put(object_store.store_to_write("s3://bucket/out"), "a", b"abc")


def read_by_role(url: str) -> None:
    """By obstore, as files of Google and Azure."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", url)
        with served(Faulty(Path(), Role)) as role:
            _give_role(patch, role)
            patch.setenv("NO_PROXY", ",".join(filter(None, [f"127.0.0.1:{role.server_port}", _no_proxy()])))
            session.reset()
            fetch("s3://bucket/a.tif", 0, 8, Access(timeout_s=5, retries=0))


def _give_role(patch: pytest.MonkeyPatch, role: Faulty) -> None:
    Path("role.token").write_text("abcdef")
    patch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{role.url}/keys")
    patch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "role.token")


def _no_proxy() -> str:
    return os.environ.get("NO_PROXY", "")


class Role(BaseHTTPRequestHandler):
    """Gives keys to a machine with a role, as Amazon's containers get them."""

    def do_GET(self) -> None:
        keys = {"AccessKeyId": "ROLE", "SecretAccessKey": "abcdef", "Token": "t", "Expiration": "2900-01-01T00:00:00Z"}
        self.connection.sendall(answer(200, json.dumps(keys).encode()))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


CLIENTS: list[Callable[[str], None]] = [search, read, read_by_token, read_by_gdal, read_bucket, write]
EVERY_CLIENT = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)


class TestCertificates:
    @EVERY_CLIENT
    @pytest.mark.parametrize("variable", connections.CERTIFICATE_VARIABLES)
    def test_one_variable_serves_every_client(
        self, office: Secure, authority: Certificates, client: Any, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, str(authority.ca))
        client(office.url)
        assert office.asked

    @EVERY_CLIENT
    def test_without_it_none_trusts_the_authority(self, office: Secure, client: Any) -> None:
        with pytest.raises((AssetReadError, SearchError, obstore.exceptions.BaseError), match="(?i)certificate"):
            client(office.url)
        assert not office.asked

    @EVERY_CLIENT
    def test_a_folder(
        self, office: Secure, authority: Certificates, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """As requests takes one, whose files are named by hashes as OpenSSL wants it."""
        done = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", authority.ca], capture_output=True, text=True, check=True
        )
        folder = tmp_path / "authorities"
        folder.mkdir()
        (folder / f"{done.stdout.strip()}.0").write_bytes(authority.ca.read_bytes())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder))
        client(office.url)

    @EVERY_CLIENT
    def test_a_file_that_is_not_there_is_named(
        self, office: Secure, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
        with pytest.raises(S2CubeError, match=r"SSL_CERT_FILE: names '/no/such/file\.pem', which does not exist"):
            client(office.url)

    def test_a_file_of_something_else(self, office: Secure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "x.pem").write_text("no certificate")
        monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "x.pem"))
        with pytest.raises(ConfigError, match="contains no certificates"):
            read(office.url)

    def test_what_is_told(self, office: Secure) -> None:
        with pytest.raises(AssetReadError) as caught:
            read(office.url)
        text = str(caught.value)
        assert f"the certificate of localhost:{office.server_port} is not trusted: unable to get local issuer" in text
        assert all(name in text for name in connections.CERTIFICATE_VARIABLES)
        assert not caught.value.may_pass

    def test_another_host_s_certificate(
        self, office: Secure, authority: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", office.server_port))])
        with pytest.raises(AssetReadError, match="is not trusted: Hostname mismatch"):
            read("https://evil.example")


class TestProxies:
    @pytest.fixture
    def there(self, office: Secure) -> Iterator[Proxy]:
        """A proxy that leads to the office, which nobody else knows the way to."""
        with proxy({"archive.office": office.server_port}) as there:
            yield there

    @pytest.fixture(autouse=True)
    def trusted(self, open_network: None, authority: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))

    @EVERY_CLIENT
    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
    def test_https(self, there: Proxy, client: Any, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, there.url)
        client("https://archive.office")
        assert set(there.passed) == {"CONNECT archive.office:443"}

    @EVERY_CLIENT
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_http(self, files: Path, client: Any, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with served(Faulty(files, Office)) as plain, proxy({"archive.office": plain.server_port}) as there:
            monkeypatch.setenv(variable, there.url.removeprefix("http://"))
            client("http://archive.office")
            assert plain.asked
            assert len(there.passed) == len(plain.asked)
            assert all("http://archive.office/" in each for each in there.passed)

    @EVERY_CLIENT
    @pytest.mark.parametrize("hosts", ["localhost", "other,localhost", "*", ".localhost,localhost"])
    def test_hosts_without(
        self, office: Secure, there: Proxy, client: Any, hosts: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        monkeypatch.setenv("NO_PROXY", hosts)
        client(office.url)
        assert office.asked
        assert not there.passed

    @EVERY_CLIENT
    def test_a_port_without(self, office: Secure, there: Proxy, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """As requests understands NO_PROXY; obstore by itself does not."""
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        monkeypatch.setenv("NO_PROXY", f"localhost:{office.server_port}")
        client(office.url)
        assert not there.passed

    @EVERY_CLIENT
    def test_hosts_without_do_not_free_others(self, there: Proxy, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        monkeypatch.setenv("no_proxy", "localhost,office.example")
        client("https://archive.office")
        assert there.passed

    @EVERY_CLIENT
    def test_name_and_password(self, office: Secure, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = f"Basic {b64encode(b'me:p@ss').decode()}"
        with proxy({"archive.office": office.server_port}, wanted) as there:
            monkeypatch.setenv("HTTPS_PROXY", there.url.replace("//", "//me:p%40ss@"))
            client("https://archive.office")
            assert there.passed

    def test_a_role_s_keys_come_straight(self, there: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        read_by_role("https://archive.office")
        assert set(there.passed) == {"CONNECT archive.office:443"}

    def test_a_redirection_asks_anew_which_proxy(
        self, files: Path, there: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with faulty(files) as plain:
            plain.fault = lambda *_: answer(302, headers="Location: https://archive.office/a.tif\r\n")
            read(plain.url)
        assert there.passed == ["CONNECT archive.office:443"]

    @pytest.mark.parametrize(
        ("address", "told"),
        [
            ("http://127.0.0.1:9", r"the proxy 127\.0\.0\.1:9 refuses the connection"),
            ("http://no-proxy.invalid:3128", r"there is no host the proxy no-proxy\.invalid:3128"),
            ("http://me:TOPSECRET@no-proxy.invalid:3128", r"there is no host the proxy no-proxy\.invalid:3128"),
        ],
    )
    def test_none_there(self, address: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", address)
        with pytest.raises(AssetReadError, match=f"{told}.*HTTPS_PROXY") as caught:
            read("https://archive.office")
        assert "SECRET" not in str(caught.value)

    def test_it_wants_a_password(self, office: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
        with proxy(credentials="Basic x") as there:
            monkeypatch.setenv("HTTPS_PROXY", there.url)
            with pytest.raises(AssetReadError, match=r"the proxy .* needs a user name and a password.*HTTPS_PROXY="):
                fetch(f"{office.url}/a.tif", 0, 8, Access(retries=5))

    def test_it_knows_no_way(self, there: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", there.url)
        with pytest.raises(
            AssetReadError, match=r"the proxy .* does not connect to no\.invalid: it answers 502\) after 1 re"
        ):
            fetch("https://no.invalid/a.tif", 0, 8, Access(retries=5))
        assert len(there.passed) == 2

    def test_no_http_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks5://me:TOPSECRET@127.0.0.1:9")
        with pytest.raises(ConfigError, match="is not an HTTP proxy") as caught:
            read("https://archive.office")
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("secure", [False, True])
def test_a_run_in_a_company(
    s2cube_command: CommandLine, job: Job, archive: Archive, authority: Certificates, secure: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Search and files alike go through the proxy, on workers too; nothing else does."""
    handler = FaultyHandler
    root = archive.items.parent
    with (
        served(Secure(root, authority, handler) if secure else Faulty(root, handler)) as server,
        proxy({"archive.office": server.server_port}) as there,
    ):
        scheme = "https" if secure else "http"
        # The workers of the suite's cluster began in another environment.
        words = job("--stac", f"{scheme}://archive.office/{archive.items.name}", "--bands", "blue", "--scheduler", "")
        monkeypatch.setenv(f"{scheme}_proxy", there.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        done = s2cube_command(*words, "--workers", "1")
    assert done.status == 0, done.err
    assert len(done.json["written"]) > 2
    assert len(server.asked) > 10
    assert len(there.passed) >= 3


class TestCauses:
    """What is the matter, what to do, and how often it is asked again."""

    def tries(self, href: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[AssetReadError, int]:
        asked: list[str] = []
        ask = http.http_get

        def counted(*words: Any, **more: Any) -> Any:
            asked.append(words[0])
            return ask(*words, **more)

        monkeypatch.setattr("s2cube.fetch.store.http_get", counted)
        with pytest.raises(AssetReadError) as caught:
            fetch(href, 0, 8, Access(**({"timeout_s": 5, "retries": 5} | options)))
        return caught.value, len(asked)

    @pytest.mark.parametrize(
        ("href", "told", "remedy", "asked"),
        [
            ("http://127.0.0.1:9/a.tif", r"127\.0\.0\.1:9 refuses the connection\) after 1 retry", "address", 2),
            ("https://no-such-host.invalid/a.tif", r"there is no host no-such-host\.invalid\)$", "address", 1),
            ("http://127.0.0.1:99999/a.tif", "cannot be read", "address", 1),
            ("http://a b/c.tif", "cannot be read", "", 1),
        ],
    )
    def test_nobody_there(self, href: str, told: str, remedy: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
        error, tries = self.tries(href, monkeypatch)
        assert re.search(told, error.problem), error.problem
        assert remedy in error.remedy
        assert tries == asked
        assert not error.may_pass

    def test_a_name_that_cannot_be_looked_up_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", away)
        error, tries = self.tries("https://archive.example/a.tif", monkeypatch)
        assert "the name of archive.example cannot be resolved now" in error.problem
        assert (tries, error.may_pass) == (2, False)

    def test_who_answered_before_may_come_back(self, server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch(f"{server.url}/a.tif", 0, 8, Access())
        # Nothing listens there any more; the connection that was kept would still answer.
        server.socket.close()
        known = http.known_servers()
        session.reset()
        http.known_servers().update(known)
        error, tries = self.tries(f"{server.url}/a.tif", monkeypatch)
        assert "refuses the connection) after 5 retries" in error.problem
        assert (tries, error.may_pass) == (6, True)

    def test_https_for_http(self, server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        error, tries = self.tries(server.url.replace("http:", "https:") + "/a.tif", monkeypatch)
        assert f"127.0.0.1:{server.server_port} does not speak https" in error.problem
        assert "http://" in error.remedy
        assert (tries, error.may_pass) == (1, False)

    def test_http_for_https(self, office: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
        error, tries = self.tries(f"http://localhost:{office.server_port}/a.tif", monkeypatch)
        assert f"localhost:{office.server_port} speaks https only" in error.problem
        assert "https://" in error.remedy
        assert (tries, error.may_pass) == (1, False)

    def test_a_certificate(self, office: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
        error, tries = self.tries(f"{office.url}/a.tif", monkeypatch)
        assert "certificate" in error.problem
        assert (tries, error.may_pass) == (1, False)

    def test_silence(self, server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        server.fault = lambda *_: lambda _: time.sleep(1)
        error, tries = self.tries(f"{server.url}/a.tif", monkeypatch, timeout_s=0.2, retries=2)
        assert f"127.0.0.1:{server.server_port} takes longer than 0.2 s) after 2 retries" in error.problem
        assert "--timeout" in error.remedy
        assert (tries, error.may_pass) == (3, True)

    def test_half_an_answer(self, server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        server.fault = lambda *_: answer(206, bytes(8), "Content-Range: bytes 0-7/8\r\n")[:-4]
        error, tries = self.tries(f"{server.url}/a.tif", monkeypatch, retries=1)
        assert "4 of 8 bytes were received) after 1 retry" in error.problem
        assert (tries, error.may_pass) == (2, True)

    def test_tokens_too(self) -> None:
        rules = (("https://host/a", "https://no-such-host.invalid/token"),)
        with pytest.raises(
            AssetReadError, match=r"gives no token for it \(there is no host no-such-host\.invalid\)\. Ch"
        ):
            fetch("https://host/a/b.tif", 0, 8, Access(tokens=rules))

    def test_a_key_that_no_header_can_hold_is_not_shown(self, server: Faulty) -> None:
        """As one is that was read from a file, with the end of its line."""
        with pytest.raises(retry.PermanentFailure, match="characters that HTTP does not allow") as caught:
            http.http_get(f"{server.url}/a.tif", {"X-Key": "TOPSECRET\n"}, 5, 10)
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("http://127.0.0.1:9", "refuses the connection"),
            ("http://no-such-host.invalid", "there is no host"),
            ("{office}", "the certificate of localhost:.* is not trusted"),
            ("{plain}", "does not speak https"),
            ("{silent}", "takes longer than"),
        ],
    )
    def test_obstore_s_words(
        self, url: str, told: str, office: Secure, server: Faulty, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (server.root / "bucket").mkdir()
        (server.root / "bucket" / "a.tif").write_bytes(b"x")
        server.fault = lambda *_: lambda _: time.sleep(3)
        place = url.format(office=office.url, plain=server.url.replace("http:", "https:"), silent=server.url)
        with pytest.raises(AssetReadError, match=told):
            read_by_role_within(place, 0.5)

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("http://127.0.0.1:9", r"does not answer \(127\.0\.0\.1:9 refuses the connection\)"),
            ("http://no-such-host.invalid", r"there is no host no-such-host\.invalid\)\. Check the address"),
            ("{office}", r"the certificate of localhost:\d+ is not trusted: .*SSL_CERT_FILE"),
            ("{plain}", r"127\.0\.0\.1:\d+ does not speak https\)\. Try http://"),
        ],
    )
    def test_the_search_says_it_too(self, url: str, told: str, office: Secure, server: Faulty) -> None:
        began = time.monotonic()
        with pytest.raises(SearchError, match=told):
            search(url.format(office=office.url, plain=server.url.replace("http:", "https:")))
        assert time.monotonic() - began < 6

    def test_a_run_of_four_slices_ends_soon(self, s2cube_command: CommandLine, job: Job, archive: Archive) -> None:
        page = json.loads(archive.items.read_text())
        for item in page["features"]:
            for asset in item["assets"].values():
                asset["href"] = f"http://127.0.0.1:9/{asset['href'].removeprefix('./')}"
        Path("gone.json").write_text(json.dumps(page))
        began = time.monotonic()
        done = s2cube_command(*job("--stac", "gone.json", "--bands", "blue"))
        assert done.status == 3, done.err
        assert len(done.json["failed"]) >= 4
        assert "127.0.0.1:9 refuses the connection" in Path("out/failures.jsonl").read_text()
        assert time.monotonic() - began < 15


def read_by_role_within(url: str, timeout_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", url)
        with served(Faulty(Path(), Role)) as role:
            _give_role(patch, role)
            session.reset()
            fetch("s3://bucket/a.tif", 0, 8, Access(timeout_s=timeout_s, retries=0))


def test_trust_is_strict() -> None:
    """Hosts are checked, and by no more than the authorities."""
    context = connections.tls_settings(connections.certificates())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
