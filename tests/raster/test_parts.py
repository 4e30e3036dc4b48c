"""Several parts of a grid in one read: each part as if it were read alone, from its tiles only."""

import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.windows import Window
from stackstac.raster_spec import RasterSpec

from s2cube.errors import AssetReadError
from s2cube.fetch import session
from s2cube.fetch.store import Access
from s2cube.raster import _tiles
from s2cube.raster._tiles import TiledRaster
from s2cube.raster.cells import CELLS
from s2cube.raster.reader import AssetReader, Faults
from support.scenes import EPSG, LEFT_M, TOP_M, write_band

CLASSES = np.dtype("uint8")


def spec_of(
    window: Window, cell_m: float, epsg: int = EPSG, corner: tuple[float, float] = (LEFT_M, TOP_M)
) -> RasterSpec:
    """Make the grid of a window of cells that are counted from a corner."""
    (top, bottom), (left, right) = window.toranges()
    west, north = corner
    bounds = (west + left * cell_m, north - bottom * cell_m, west + right * cell_m, north - top * cell_m)
    return RasterSpec(epsg, bounds, (cell_m, cell_m))


def corner(epsg: int, cell_m: float) -> tuple[float, float]:
    """Return the corner of the lattice near the corner of the files, in some CRS."""
    if epsg == EPSG:
        return LEFT_M, TOP_M
    west, _, _, north = rasterio.warp.transform_bounds(EPSG, epsg, LEFT_M, TOP_M - 4800, LEFT_M + 4800, TOP_M)
    return round(west / cell_m) * cell_m, round(north / cell_m) * cell_m


def cut(window: Window, part: Window) -> Window | None:
    """Return the overlap of two windows."""
    axes = zip(window.toranges(), part.toranges(), strict=True)
    rows, columns = ((max(one[0], other[0]), min(one[1], other[1])) for one, other in axes)
    some = rows[0] < rows[1] and columns[0] < columns[1]
    return Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0]) if some else None


def shifted(window: Window, origin: Window, sign: int = 1) -> Window:
    down, right = sign * origin.row_off, sign * origin.col_off
    return Window(window.col_off + right, window.row_off + down, window.width, window.height)


KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "10 m": (10, {"tiled": True, "blockxsize": 64, "blockysize": 64}),
    "10 m, wide tiles": (10, {"tiled": True, "blockxsize": 256, "blockysize": 16}),
    "10 m, strips": (10, {"blockysize": 7}),
    "20 m": (20, {"tiled": True, "blockxsize": 32, "blockysize": 32}),
    "60 m": (60, {"tiled": True, "blockxsize": 16, "blockysize": 16}),
    "60 m, one strip": (60, {"blockysize": 1000}),
    "10 m, GDAL": (10, {"compress": "packbits", "tiled": True, "blockxsize": 64, "blockysize": 64}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, np.dtype[Any]], str]:
    """White noise with holes, 4,800 m wide, with overviews that are averages."""
    out = {}
    for (kind, (pixel_m, profile)), dtype in itertools.product(KINDS.items(), (CELLS, CLASSES)):
        random = np.random.default_rng(pixel_m)
        side = 4800 // pixel_m
        pixels = random.integers(1, 10_000 if dtype == CELLS else 12, (side, side))
        # So few holes that most tiles have some, and most parts have none.
        pixels[random.random(pixels.shape) < 0.001] = 0
        path = tmp_path_factory.mktemp("noise") / "a.tif"
        write_band(
            path, pixels.astype("uint16" if dtype == CELLS else dtype), pixel_m, **{"compress": "deflate"} | profile
        )
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
        out[kind, dtype] = str(path)
    return out


@st.composite
def windows(draw: st.DrawFn, side: int) -> Window:
    rows, columns = (sorted(draw(st.tuples(*[st.integers(-5, side + 5)] * 2))) for _ in range(2))
    return Window(columns[0], rows[0], columns[1] - columns[0] + 1, rows[1] - rows[0] + 1)


@st.composite
def fields(draw: st.DrawFn, side: int) -> tuple[Window, ...]:
    """Small windows, some on the edge of a tile of 64 pixels, some twice."""
    out = []
    for _ in range(draw(st.integers(1, 6))):
        row, column = (draw(st.one_of(st.integers(-3, side), st.sampled_from(range(0, side, 16)))) for _ in range(2))
        height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        out.append(Window(column, row, width, height))
    return tuple(out + draw(st.sampled_from([[], out[:1]])))


class Fetched:
    """The parts of files that are requested."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.parts: list[tuple[int, int]] = []
        self._fetch = _tiles.fetch
        patch.setattr(_tiles, "fetch", self._noted)

    def _noted(self, href: str, start: int, stop: int, access: Access) -> Any:
        self.parts.append((start, stop))
        return self._fetch(href, start, stop, access)


def spans_of(reader: AssetReader, asked: Sequence[Window]) -> set[Any]:
    return {span for window in asked for run in reader.runs(window) or [] for span in run}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_parts_are_read_as_if_alone(files: dict[tuple[str, np.dtype[Any]], str], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(KINDS)))
    cell_m, dtype = data.draw(
        st.sampled_from([(10, CLASSES), (20, CLASSES), *((size, CELLS) for size in (10, 20, 30, 45, 100, 7))])
    )
    side = 4800 // cell_m
    epsg = data.draw(st.sampled_from([EPSG, EPSG, 32615, 32613, 5070, 3857]))
    place = {"cell_m": cell_m, "epsg": epsg, "corner": corner(epsg, cell_m)}
    quality = data.draw(st.sampled_from(["exact", "fast"]))
    grid = Window(data.draw(st.integers(-4, 4)), data.draw(st.integers(-4, 4)), side, side)
    parts = data.draw(fields(side))
    chunk = data.draw(st.one_of(st.just(Window(0, 0, side, side)), windows(side)))
    chunk = cut(chunk, Window(0, 0, side, side)) or Window(0, 0, 1, 1)
    options: dict[str, Any] = {"url": files[kind, dtype], "dtype": dtype, "quality": quality}
    with pytest.MonkeyPatch.context() as patch:
        session.reset()
        fetched = Fetched(patch)
        reader = AssetReader(spec=spec_of(grid, **place), parts=parts, **options)
        together = reader.read(chunk)
        runs = reader.runs(chunk)
    assert together.shape == (chunk.height, chunk.width)
    assert together.dtype == dtype
    inside = [each for each in (cut(part, chunk) for part in parts) if each]
    for part in inside:
        alone = AssetReader(spec=spec_of(shifted(part, grid), **place), **options)
        cells = alone.read(Window(0, 0, part.width, part.height))
        assert together[shifted(part, chunk, -1).toslices()].tobytes() == cells.tobytes()
    if "GDAL" in kind:
        assert runs is None or not inside
        return
    assert runs is not None
    assert sorted(fetched.parts) == sorted((run[0].start, run[-1].stop) for run in runs)
    assert spans_of(reader, [chunk]) == spans_of(AssetReader(spec=spec_of(grid, **place), **options), inside)


@pytest.mark.parametrize("dtype", [CELLS, CLASSES], ids=["bands", "classes"])
@pytest.mark.parametrize("epsg", [32615, 5070])
def test_only_warped_cells_near_a_damaged_tile_fail(
    files: dict[tuple[str, np.dtype[Any]], str], tmp_path: Path, epsg: int, dtype: np.dtype[Any]
) -> None:
    """Fields all over a file of which one tile is damaged."""
    session.reset()
    path, cell_m = tmp_path / "a.tif", 30
    data = bytearray(Path(files["10 m", dtype]).read_bytes())
    with tifffile.TiffFile(files["10 m", dtype]) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        start, size = page.dataoffsets[8 * 3 + 4], page.databytecounts[8 * 3 + 4]
    data[start + size - 1] ^= 1
    path.write_bytes(data)
    place = {"cell_m": cell_m, "epsg": epsg, "corner": corner(epsg, cell_m)}
    grid = Window(-20, -20, 220, 220)
    parts = tuple(Window(column, row, 7, 5) for row in range(0, 215, 6) for column in range(0, 213, 8))
    options: dict[str, Any] = {"spec": spec_of(grid, **place), "dtype": dtype}
    faults = Faults()
    cells = AssetReader(url=str(path), parts=parts, faults=faults, **options).read(Window(0, 0, 220, 220))
    right = AssetReader(url=files["10 m", dtype], **options).read(Window(0, 0, 220, 220))
    failed = 0
    for part in parts:
        if faults.find(str(path), part) is None:
            assert cells[part.toslices()].tobytes() == right[part.toslices()].tobytes()
            continue
        failed += 1
        # The tile is needed, or it begins a few cells beside the field.
        wider = Window(part.col_off - 3, part.row_off - 3, part.width + 6, part.height + 6)
        with pytest.raises(AssetReadError, match=r"its tile \(3, 4\)"):
            AssetReader(url=str(path), **options).read(wider)
    assert 10 < failed < 40


@pytest.mark.parametrize("epsg", [32615, 5070])
def test_each_tile_is_decoded_once_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epsg: int
) -> None:
    """A region of another CRS is warped while its file is read, row of tiles by row of tiles."""
    pixels = np.random.default_rng(1).integers(1, 9000, (4096, 2048)).astype("uint16")
    write_band(tmp_path / "a.tif", pixels, 10, tiled=True, blockxsize=256, blockysize=256)
    decoded: list[int] = []
    decode = TiledRaster._decoded

    def noted(raster: TiledRaster, tile: int, *data: Any) -> np.ndarray:
        decoded.append(tile)
        return decode(raster, tile, *data)

    monkeypatch.setattr(TiledRaster, "_decoded", noted)
    place = {"cell_m": 30, "epsg": epsg, "corner": corner(epsg, 30)}
    one = AssetReader(url=str(tmp_path / "a.tif"), dtype=CELLS, spec=spec_of(Window(0, 0, 700, 1400), **place))
    cells = one.read(Window(0, 0, 700, 1400))
    assert len(decoded) == len(set(decoded)) == 128
    # Now the bytes of the file are in the cache.
    tracemalloc.start()
    one.read(Window(0, 0, 700, 1400))
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (cells != 0).mean() > 0.8
    # The file has 17 MB of pixels, the cells have 4 MB. The memory of the sums is reused.
    assert most_bytes < 12 << 20
