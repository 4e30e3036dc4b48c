"""A tile that cannot be read fails the cells that need it, and no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from s2cube.errors import AssetReadError, SceneError, SliceError
from s2cube.fetch import session
from s2cube.fetch.store import Access
from s2cube.raster.cells import CELLS
from s2cube.raster.placement import Placement
from s2cube.raster.reader import AssetReader, Faults
from support.cogs import SPEC, TILE, WHOLE, noise, write_cog
from support.scenes import EPSG, write_band
from support.servers import Faulty, answer, faulty

CLASSES = np.dtype("uint8")


@pytest.fixture
def server(tmp_path: Path, new_session: None) -> Iterator[Faulty]:
    write_cog(tmp_path / "a.tif", noise())
    with faulty(tmp_path) as server:
        yield server


def tiles_of(path: Path) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def damage(path: Path, tile: int) -> None:
    """Change the checksum at the end of a tile."""
    offset, size = tiles_of(path)[tile]
    data = bytearray(path.read_bytes())
    data[offset + size - 1] ^= 1
    path.write_bytes(data)


def reader(href: str, faults: Faults | None, *parts: Window, dtype: np.dtype[Any] = CELLS) -> AssetReader:
    declared = {href: (Placement("S2", "blue", f"EPSG:{EPSG}"),)}
    access = Access(timeout_s=5, retries=1)
    return AssetReader(url=href, spec=SPEC, dtype=dtype, access=access, declared=declared, parts=parts, faults=faults)


def needs(part: Window, tile: int) -> bool:
    """Cells of 30 m, tiles of 128 pixels of 10 m, five in a row."""
    down, across = divmod(tile, 5)
    (top, bottom), (left, right) = part.toranges()
    return (
        3 * top < (down + 1) * TILE
        and 3 * bottom > down * TILE
        and 3 * left < (across + 1) * TILE
        and 3 * right > across * TILE
    )


@st.composite
def fields(draw: st.DrawFn) -> list[Window]:
    number = st.integers(0, 179)
    size = st.integers(1, 20)
    return draw(st.lists(st.builds(Window, number, number, size, size), min_size=1, max_size=8))


@pytest.mark.parametrize("dtype", [CELLS, CLASSES], ids=["bands", "classes"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(parts=fields(), bad=st.sets(st.integers(0, 24), min_size=1, max_size=4))
def test_of_damaged_tiles(tmp_path: Path, dtype: np.dtype[Any], parts: list[Window], bad: set[int]) -> None:
    session.reset()
    good, path = tmp_path / "good.tif", tmp_path / "a.tif"
    write_cog(good, noise())
    path.write_bytes(good.read_bytes())
    for tile in bad:
        damage(path, tile)
    faults = Faults()
    cells = reader(str(path), faults, *parts, dtype=dtype).read(WHOLE)
    right = reader(str(good), None, dtype=dtype).read(WHOLE)
    for part in parts:
        fault = faults.find(str(path), part)
        if not any(needs(part, tile) for tile in bad):
            assert fault is None
            np.testing.assert_array_equal(cells[part.toslices()], right[part.toslices()])
            continue
        with pytest.raises(AssetReadError, match="is damaged: its tile") as caught:
            reader(str(path), None, dtype=dtype).read(part)
        assert isinstance(fault, AssetReadError)
        assert (fault.scene, fault.asset) == ("S2", "blue")
        assert str(fault) == str(caught.value)


def test_of_tiles_that_a_server_does_not_give(server: Faulty) -> None:
    """A request for many tiles fails because of one of them: the others are requested alone."""
    offset, size = tiles_of(server.root / "a.tif")[7]
    server.fault = lambda asked, _: answer(500) if asked.start < offset + size and asked.stop > offset else None
    url, faults = f"{server.url}/a.tif", Faults()
    cells = reader(url, faults).read(WHOLE)
    fault = faults.find(url, Window(90, 50, 5, 5))
    assert isinstance(fault, AssetReadError)
    assert "answers 500) after 1 retry" in str(fault)
    assert fault.may_pass
    server.fault = lambda *_: None
    right = reader(url, None).read(WHOLE)
    for row in range(200):
        for column in range(200):
            one = Window(column, row, 1, 1)
            assert (faults.find(url, one) is not None) == needs(one, 7)
            assert needs(one, 7) or cells[row, column] == right[row, column]


def test_nobody_asks_for_the_tiles_again_that_are_there(server: Faulty) -> None:
    damage(server.root / "a.tif", 7)
    faults = Faults()
    reader(f"{server.url}/a.tif", faults).read(WHOLE)
    offset, size = tiles_of(server.root / "a.tif")[7]
    _, first, *others = server.reads
    assert first.stop - first.start > 20 * size
    assert {(each.start, each.stop) for each in others} == {(offset, offset + size)}


@pytest.mark.parametrize("fault", [answer(404), answer(206, b"MZ" * 8, "Content-Range: bytes 0-15/16\r\n")])
def test_of_a_file(server: Faulty, fault: bytes) -> None:
    server.fault = lambda *_: fault
    url, faults = f"{server.url}/a.tif", Faults()
    part = Window(3, 4, 20, 20)
    cells = reader(url, faults, part).read(Window(0, 0, 60, 50))
    assert (cells.shape, cells.dtype) == ((50, 60), CELLS)
    with pytest.raises(AssetReadError) as caught:
        reader(url, None, part).read(WHOLE)
    assert str(faults.find(url, Window(150, 150, 1, 1))) == str(caught.value)
    assert faults.find(f"{server.url}/b.tif", WHOLE) is None


def test_of_an_item_that_contradicts_its_file(server: Faulty) -> None:
    url, faults = f"{server.url}/a.tif", Faults()
    declared = {url: (Placement("S2", "blue", "EPSG:32615"),)}
    AssetReader(url=url, spec=SPEC, dtype=CELLS, declared=declared, faults=faults).read(WHOLE)
    fault = faults.find(url, WHOLE)
    assert isinstance(fault, SceneError)
    assert fault.scene == "S2"


def test_of_a_file_that_changes(server: Faulty) -> None:
    """Read again once: then no cell has a fault. Later it is an error of all cells."""

    def replaced(*_: Any) -> None:
        if len(server.reads) == 2:
            write_cog(server.root / "a.tif", noise(2))
            server.etag = '"2"'

    server.fault = replaced
    url, faults = f"{server.url}/a.tif", Faults()
    one = reader(url, faults)
    cells = one.read(WHOLE)
    assert faults.find(url, WHOLE) is None
    np.testing.assert_array_equal(cells, reader(url, None).read(WHOLE))
    server.fault = lambda *_: None
    write_cog(server.root / "a.tif", noise(3))
    server.etag = '"3"'
    session.reset()
    one.close()
    one.read(Window(0, 0, 20, 20))
    fault = faults.find(url, Window(150, 150, 1, 1))
    assert isinstance(fault, AssetReadError)
    assert fault.may_pass
    assert "changed while it was read" in str(fault)


def test_of_a_file_that_gdal_reads(tmp_path: Path) -> None:
    path = tmp_path / "g.tif"
    write_band(path, noise(), 10, compress="packbits", tiled=True, blockxsize=TILE, blockysize=TILE)
    path.write_bytes(path.read_bytes()[:-200_000])
    faults = Faults()
    reader(str(path), faults, WHOLE).read(WHOLE)
    assert isinstance(faults.find(str(path), Window(0, 0, 1, 1)), AssetReadError)


def test_of_a_pixel_that_is_no_digital_number(tmp_path: Path) -> None:
    pixels = noise().astype("int32")
    pixels[99:102, 99:102] = -5
    write_band(tmp_path / "n.tif", pixels, 10, tiled=True, blockxsize=TILE, blockysize=TILE)
    url, faults = str(tmp_path / "n.tif"), Faults()
    with_it, beside = Window(30, 30, 10, 10), Window(20, 20, 10, 10)
    cells = reader(url, faults, with_it, beside).read(WHOLE)
    assert "which is not a 16-bit digital number" in str(faults.find(url, with_it))
    assert faults.find(url, beside) is None
    np.testing.assert_array_equal(cells[20:30, 20:30], reader(url, None).read(beside))


def test_an_error_is_a_copy_for_each_who_asks() -> None:
    faults = Faults()
    faults.add(
        "a.tif", Window(2, 3, 4, 5), AssetReadError("a.tif", "is damaged", "Run again", scene="S2", asset="blue")
    )
    one, other = (faults.find("a.tif", Window(5, 7, 1, 1)) for _ in range(2))
    assert isinstance(one, SliceError)
    assert one is not other
    assert str(one) == str(other)
    outside = [Window(1, 3, 1, 5), Window(6, 3, 1, 1), Window(2, 8, 1, 1), Window(2, 2, 9, 1)]
    assert not any(faults.find("a.tif", each) for each in outside)
