"""What GDAL is given of a file on the network: its bytes, in few requests, or an error; never fewer pixels."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from rasterio.windows import Window

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access, Part
from s2cube.raster.gdal_file import RangedFile, rasters
from s2cube.raster.lattice import rectangles
from support.cogs import noise
from support.scenes import write_band
from support.servers import Asked, Faulty, answer, faulty

WHOLE = Window(0, 0, 1024, 1024)
CONTENT = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def server(tmp_path: Path, open_network: None) -> Iterator[Faulty]:
    write_band(tmp_path / "plain.tif", np.tile(noise(), (2, 2))[:1024, :1024], 10)
    with rasterio.open(tmp_path / "plain.tif") as file:
        options = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}
        rasterio.shutil.copy(file, tmp_path / "a.jp2", driver="JP2OpenJPEG", **options)
    with faulty(tmp_path) as server:
        yield server


def pixels(server: Faulty, window: Window, access: Access | None = None) -> np.ndarray:
    (raster,) = rasters(f"{server.url}/a.jp2", access or Access(retries=0), "JP2OpenJPEG")
    return np.concatenate([block.pixels for block in raster.blocks(rectangles([window]))])


@given(st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 120_000)), max_size=12))
def test_any_piece(pieces: list[tuple[int, int]]) -> None:
    asked: list[tuple[int, int]] = []

    def fetch(_href: str, start: int, stop: int, _access: Access) -> Part:
        asked.append((start, stop))
        return Part(memoryview(CONTENT)[start:stop], len(CONTENT), "1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s2cube.raster.gdal_file.fetch", fetch)
        handle = RangedFile("https://host/a", Access()).open("", "")
        for start, size in pieces:
            handle.seek(start)
            assert handle.read(size) == CONTENT[start : start + size]
            assert handle.tell() == start + len(CONTENT[start : start + size])
        assert handle.seek(0, 2) == len(CONTENT)
        assert handle.seek(-5, 1) == len(CONTENT) - 5
        assert handle.read(99) == CONTENT[-5:]
    assert all(start < len(CONTENT) for start, _ in asked)


def test_pixels_in_few_requests(server: Faulty, tmp_path: Path) -> None:
    """Headers of 16 tiles are looked at again for each of them, but asked for once."""
    access = Access()
    with rasterio.open(tmp_path / "plain.tif") as file:
        whole = file.read(1)
    np.testing.assert_array_equal(pixels(server, WHOLE, access), whole)
    assert {each.method for each in server.asked} == {"GET"}
    assert len(server.asked) == access.usage.traffic.requests <= 2 * 16 + 6
    assert access.usage.traffic.bytes < 1.2 * (tmp_path / "a.jp2").stat().st_size
    server.asked.clear()
    np.testing.assert_array_equal(pixels(server, Window(550, 550, 150, 150)), whole[550:700, 550:700])
    assert len(server.asked) < 20


def test_many_threads(server: Faulty, tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "plain.tif") as file:
        whole = file.read(1)
    windows = [Window(column, row, 128, 128) for row in range(0, 1024, 256) for column in range(0, 1024, 256)]
    with ThreadPoolExecutor(8) as threads:
        for window, part in zip(windows, threads.map(lambda each: pixels(server, each), windows), strict=True):
            np.testing.assert_array_equal(part, whole[window.toslices()])


@pytest.mark.slow
@pytest.mark.parametrize("fault", [answer(404), answer(503), b"", answer(206, b"x", "Content-Range: bytes 3-3/9\r\n")])
def test_an_error_anywhere_is_that_error(server: Faulty, fault: bytes) -> None:
    """At every request that reading takes, one by one: no pixel comes of it."""
    pixels(server, WHOLE)
    requests, failed = len(server.asked), 0

    def read(given: list[np.ndarray]) -> None:
        (raster,) = rasters(f"{server.url}/a.jp2", Access(retries=0), "JP2OpenJPEG")
        for block in raster.blocks(rectangles([WHOLE])):
            given.append(block.pixels)

    for number in range(1, requests + 1):
        server.asked.clear()
        server.fault = lambda *_, number=number: fault if len(server.asked) >= number else None  # type: ignore[misc]
        given: list[np.ndarray] = []
        with pytest.raises(AssetReadError, match=r"a\.jp2: .*(404|503|without an answer|other bytes)"):
            read(given)
        assert not given
        failed += 1
    assert failed == requests


def test_what_gdal_makes_of_an_error_is_never_given(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a driver take an error for zeros, nobody gets to see them."""
    (raster,) = rasters(f"{server.url}/plain.tif", Access(retries=0), "GTiff")
    get, given = RangedFile.get, []

    def zeros(file: RangedFile, start: int, stop: int) -> bytes:
        return get(file, start, stop) or bytes(min(stop, file.size) - start)

    monkeypatch.setattr(RangedFile, "get", zeros)
    server.fault = lambda asked, _: answer(404) if asked.start > 500_000 else None
    with pytest.raises(AssetReadError, match=r"plain\.tif: answers 404"):
        given.append(next(raster.blocks(rectangles([WHOLE]))))
    assert not given


def test_what_may_pass_is_tried_again(server: Faulty, tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "plain.tif") as file:
        whole = file.read(1)
    server.fault = lambda *_: answer(503) if len(server.asked) % 3 == 2 else None
    np.testing.assert_array_equal(pixels(server, WHOLE, Access(retries=3)), whole)


def test_a_file_that_changes_is_no_image(server: Faulty) -> None:
    def change(asked: Asked, _: bytes) -> None:
        server.etag = f'"{asked.start // 200_000}"'

    server.fault = change
    with pytest.raises(AssetReadError, match="changed while it was read"):
        pixels(server, WHOLE)


def test_the_end_of_a_file_that_is_cut_off(server: Faulty, tmp_path: Path) -> None:
    data = (tmp_path / "a.jp2").read_bytes()
    (tmp_path / "a.jp2").write_bytes(data[: len(data) // 2])
    with pytest.raises(RasterioError, match="Read failed"):
        pixels(server, WHOLE)
