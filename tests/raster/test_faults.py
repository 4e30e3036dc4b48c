"""Archives that fail, and files that mean harm: asked again where that helps, else named; never a wrong pixel."""

import re
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

import s2cube
from s2cube.errors import AssetReadError, SceneError
from s2cube.fetch.cache import file_cache
from s2cube.fetch.store import Access
from s2cube.fetch.traffic import Traffic
from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.reader import AssetReader
from s2cube.stac.source import open_source
from support.cogs import SPEC, TILE, WHOLE, means, noise, write_cog
from support.scenes import CLEAR, ramp, rectangle, scene, write_band
from support.servers import Asked, Faulty, answer, faulty

HEADER_BYTES = 16384


@pytest.fixture
def server(tmp_path: Path, new_session: None) -> Iterator[Faulty]:
    write_cog(tmp_path / "a.tif", noise())
    with faulty(tmp_path) as server:
        yield server


def reader(href: str, **options: Any) -> AssetReader:
    kept = Access(**({"timeout_s": 5, "retries": 3} | options))
    return AssetReader(url=href, spec=SPEC, dtype=CELLS, access=kept)


def read(server: Faulty, **options: Any) -> np.ndarray:
    cells, whole = whole_means(reader(f"{server.url}/a.tif", **options).read(WHOLE))
    assert whole.all()
    return cells


class TestEveryByteOnce:
    """Counts are exact: by what the file's own directory says, read by tifffile."""

    @pytest.fixture
    def tiles(self, tmp_path: Path, server: Faulty) -> list[tuple[int, int]]:
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            return list(zip(page.dataoffsets, page.databytecounts, strict=True))

    def test_one_request_for_the_header_and_one_for_tiles_that_lie_together(
        self, server: Faulty, tiles: list[tuple[int, int]]
    ) -> None:
        access = Access()
        cells = AssetReader(url=f"{server.url}/a.tif", spec=SPEC, dtype=CELLS, access=access).read(WHOLE)
        np.testing.assert_allclose(whole_means(cells)[0], means(noise()), rtol=1e-5)
        first, last = tiles[0][0], sum(tiles[-1])
        assert [(each.start, each.stop) for each in server.reads] == [(0, HEADER_BYTES), (first, last)]
        assert access.usage.traffic == Traffic(2, HEADER_BYTES + last - first)
        assert last - first <= 1.02 * sum(size for _, size in tiles)

    def test_only_tiles_that_are_needed(self, server: Faulty, tiles: list[tuple[int, int]]) -> None:
        """Of five tiles a row, a window of 30 m cells 50 to 79 touches the second (pixels 150 to 239)."""
        cells = reader(f"{server.url}/a.tif").read(Window(50, 50, 30, 30))
        np.testing.assert_allclose(whole_means(cells)[0], means(noise())[50:80, 50:80], rtol=1e-5)
        offset, size = tiles[6]
        assert [(each.start, each.stop) for each in server.reads[1:]] == [(offset, offset + size)]

    def test_many_readers_in_many_threads_fetch_a_tile_once(self, server: Faulty, tiles: list[tuple[int, int]]) -> None:
        windows = [Window(column, row, 25, 25) for row in range(0, 200, 25) for column in range(0, 200, 25)]
        with ThreadPoolExecutor(16) as threads:
            parts = list(threads.map(lambda window: reader(f"{server.url}/a.tif").read(window), windows * 2))
        for window, part in zip(windows * 2, parts, strict=True):
            np.testing.assert_allclose(whole_means(part)[0], means(noise())[window.toslices()], rtol=1e-5)
        asked = sorted((each.start, each.stop) for each in server.reads)
        assert asked[0] == (0, HEADER_BYTES)
        covered = [tile for tile in tiles for start, stop in asked[1:] if start <= tile[0] and sum(tile) <= stop]
        assert sorted(covered) == sorted(tiles)
        assert len(asked) <= len(tiles) + 1

    def test_of_an_overview_only_its_own_tiles(self, server: Faulty, tmp_path: Path) -> None:
        write_band(tmp_path / "b.tif", noise(), 10, tiled=True, blockxsize=TILE, blockysize=TILE)
        with rasterio.open(tmp_path / "b.tif", "r+") as file:
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        with tifffile.TiffFile(tmp_path / "b.tif") as file:
            half = file.pages[1]
            assert isinstance(half, tifffile.TiffPage)
            low, high = min(half.dataoffsets), max(map(sum, zip(half.dataoffsets, half.databytecounts, strict=True)))
        fast = AssetReader(url=f"{server.url}/b.tif", spec=SPEC, dtype=CELLS, quality="fast", access=Access())
        fast.read(WHOLE)
        of_pixels = [each for each in server.reads if each.start >= HEADER_BYTES and each.stop - each.start > 20_000]
        assert of_pixels
        assert all(low <= each.start and each.stop <= high for each in of_pixels)


class TestFaultsThatPass:
    def test_a_burst_of_503(self, server: Faulty) -> None:
        server.fault = lambda *_: answer(503) if len(server.reads) in (1, 2, 4, 5) else None
        np.testing.assert_allclose(read(server), means(noise()), rtol=1e-5)
        assert len(server.reads) == 6

    def test_429_is_left_alone_as_long_as_it_asks(self, server: Faulty) -> None:
        server.fault = lambda *_: answer(429, headers="Retry-After: 1\r\n") if len(server.reads) == 1 else None
        np.testing.assert_allclose(read(server), means(noise()), rtol=1e-5)
        first, second = server.reads[:2]
        assert second.at_s - first.at_s >= 1

    @pytest.mark.parametrize("fault", ["drop", "half", "garbage", "wrong range"])
    @pytest.mark.parametrize("request_number", [1, 2])
    def test_once(self, server: Faulty, fault: str, request_number: int) -> None:
        def once(asked: Asked, body: bytes) -> Any:
            if len(server.reads) != request_number or (fault == "garbage" and request_number == 1):
                return None
            place = f"Content-Range: bytes {asked.start}-{asked.start + len(body) - 1}/999999999\r\n"
            if fault == "drop":
                return b""
            if fault == "wrong range":
                return answer(206, body, f"Content-Range: bytes 7-{6 + len(body)}/999999999\r\n")
            if fault == "half":
                return answer(206, body, place)[: -len(body) // 2]
            return answer(
                206, bytes(len(body)), f'Content-Range: {place.split(": ")[1].split("/")[0]}/{size}\r\nETag: "1"\r\n'
            )

        size = (server.root / "a.tif").stat().st_size
        server.fault = once
        np.testing.assert_allclose(read(server), means(noise()), rtol=1e-5)

    def test_another_file_before_anything_was_read(self, server: Faulty) -> None:
        """The header is of the old file, the tiles are of the new one: it is read from its beginning."""

        def replaced(asked: Asked, body: bytes) -> None:
            if len(server.reads) == 2:
                write_cog(server.root / "a.tif", noise(2))
                server.etag = '"2"'

        server.fault = replaced
        read(server)
        server.fault = lambda *_: None
        file_cache().drop(("header", f"{server.url}/a.tif"))
        np.testing.assert_allclose(read(server), means(noise(2)), rtol=1e-5)


class TestFaultsThatStay:
    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (answer(503), r"answers 503\) after 3 retries"),
            (answer(500), r"answers 500\) after 3 retries"),
            (b"", r"closed the connection without an answer\) after 3 retries"),
            (answer(206, b"12345", "Content-Range: bytes 0-9/10\r\n"), r"after 3 retries"),
            (answer(206, b"1234567890"), r"no Content-Range header"),
        ],
    )
    def test_asked_again_as_often_as_may_be(self, server: Faulty, fault: bytes, told: str) -> None:
        server.fault = lambda *_: fault
        with pytest.raises(AssetReadError, match=rf"a\.tif: cannot be read .*{told}"):
            read(server)
        assert len(server.reads) == 4

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (answer(404), "answers 404"),
            (answer(403), "answers 403"),
            (answer(416), "is shorter than its header says"),
            (answer(200, b"x" * 50_000), "cannot be read in parts: its server ignores HTTP ranges"),
            (answer(302, headers="Location: file:///etc/passwd\r\n"), "answers 302"),
            (answer(206, b"MZ" * 8, "Content-Range: bytes 0-15/16\r\n"), "is neither a TIFF nor a JPEG 2000"),
            (answer(503, headers="Retry-After: 3600\r\n"), r"answers 503, and asks to wait 3600 s"),
        ],
    )
    def test_not_asked_again(self, server: Faulty, fault: bytes, told: str) -> None:
        server.fault = lambda *_: fault
        with pytest.raises(AssetReadError, match=rf"a\.tif: .*{told}"):
            read(server)
        assert len(server.reads) == 1

    @pytest.mark.parametrize("where", ["before the answer", "in the headers", "in the body"])
    def test_who_never_comes_to_an_end_is_left(self, server: Faulty, where: str) -> None:
        over = threading.Event()

        def slow(connection: socket.socket) -> None:
            text = answer(206, b"x" * 16384, "Content-Range: bytes 0-16383/99999\r\n")
            start = {"before the answer": 0, "in the headers": 20, "in the body": 200}[where]
            connection.sendall(text[:start])
            for byte in text[start : start + 300]:
                if over.wait(0.1):
                    return
                if where != "before the answer":
                    connection.sendall(bytes([byte]))

        server.fault = lambda *_: slow
        began = time.monotonic()
        with pytest.raises(AssetReadError, match="a.tif: cannot be read"):
            read(server, timeout_s=0.5, retries=1)
        over.set()
        assert time.monotonic() - began < 10

    def test_a_tile_of_garbage(self, server: Faulty) -> None:
        data = bytearray((server.root / "a.tif").read_bytes())
        data[-5000:-4000] = bytes(1000)
        (server.root / "a.tif").write_bytes(data)
        with pytest.raises(
            AssetReadError, match=r"a\.tif: is damaged: its tile \(4, 4\) of \d+ bytes cannot be decoded"
        ):
            read(server)

    def test_a_flipped_bit_is_seen(self, server: Faulty) -> None:
        """The sum at the end of a deflate stream is looked at."""
        with tifffile.TiffFile(server.root / "a.tif") as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            end = page.dataoffsets[7] + page.databytecounts[7]
        data = bytearray((server.root / "a.tif").read_bytes())
        data[end - 1] ^= 1
        (server.root / "a.tif").write_bytes(data)
        with pytest.raises(AssetReadError, match=r"its tile \(1, 2\) of"):
            read(server)

    def test_a_file_that_is_cut_off(self, server: Faulty) -> None:
        whole = (server.root / "a.tif").read_bytes()
        (server.root / "a.tif").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(AssetReadError, match=r"tiles beyond the end of the file at \d+ bytes: .* truncated"):
            read(server)

    def test_another_file_after_something_was_read(self, server: Faulty) -> None:
        """Half of an image of the old file and half of the new one would be no image."""
        one = reader(f"{server.url}/a.tif")
        one.read(Window(0, 0, 20, 20))
        write_cog(server.root / "a.tif", noise(2))
        server.etag = '"2"'
        with pytest.raises(AssetReadError, match=r"a\.tif: changed while it was read"):
            one.read(Window(150, 150, 20, 20))


def test_two_threads_never_give_parts_of_two_files(server: Faulty) -> None:
    """One has the old file's last tile in hand while the other finds a new file, and reads that."""
    one = reader(f"{server.url}/a.tif")
    old, new = Window(0, 0, 20, 20), Window(150, 150, 20, 20)
    filled, both = one._resampled, threading.Barrier(2, timeout=20)

    def late(raster: Any, grid: Any, parts: Any) -> Any:
        cells = filled(raster, grid, parts)
        both.wait()
        both.wait()
        return cells

    one._resampled = late  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(one.read, old)
        both.wait()
        one._resampled = filled  # type: ignore[method-assign]
        write_cog(server.root / "a.tif", noise(2))
        server.etag = '"2"'
        cells = one.read(new)
        both.wait()
        with pytest.raises(AssetReadError, match="changed while it was read"):
            first.result()
    np.testing.assert_allclose(whole_means(cells)[0], means(noise(2))[150:170, 150:170], rtol=1e-5)


def test_a_slice_fails_by_name_and_the_others_are_right(server: Faulty, tmp_path: Path) -> None:
    first = scene(tmp_path, "good", blue=ramp(600, 10), scl=CLEAR)
    for key in first.assets:
        first.assets[key].href = f"{server.url}/good_{key}.tif"
    cube = s2cube.open_cube([first], rectangle(600, -1200, 1200, -600), bands=["blue"], timeout=5, retries=1)
    assert np.isfinite(cube.values).all()
    server.fault = lambda asked, _: answer(503) if "blue" in asked.path else None
    with pytest.raises(AssetReadError, match=r"good_blue\.tif: cannot be read \(answers 503\)\. Run again"):
        s2cube.open_cube([first], rectangle(3000, -4200, 4200, -3000), bands=["blue"], retries=0).compute()


class TestWhereFilesMayLie:
    """Nobody vetted what a catalogue on the network says."""

    @pytest.mark.parametrize(
        "href",
        ["file:///etc/passwd", "ftp://host/a.tif", "zip+https://host/a.zip!a.tif", "gopher://host/1"],
    )
    def test_a_catalogue_on_the_network(
        self, server: Faulty, tmp_path: Path, href: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        item = scene(tmp_path, blue=ramp(60, 10), scl=CLEAR[:30, :30]).to_dict()
        item["assets"]["blue"]["href"] = href
        item["assets"]["scl"]["href"] = "./scene_scl.tif"
        (tmp_path / "items.json").write_text(
            __import__("json").dumps({"type": "FeatureCollection", "features": [item]})
        )
        (found,) = open_source(f"{server.url}/items.json")  # type: ignore[misc]
        assert found.assets.keys() == {"scl"}
        assert found.assets["scl"].href == f"{server.url}/scene_scl.tif"
        assert re.search(
            "asset blue is left out.* a catalogue on the network may only name http, https, s3, gs, az", caplog.text
        )

    @pytest.mark.parametrize(
        "href", ["/vsicurl/http://127.0.0.1:9/a.tif", "/vsizip/a.zip/a.tif", "/vsimem/a.tif", "vrt://a.tif"]
    )
    def test_no_tricks_of_gdal(self, href: str) -> None:
        with pytest.raises(AssetReadError, match="cannot be read|nothing is read from"):
            reader(href).read(WHOLE)

    def test_no_vrt_in_the_clothes_of_a_tiff(self, tmp_path: Path) -> None:
        write_cog(tmp_path / "secret.tif", noise())
        with rasterio.open(tmp_path / "secret.tif") as file:
            rasterio.shutil.copy(file, tmp_path / "a.tif", driver="VRT")
        assert rasterio.open(tmp_path / "a.tif").read(1).any()
        with pytest.raises(AssetReadError, match="is neither a TIFF nor a JPEG 2000"):
            reader(str(tmp_path / "a.tif")).read(WHOLE)


def entry(path: Path, tag: int) -> int:
    """Find where a directory entry of a little-endian TIFF stands."""
    data = path.read_bytes()
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for position in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, position)[0] == tag:
            return position
    raise AssertionError(tag)


class TestHostileFiles:
    """Refused within bounds of time and memory."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        write_cog(tmp_path / "h.tif", noise())
        return tmp_path / "h.tif"

    def refused(self, path: Path, told: str) -> None:
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(AssetReadError, match=told):
            reader(str(path)).read(WHOLE)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert time.monotonic() - began < 10
        assert most < 100 << 20

    @pytest.mark.parametrize(
        ("tag", "kind", "value", "told"),
        [
            (256, 4, 2**31, "damaged header"),
            (257, 4, 2**32 - 1, "damaged header"),
            (256, 4, 0, "damaged header"),
            (322, 4, 2**30, "tiles of .* MB|damaged header"),
            (322, 4, 0, "damaged header"),
        ],
    )
    def test_dimensions(self, path: Path, tag: int, kind: int, value: int, told: str) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into("<HHII", data, entry(path, tag), tag, kind, 1, value)
        path.write_bytes(data)
        self.refused(path, told)

    def test_one_tile_of_half_a_gigabyte(self, tmp_path: Path) -> None:
        write_band(tmp_path / "one.tif", ramp(100, 10), 10, tiled=True, blockxsize=128, blockysize=128)
        data = bytearray((tmp_path / "one.tif").read_bytes())
        for tag in (256, 257, 322, 323):
            struct.pack_into("<HHII", data, entry(tmp_path / "one.tif", tag), tag, 4, 1, 16384)
        (tmp_path / "one.tif").write_bytes(data)
        self.refused(tmp_path / "one.tif", "damaged header .*tiles of 512 MB")

    def test_offsets_beyond_the_end(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        (offsets,) = struct.unpack_from("<I", data, entry(path, 324) + 8)
        struct.pack_into("<I", data, offsets + 8, 2**32 - 10)
        path.write_bytes(data)
        self.refused(path, "beyond the end")

    @pytest.mark.parametrize("tag", [324, 325])
    def test_more_entries_than_the_file_holds(self, path: Path, tag: int) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into("<I", data, entry(path, tag) + 4, 2**31 - 1)
        path.write_bytes(data)
        self.refused(path, "header")

    def test_a_bomb(self, path: Path) -> None:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            offset, size = page.dataoffsets[0], page.databytecounts[0]
        bomb = zlib.compress(bytes(20_000_000), 9)
        assert len(bomb) <= size
        data = bytearray(path.read_bytes())
        data[offset : offset + len(bomb)] = bomb
        path.write_bytes(data)
        self.refused(path, r"its tile \(0, 0\) of \d+ bytes cannot be decoded")

    def test_directories_in_a_circle(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        (at,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<I", data, at + 2 + 12 * count, at)
        path.write_bytes(data)
        cells = None
        try:
            cells = reader(str(path)).read(WHOLE)
        except AssetReadError:
            return
        np.testing.assert_allclose(whole_means(cells)[0], means(noise()), rtol=1e-5)

    @pytest.mark.slow
    @settings(max_examples=150)
    @given(st.lists(st.tuples(st.integers(4, 420), st.integers(0, 255)), min_size=1, max_size=6))
    def test_any_header(self, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
        """Whatever stands there: an image, or an error that names the file."""
        path = tmp_path_factory.mktemp("fuzz") / "f.tif"
        data = bytearray(self.whole(tmp_path_factory))
        for at, value in changes:
            data[at] = value
        path.write_bytes(data)
        began = time.monotonic()
        named = ""
        try:
            assert reader(str(path)).read(WHOLE).shape == (200, 200)
        except (AssetReadError, SceneError) as error:
            named = error.subject
        assert named in ("", str(path))
        assert time.monotonic() - began < 10

    _whole: bytes = b""

    @classmethod
    def whole(cls, folders: pytest.TempPathFactory) -> bytes:
        if not cls._whole:
            path = folders.mktemp("whole") / "w.tif"
            write_cog(path, noise())
            cls._whole = path.read_bytes()
        return cls._whole
