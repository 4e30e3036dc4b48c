"""Servers that send more than was asked for, go on for ever, or send us elsewhere with our secrets."""

import resource
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2cube.errors import AssetReadError
from s2cube.fetch import http
from s2cube.fetch.store import Access, fetch
from s2cube.raster import gdal_file
from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.reader import AssetReader
from support.cogs import SPEC, WHOLE, means, noise, write_cog
from support.proxies import proxy
from support.servers import Asked, Faulty, FaultyHandler, answer, faulty, served

pytestmark = pytest.mark.usefixtures("open_network")
GIGABYTE = 1 << 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Faulty]:
    write_cog(tmp_path / "a.tif", noise())
    with faulty(tmp_path) as server:
        yield server


class Flood:
    """An answer of a gigabyte, and how much of it was taken."""

    def __init__(self, head: str, begin: bytes = b"", packed: bool = False) -> None:
        self.head, self.begin, self.packed, self.sent = head, begin, packed, 0

    def __call__(self, connection: socket.socket) -> None:
        piece = bytes(1 << 18)
        if self.packed:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        try:
            connection.sendall(f"{self.head}\r\n\r\n".encode() + self.begin)
            while self.sent < GIGABYTE:
                connection.sendall(piece)
                self.sent += len(piece)
        except OSError:
            pass


def status(number: int, *headers: str, length: int = GIGABYTE) -> str:
    return "\r\n".join((f"HTTP/1.1 {number} x", f"Content-Length: {length}", *headers))


class TestBounds:
    """No more is read than was asked for, whatever comes."""

    @pytest.mark.parametrize(
        ("head", "told"),
        [
            (status(206, "Content-Range: bytes 0-16383/1073741824"), "another length than its header says"),
            (status(206), "no Content-Range header"),
            (status(206, "Content-Range: bytes 0-16383/" + "9" * 5000, length=16384), "the server sent other bytes"),
            (status(200), "ignores HTTP ranges"),
            (status(404), "answers 404"),
            (status(403), "answers 403"),
            (status(503), r"answers 503\) after 1 retry"),
            (status(302, "Location: file:///a"), "answers 302"),
        ],
    )
    def test_refused(self, server: Faulty, head: str, told: str) -> None:
        floods: list[Flood] = []

        def fault(*_: object) -> Flood:
            floods.append(Flood(head))
            return floods[-1]

        server.fault = fault
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(AssetReadError, match=rf"a\.tif: .*{told}"):
            fetch(f"{server.url}/a.tif", 0, 16384, Access(timeout_s=20, retries=1))
        # Beyond what was read lies what the kernel keeps on both sides.
        assert max(each.sent for each in floods) < 20 << 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000

    @pytest.mark.parametrize("packed", [False, True])
    def test_more_than_was_asked_for_is_cut_off(self, server: Faulty, packed: bool) -> None:
        """A server may send a larger part, which says so; in chunks it need not say how long it is."""
        content = noise().tobytes()[:16384]
        place = f"Content-Range: bytes 0-{GIGABYTE - 1}/{GIGABYTE}"
        if packed:
            head, begin = f"HTTP/1.1 206 x\r\n{place}\r\nTransfer-Encoding: chunked", b"4000\r\n" + content + b"\r\n"
        else:
            head, begin = status(206, place), content
        flood = Flood(head, begin, packed)
        server.fault = lambda *_: flood
        part = fetch(f"{server.url}/a.tif", 0, 16384, Access(timeout_s=20, retries=0))
        assert bytes(part.data) == content
        assert part.whole_bytes == GIGABYTE
        assert flood.sent < 20 << 20

    @pytest.mark.parametrize("head", [status(404), status(206, "Content-Range: bytes 0-16383/1073741824")])
    def test_gdal_is_not_flooded(self, server: Faulty, head: str) -> None:
        flood = Flood(head)
        server.fault = lambda *_: flood
        with pytest.raises(AssetReadError, match=r"a\.tif: (answers 404|.*has another length)"):
            gdal_file.rasters(f"{server.url}/a.tif", Access(timeout_s=20, retries=0), "GTiff")
        assert flood.sent < 20 << 20

    def test_nor_by_a_store(self, server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "abcdef")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        flood = Flood(status(404))
        server.fault = lambda *_: flood
        (server.root / "bucket").mkdir()
        write_cog(server.root / "bucket" / "a.tif", noise())
        with pytest.raises(AssetReadError, match=r"s3://bucket/a\.tif: answers 404"):
            fetch("s3://bucket/a.tif", 0, 16384, Access(timeout_s=20, retries=0))
        assert flood.sent < 20 << 20

    def test_nor_by_who_gives_tokens(self, server: Faulty) -> None:
        flood = Flood(status(200))
        server.fault = lambda *_: flood
        access = Access(timeout_s=20, retries=0, tokens=((f"{server.url}/archive", f"{server.url}/a.tif"),))
        with pytest.raises(AssetReadError, match=r"gives no token for it \(the answer contains no token\)"):
            fetch(f"{server.url}/archive/b.tif", 0, 8, access)
        assert flood.sent < 20 << 20

    @pytest.mark.parametrize("where", ["in the status line", "in the headers", "in the body", "after a refusal"])
    @pytest.mark.parametrize("reader", ["fetch", "gdal", "token"])
    def test_a_byte_now_and_then_does_not_go_on_for_ever(self, server: Faulty, where: str, reader: str) -> None:
        text = answer(206, b"x" * 16384, "Content-Range: bytes 0-16383/99999\r\n")
        if where == "after a refusal":
            text = answer(404, b"x" * 16384)
        start = {"in the status line": 5, "in the headers": 30, "in the body": 120, "after a refusal": 80}[where]

        def drip(connection: socket.socket) -> None:
            connection.sendall(text[:start])
            for byte in text[start : start + 100]:
                time.sleep(0.1)
                connection.sendall(bytes([byte]))

        server.fault = lambda *_: drip
        access = Access(timeout_s=0.5, retries=0, tokens=((f"{server.url}/b", f"{server.url}/a.tif"),))
        began = time.monotonic()
        href = f"{server.url}/{'b/b.tif' if reader == 'token' else 'a.tif'}"
        with pytest.raises(AssetReadError, match=r"tif: .*(takes longer than 0.5 s|answers 404)"):
            gdal_file.rasters(href, access, "GTiff") if reader == "gdal" else fetch(href, 0, 16384, access)
        assert time.monotonic() - began < 2

    def test_a_file_sent_packed_is_refused(self, server: Faulty) -> None:
        server.fault = lambda *_: answer(206, b"12345678", "Content-Range: bytes 0-7/8\r\nContent-Encoding: gzip\r\n")
        with pytest.raises(AssetReadError, match=r"its server compresses it with gzip"):
            fetch(f"{server.url}/a.tif", 0, 8, Access(retries=3))
        assert len(server.asked) == 1

    def test_connections_are_kept(self, server: Faulty) -> None:
        """Else every part would greet anew, which takes longest over TLS."""
        opened: list[object] = []
        take = server.get_request

        def get_request() -> Any:
            opened.append(1)
            return take()

        server.get_request = get_request  # type: ignore[method-assign]
        for start in range(0, 4000, 100):
            fetch(f"{server.url}/a.tif", start, start + 100, Access())
        assert len(server.reads) == 40
        assert len(opened) == 1

    def test_a_kept_connection_that_is_closed_is_no_failure(self, server: Faulty) -> None:
        """The server says nothing of it, and the client may see it only when it has asked."""

        def hang_up(asked: Asked, body: bytes) -> Callable[[socket.socket], None]:
            def give(connection: socket.socket) -> None:
                place = f"Content-Range: bytes {asked.start}-{asked.start + len(body) - 1}/999999\r\n"
                connection.sendall(answer(206, body, place))
                # Nobody sees that it will be closed, until the next request has come.
                connection.recv(1 << 16)

            return give

        access = Access(retries=0)
        server.fault = hang_up
        for _ in range(5):
            assert len(fetch(f"{server.url}/a.tif", 0, 8, access).data) == 8
        assert not access.usage.notes

    def test_a_new_one_that_is_closed_is_a_failure(self, server: Faulty) -> None:
        server.fault = lambda *_: b""
        with pytest.raises(AssetReadError, match="closed the connection without an answer"):
            fetch(f"{server.url}/a.tif", 0, 8, Access(retries=0))
        assert len(server.asked) == 1


class TestBusy:
    @pytest.mark.parametrize("wait", ["1", "date"])
    def test_how_long_is_read_off_its_answer(self, server: Faulty, wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """No second request asks a busy server, past the proxy or not."""
        with proxy() as there:
            monkeypatch.setenv("HTTP_PROXY", there.url)
            date_s = int(time.time() + 2)
            until = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(date_s)) if wait == "date" else wait
            server.fault = lambda *_: (
                answer(503, headers=f"Retry-After: {until}\r\n") if len(server.asked) == 1 else None
            )
            fetch(f"{server.url}/a.tif", 0, 8, Access())
            assert [each.method for each in server.asked] == ["GET", "GET"]
            assert len(there.passed) == 2
        pause_s = server.asked[1].at_s - server.asked[0].at_s
        assert pause_s >= 1 if wait == "1" else time.time() >= date_s

    def test_nonsense_is_passed_over(self, server: Faulty) -> None:
        server.fault = lambda *_: answer(503, headers="Retry-After: soon\r\n") if len(server.asked) == 1 else None
        fetch(f"{server.url}/a.tif", 0, 8, Access())
        assert len(server.asked) == 2


class TestRedirections:
    """Where a server sends us elsewhere, no secret comes along."""

    @pytest.fixture
    def heard(self) -> list[str]:
        return []

    @pytest.fixture
    def other(self, tmp_path: Path, heard: list[str]) -> Iterator[Faulty]:
        class Listening(FaultyHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.path} {self.headers}")
                super().do_GET()

        with served(Faulty(tmp_path, Listening)) as other:
            yield other

    @pytest.mark.parametrize("place", ["{other}/a.tif", "{other}/a.tif?apikey=TOPSECRET&versionId=3", "//{host}/a.tif"])
    @pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
    def test_another_host_learns_nothing(
        self, server: Faulty, other: Faulty, heard: list[str], place: str, number: int
    ) -> None:
        location = place.format(other=other.url, host=f"127.0.0.1:{other.server_port}")
        server.fault = lambda *_: answer(number, headers=f"Location: {location}\r\n")
        href = f"http://me:TOPSECRET@127.0.0.1:{server.server_port}/a.tif?apikey=TOPSECRET"
        access = Access()
        one = AssetReader(url=href, spec=SPEC, dtype=CELLS, access=access)
        np.testing.assert_allclose(whole_means(one.read(WHOLE))[0], means(noise()), rtol=1e-5)
        assert len(heard) == 2
        assert ("versionId=3" in heard[0]) == ("versionId" in place)
        assert access.usage.traffic.requests == 4
        assert not [each for each in heard if "SECRET" in each or "Referer" in each or "Authorization" in each]

    def test_gdal_neither(self, server: Faulty, other: Faulty, heard: list[str]) -> None:
        server.fault = lambda *_: answer(302, headers=f"Location: {other.url}/a.tif\r\n")
        (raster,) = gdal_file.rasters(f"{server.url}/a.tif?apikey=TOPSECRET", Access(), "GTiff")
        assert raster.lattice.width == 600
        assert heard
        assert not [each for each in heard if "SECRET" in each or "Referer" in each]

    def test_the_same_host_gets_them(self, server: Faulty) -> None:
        headers: list[str] = []

        def fault(asked: Asked, _: bytes) -> bytes | None:
            return answer(307, headers="Location: ./a.tif?apikey=A&b=1\r\n") if "b=1" not in asked.path else None

        class Listening(FaultyHandler):
            def do_GET(self) -> None:
                headers.append(str(self.headers.get("Authorization")))
                super().do_GET()

        server.RequestHandlerClass = Listening
        server.fault = fault
        fetch(f"http://me:pw@127.0.0.1:{server.server_port}/a.tif?apikey=A", 0, 8, Access())
        assert [each.path for each in server.asked] == ["/a.tif?apikey=A", "/a.tif?apikey=A&b=1"]
        assert headers == [f"Basic {b64encode(b'me:pw').decode()}"] * 2

    @pytest.mark.parametrize("location", ["/a.tif", "file:///etc/passwd", "ftp://host/a", "http://[::1"])
    def test_no_circle_and_no_other_kind_of_address(self, server: Faulty, location: str) -> None:
        server.fault = lambda *_: answer(302, headers=f"Location: {location}\r\n")
        with pytest.raises(AssetReadError, match="answers 302"):
            fetch(f"{server.url}/a.tif", 0, 8, Access())
        assert len(server.asked) == (6 if location == "/a.tif" else 1)

    def test_from_https_to_http_nothing_leads(self) -> None:
        moved = http.Answer(301, {"Location": "http://host/a.tif"}, b"")
        assert http.redirected("https://host/a.tif?key=1", moved) is None
        assert http.redirected("http://host/a.tif?key=1", moved) == "http://host/a.tif"
        safer = http.Answer(301, {"Location": "https://host/b.tif?key=1"}, b"")
        assert http.redirected("http://me:pw@host/a.tif?key=1", safer) == "https://me:pw@host/b.tif?key=1"
        assert http.redirected("http://me:pw@host:81/a.tif?key=1", safer) == "https://me:pw@host/b.tif?key=1"
        elsewhere = http.Answer(301, {"Location": "https://host.evil/b.tif?key=1&x=2"}, b"")
        assert http.redirected("https://me:pw@host/a.tif?key=1", elsewhere) == "https://host.evil/b.tif?x=2"


def test_plain_http_loads_no_authorities(server: Faulty, monkeypatch: pytest.MonkeyPatch, new_session: None) -> None:
    """They take longer to load than a small file."""

    def fail(_: Path) -> Any:
        raise AssertionError("authorities were loaded")

    monkeypatch.setattr("s2cube.fetch.connections.tls_settings", fail)
    assert fetch(f"{server.url}/a.tif", 0, 100, Access()).data
