"""Files of every kind on a grid, against plain sums over areas and against GDAL."""

import itertools
import pickle
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rasterio.warp
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.windows import Window
from stackstac.raster_spec import RasterSpec

from s2cube.errors import AssetReadError, SceneError
from s2cube.fetch.store import Access
from s2cube.raster._resample import sum_areas
from s2cube.raster._tiles import TiledRaster, header
from s2cube.raster.cells import CELLS, pack, unpack, whole_means
from s2cube.raster.lattice import Block, Lattice, Report, rectangles
from s2cube.raster.placement import Placement
from s2cube.raster.reader import AssetReader
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, open_int16, ramp, rectangle, scene, write_band

AVERAGE = {"dtype": CELLS}
NEAREST = {"dtype": np.dtype("uint8")}


def grid(left: float, top: float, resolution_m: float, rows: int, columns: int, epsg: int = EPSG) -> RasterSpec:
    """A grid in metres from the corner of the scenes, y upwards."""
    west, north = LEFT_M + left, TOP_M + top
    bounds = (west, north - rows * resolution_m, west + columns * resolution_m, north)
    return RasterSpec(epsg, bounds, (resolution_m, resolution_m))


def read(path: Path, spec: RasterSpec, **options: Any) -> np.ndarray:
    """Read a whole grid: classes, or sums as cells tell them."""
    height, width = spec.shape
    given = {**AVERAGE, **options}
    cells = AssetReader(url=str(path), spec=spec, **given).read(Window(0, 0, width, height))
    return unpack(cells) if given["dtype"] == CELLS else cells


def whole(lattice: Lattice) -> np.ndarray:
    return rectangles([Window(0, 0, lattice.width, lattice.height)])


def sums_of(path: Path, spec: RasterSpec) -> np.ndarray:
    """Sum a file on a grid, before cells are made of it."""
    tiff = header(str(path), Access())
    sums = np.zeros(spec.shape, "complex64")
    lattice = Lattice(CRS.from_epsg(spec.epsg), spec.transform, *spec.shape)
    sum_areas(TiledRaster(tiff, tiff.levels[0], Access()), lattice, whole(lattice), sums)
    return sums


def quantum(share: np.ndarray) -> np.ndarray:
    """By how much cells may misstate a share: nothing, and all, they tell exactly."""
    return np.where((share == 0) | (share > 0.999), 1e-5, 1 / 16380)


def mean(sums: np.ndarray) -> np.ndarray:
    return np.where(sums.imag > 0, sums.real / np.where(sums.imag > 0, sums.imag, 1), np.nan)


def area_sums(pixels: np.ndarray, pixel_m: float, spec: RasterSpec) -> np.ndarray:
    """Sum pixels by the areas they share with each cell, rectangle by rectangle; 0 is no pixel."""
    sums = np.zeros(spec.shape, complex)
    size = spec.resolutions_xy[0]
    for row in range(spec.shape[0]):
        for column in range(spec.shape[1]):
            west, north = spec.bounds[0] + column * size - LEFT_M, TOP_M - spec.bounds[3] + row * size
            for y in range(pixels.shape[0]):
                for x in range(pixels.shape[1]):
                    wide = min(west + size, (x + 1) * pixel_m) - max(west, x * pixel_m)
                    high = min(north + size, (y + 1) * pixel_m) - max(north, y * pixel_m)
                    if wide > 0 and high > 0 and pixels[y, x]:
                        sums[row, column] += (pixels[y, x] + 1j) * wide * high / size**2
    return sums


@given(
    st.integers(0, 10_000), st.sampled_from([10, 20, 60]), st.sampled_from([7, 10, 15, 30, 32.5, 45, 100]),
    st.integers(-90, 60), st.integers(-60, 90), st.floats(0, 0.6),
)  # fmt: skip
def test_sums_are_those_of_areas(
    seed: int, pixel_m: int, resolution_m: float, left: int, top: int, holes: float
) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(1, 10_000, (7, 6)).astype("uint16")
    pixels[random.random(pixels.shape) < holes] = 0
    spec = grid(left, top, resolution_m, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        write_band(Path(folder) / "a.tif", pixels, pixel_m)
        got, cells = sums_of(Path(folder) / "a.tif", spec), read(Path(folder) / "a.tif", spec)
    want = area_sums(pixels, pixel_m, spec)
    # Edges are told apart to a millionth of a pixel.
    np.testing.assert_allclose(got.imag, want.imag, atol=1e-5)
    np.testing.assert_allclose(got.real, want.real, rtol=1e-5, atol=0.1)
    assert (np.abs(cells.imag - want.imag) <= quantum(want.imag)).all()
    whole = want.imag > 0.9991
    np.testing.assert_allclose(mean(cells)[whole], mean(want)[whole], rtol=1e-5, atol=0.1)
    cut = (want.imag > 1e-4) & ~whole
    np.testing.assert_allclose(mean(cells)[cut], mean(want)[cut], atol=0.6)


class Piece(NamedTuple):
    """Some pixels of a granule of which nothing else is read."""

    lattice: Lattice
    row: int
    column: int
    pixels: np.ndarray
    nodata: float | None = 0

    def extents(self, rects: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def blocks(self, rects: np.ndarray, report: Report | None = None) -> Iterator[Block]:
        yield Block(self.row, self.column, self.pixels)


@pytest.mark.slow
@given(
    st.integers(0, 10_000), st.sampled_from([10, 20, 60]), st.sampled_from([10, 20, 30, 45, 60, 100]),
    st.integers(50_000, 105_000), st.integers(50_000, 105_000), st.sampled_from([4_500_000, 9_400_000]),
)  # fmt: skip
def test_sums_are_those_of_areas_far_from_the_corner(
    seed: int, pixel_m: int, cell_m: int, east_m: int, south_m: int, top_m: int
) -> None:
    """On the lattice of all fields, thousands of rows and columns from where the granule begins."""
    pixels = np.random.default_rng(seed).integers(1, 10_000, (24, 24)).astype("uint16")
    row, column = south_m // pixel_m, east_m // pixel_m
    left, top = 600_000 + column * pixel_m, top_m - row * pixel_m
    west, north = -(-left // cell_m) * cell_m, top // cell_m * cell_m
    side = min(5, (24 * pixel_m - cell_m) // cell_m)
    bounds = np.array((west, north - side * cell_m, west + side * cell_m, north))
    transform = from_origin(600_000, top_m, pixel_m, pixel_m)
    granule = Lattice(CRS.from_epsg(EPSG), transform, 109_800 // pixel_m, 109_800 // pixel_m)
    sums = np.zeros((side, side), "complex64")
    grid = Lattice(granule.crs, from_origin(west, north, cell_m, cell_m), side, side)
    sum_areas(Piece(granule, row, column, pixels), grid, whole(grid), sums)
    # `area_sums` has its pixels at the corner of the scenes.
    shifted = tuple(map(float, bounds + np.array((LEFT_M - left, TOP_M - top) * 2)))
    want = area_sums(pixels, pixel_m, RasterSpec(EPSG, shifted, (cell_m, cell_m)))  # type: ignore[arg-type]
    np.testing.assert_allclose(sums.imag, want.imag, atol=1e-6)
    np.testing.assert_allclose(sums.real, want.real, rtol=1e-6, atol=0.01)


class Cut(NamedTuple):
    """A raster whose blocks are cut anywhere."""

    lattice: Lattice
    pixels: np.ndarray
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    nodata: float | None = 0

    def blocks(self, rects: np.ndarray, report: Report | None = None) -> Iterator[Block]:
        assert report is None
        if not len(rects):
            return
        top, bottom, left, right = rects[0].tolist()
        down, across = (
            sorted({first, last, *(cut for cut in cuts if first < cut < last)})
            for first, last, cuts in ((top, bottom, self.rows), (left, right, self.columns))
        )
        for rows in itertools.pairwise(down):
            for columns in itertools.pairwise(across):
                yield Block(rows[0], columns[0], self.pixels[slice(*rows), slice(*columns)])


@given(
    st.integers(0, 10_000), st.sampled_from([10, 20, 60]), st.sampled_from([10, 20, 30, 60, 90, 100, 160]),
    st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    st.tuples(st.lists(st.integers(1, 30), max_size=4), st.lists(st.integers(1, 30), max_size=4)), st.booleans(),
)  # fmt: skip
def test_sums_of_whole_units_are_exact(
    seed: int, pixel_m: int, cell_m: int, shift: tuple[int, int], cuts: tuple[list[int], list[int]], with_holes: bool
) -> None:
    """In whatever blocks pixels come, a cell is the sum of whole numbers, divided and rounded once."""
    random = np.random.default_rng(seed)
    # Sums of three rows of at most 21845 fit into 16 bits.
    brightest = (65535, 21846, 21845, 300)[seed % 4]
    pixels = random.integers(max(1, brightest - 500), brightest + 1, (30, 30)).astype("uint16")
    if with_holes:
        pixels[random.random(pixels.shape) < 0.1] = 0
    raster = Lattice(CRS.from_epsg(EPSG), from_origin(600_000, 4_500_000, pixel_m, pixel_m), 30, 30)
    side = 30 * pixel_m // cell_m + 3
    left, top = 600_000 + 10 * shift[0], 4_500_000 + 10 * shift[1]
    grid = Lattice(raster.crs, from_origin(left, top, cell_m, cell_m), side, side)
    out = np.zeros((side, side), "complex64")
    sum_areas(Cut(raster, pixels, *map(tuple, cuts)), grid, whole(grid), out)
    # Squares of 10 m, with a margin: their number in a cell is known.
    per_pixel, per_cell, margin = pixel_m // 10, cell_m // 10, 30 + 3 * cell_m // 10
    squares = np.pad(pixels.repeat(per_pixel, 0).repeat(per_pixel, 1).astype("int64"), margin)
    inside = squares[margin - shift[1] :, margin + shift[0] :][: side * per_cell, : side * per_cell]
    inside = np.pad(inside, [(0, side * per_cell - length) for length in inside.shape])
    sums, valid = (
        each.reshape(side, per_cell, side, per_cell).sum(axis=(1, 3)) / per_cell**2 for each in (inside, inside > 0)
    )
    np.testing.assert_array_equal(out.real, sums.astype("float32"))
    np.testing.assert_array_equal(out.imag, valid.astype("float32"))


@pytest.mark.parametrize("crs", [EPSG, 32615, 5070])
def test_chunks_make_the_whole(tmp_path: Path, crs: int) -> None:
    """However a grid is cut into chunks, no cell comes out differently."""
    pixels = np.random.default_rng(2).integers(1, 9000, (600, 600)).astype("uint16")
    pixels[200:260, 150:220] = 0
    write_band(tmp_path / "a.tif", pixels, 10)
    west, south, east, north = rasterio.warp.transform_bounds(
        EPSG, crs, LEFT_M + 600, TOP_M - 4200, LEFT_M + 4200, TOP_M - 600
    )
    spec = RasterSpec(crs, tuple(round(edge / 30) * 30 for edge in (west, south, east, north)), (30, 30))  # type: ignore[arg-type]
    reader = AssetReader(url=str(tmp_path / "a.tif"), spec=spec, **AVERAGE)
    height, width = spec.shape
    whole = reader.read(Window(0, 0, width, height))
    parts = np.zeros_like(whole)
    for top in range(0, height, 50):
        for left in range(0, width, 70):
            window = Window(left, top, min(70, width - left), min(50, height - top))
            parts[top : top + 50, left : left + 70] = reader.read(window)
    np.testing.assert_array_equal(parts, whole)
    shares = unpack(whole).imag
    assert (shares == 0).any()
    assert (shares > 0.99).any()


def test_shares_of_warped_cells_end_with_the_file(tmp_path: Path) -> None:
    """At the rim of a file that is full of data, by the area of its outline in the cells of another CRS."""
    write_band(tmp_path / "w.tif", ramp(60, 10), 10)
    outline = shapely.segmentize(shapely.box(LEFT_M, TOP_M - 600, LEFT_M + 600, TOP_M), 10)
    outline = geopandas.GeoSeries([outline], crs=EPSG).to_crs(5070)[0]
    west, south, east, north = (round(edge / 30) * 30 for edge in outline.buffer(90).bounds)
    spec = RasterSpec(5070, (west, south, east, north), (30, 30))
    rows, columns = spec.shape
    x, y = np.meshgrid(west + 30 * np.arange(columns), north - 30 * np.arange(rows))
    want = shapely.area(shapely.intersection(shapely.box(x, y - 30, x + 30, y), outline)) / 900
    # GDAL counts a source pixel by its part under the upright hull of the cell, so turned rims are off by a little.
    np.testing.assert_allclose(read(tmp_path / "w.tif", spec).imag, want, atol=0.12)
    assert ((want > 0.2) & (want < 0.8)).sum() > 20


@given(st.integers(0, 2**32))
def test_cells_tell_sums(seed: int) -> None:
    random = np.random.default_rng(seed)
    ninths = random.integers(0, 10, (7, 5))
    dn = random.uniform(1, 65535, ninths.shape)
    sums = (dn * ninths / 9 + 1j * ninths / 9).astype("complex64")
    cells = pack(sums)
    np.testing.assert_array_equal(cells == 0, ninths == 0)
    np.testing.assert_array_equal(whole_means(cells)[1], ninths == 9)
    again = unpack(cells)
    np.testing.assert_allclose(again.imag, ninths / 9, atol=1e-6)
    cut = (ninths > 0) & (ninths < 9)
    np.testing.assert_allclose(mean(again)[ninths == 9], dn[ninths == 9], rtol=1e-6)
    np.testing.assert_allclose(mean(again)[cut], dn[cut], atol=0.51)


@pytest.mark.parametrize("value", [-5, 70_000])
def test_what_is_no_digital_number_is_refused(tmp_path: Path, value: int) -> None:
    pixels = ramp(60, 10).astype("int32")
    pixels[30:, 30:] = value
    write_band(tmp_path / "n.tif", pixels, 10)
    with pytest.raises(
        AssetReadError, match=rf"n\.tif: cannot be read \(it contains {value}, which is not a 16-bit digital number"
    ):
        read(tmp_path / "n.tif", grid(0, 0, 30, 20, 20))


def make(path: Path, pixels: np.ndarray, kind: str) -> None:
    """Write pixels as a file of some kind."""
    if kind == "jp2":
        write_band(path, pixels, 10, nodata=None)
        with rasterio.open(path) as plain:
            rasterio.shutil.copy(plain, path.with_suffix(".jp2"), driver="JP2OpenJPEG", reversible="YES", quality=100)
        path.unlink()
        path.with_suffix(".jp2").rename(path)
    elif kind == "internal mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_band(path, np.where(pixels == 0, 1, pixels), 10, nodata=None)
            with rasterio.open(path, "r+") as file:
                file.write_mask(pixels != 0)
    elif kind == "nodata 65535":
        write_band(path, np.where(pixels == 0, 65535, pixels), 10, nodata=65535)
    else:
        write_band(path, pixels, 10, **KINDS[kind])


TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128}
KINDS: dict[str, dict[str, Any]] = {
    "blocks of 128": TILED,
    "blocks of 16 by 512": {"tiled": True, "blockxsize": 512, "blockysize": 16},
    "LZW": TILED | {"compress": "lzw"},
    "ZSTD": TILED | {"compress": "zstd", "predictor": 2},
    "LERC": TILED | {"compress": "lerc", "max_z_error": 0},
    "strips": {"compress": "deflate"},
    "one strip": {"blockysize": 600},
    "nodata not said": {"nodata": None},
    "int16": TILED,
    "jp2": {},
    "internal mask": {},
    "nodata 65535": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["exact", "fast"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_file_gives_the_same(tmp_path: Path, kind: str, quality: str) -> None:
    """None of these has overviews that are means, so `fast` reads what `exact` does."""
    pixels = ramp(600, 10)
    pixels[100:140, 200:260] = 0
    pixels[::7, ::5] = 0
    if kind == "int16":
        pixels = pixels.astype("int16")
    make(tmp_path / "b.tif", pixels, kind)
    got = read(tmp_path / "b.tif", grid(0, 0, 30, 200, 200), quality=quality)
    native = pixels.reshape(200, 3, 200, 3).swapaxes(1, 2).reshape(200, 200, 9).astype(float)
    share = (native != 0).mean(axis=-1)
    np.testing.assert_allclose(got.imag, share, atol=1e-6)
    want = native.sum(axis=-1) / np.maximum(1, (native != 0).sum(axis=-1))
    np.testing.assert_allclose(mean(got)[share == 1], want[share == 1], atol=0.01)
    np.testing.assert_allclose(mean(got)[share > 0], want[share > 0], atol=0.51)
    assert (share == 0).any()


def test_a_mask_does_not_put_out_nodata(tmp_path: Path) -> None:
    pixels = np.full((60, 60), 500, "uint16")
    pixels[:, 20:40] = 65535
    write_band(tmp_path / "m.tif", pixels, 10, nodata=65535)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "m.tif", "r+") as file:
        inside = np.ones((60, 60), bool)
        inside[:, :10] = False
        file.write_mask(inside)
    shares = read(tmp_path / "m.tif", grid(0, 0, 10, 60, 60)).imag
    want = (pixels == 500) & inside
    np.testing.assert_array_equal(shares, want)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jp2", "internal mask", "nodata 65535", "LERC"])
@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:32615"])
def test_any_file_through_the_cube(tmp_path: Path, kind: str, crs: str) -> None:
    pixels = ramp(600, 10)
    item = scene(tmp_path, blue=pixels, scl=CLEAR)
    aoi = rectangle(600, -4200, 4200, -600)
    plain = open_int16([item], aoi, bands=["blue"], crs=crs).values
    make(Path(item.assets["blue"].href), pixels, kind)
    np.testing.assert_array_equal(open_int16([item], aoi, bands=["blue"], crs=crs).values, plain)
    assert (plain != -9999).mean() > 0.8


class TestFast:
    """A file whose overviews hold other numbers than its pixels, so that one sees what was read."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "c.tif"
        write_band(path, np.full((640, 640), 1000, "uint16"), 10, **TILED)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4, 8], Resampling.nearest)
        for level, value in enumerate((2000, 4000, 8000)):
            with rasterio.open(path, "r+", overview_level=level) as file:
                file.write(np.full(file.shape, value, "uint16"), 1)
        return path

    @pytest.mark.parametrize(
        ("resolution_m", "value"), [(10, 1000), (19, 1000), (20, 2000), (30, 2000), (40, 4000), (79, 4000), (300, 8000)]
    )
    @pytest.mark.parametrize("crs", [EPSG, 32613])
    def test_the_coarsest_overview_that_is_fine_enough(
        self, path: Path, resolution_m: int, value: int, crs: int
    ) -> None:
        west, _, _, north = rasterio.warp.transform_bounds(EPSG, crs, LEFT_M, TOP_M - 6400, LEFT_M + 6400, TOP_M)
        bounds = (west + 2000, north - 2000 - 5 * resolution_m, west + 2000 + 5 * resolution_m, north - 2000)
        spec = RasterSpec(crs, bounds, (resolution_m, resolution_m))
        assert (mean(read(path, spec, quality="fast")).round() == value).all()
        assert (mean(read(path, spec, quality="exact")).round() == 1000).all()

    def test_overviews_in_any_order(self, tmp_path: Path) -> None:
        path = tmp_path / "d.tif"
        write_band(path, np.full((640, 640), 1000, "uint16"), 10, **TILED)
        for factor in (8, 2):
            with rasterio.open(path, "r+") as file:
                file.build_overviews([factor], Resampling.nearest)
        with rasterio.open(path) as file:
            level = file.overviews(1).index(2)
        with rasterio.open(path, "r+", overview_level=level) as file:
            file.write(np.full(file.shape, 2000, "uint16"), 1)
        assert (mean(read(path, grid(0, 0, 30, 20, 20), quality="fast")).round() == 2000).all()

    def test_classes_are_never_of_an_overview(self, path: Path) -> None:
        write_band(path, np.full((640, 640), 4, "uint8"), 20, **TILED)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.nearest)
        for level in (0, 1):
            with rasterio.open(path, "r+", overview_level=level) as file:
                file.write(np.full(file.shape, 9, "uint8"), 1)
        assert (read(path, grid(0, 0, 100, 20, 20), quality="fast", **NEAREST) == 4).all()


WITHOUT_NODATA_0: dict[str, dict[str, Any]] = {
    "no tag": {"nodata": None},
    "nodata 65535": {"nodata": 65535},
    "nodata -1 of int16": {"nodata": -1, "dtype": "int16"},
    "no tag, read by GDAL": {"nodata": None, "compress": "packbits"},
    "nodata 65535, read by GDAL": {"nodata": 65535, "compress": "packbits"},
    "a mask, read by GDAL": {"nodata": None},
    "a mask and nodata 0, read by GDAL": {"nodata": 0},
}


@pytest.mark.parametrize("kind", WITHOUT_NODATA_0)
class TestOverviewsThatBlendZeros:
    """DN 0 is no data whatever a file says, but what made its overviews went by what it says."""

    @pytest.fixture
    def path(self, kind: str, tmp_path: Path) -> Path:
        """2056 where there is data, which ends within a pixel of every overview."""
        profile = {"dtype": "uint16"} | WITHOUT_NODATA_0[kind]
        pixels = np.zeros((320, 320), profile.pop("dtype"))
        pixels[5:, 13:] = 2056
        pixels[101, 201] = 0
        write_band(tmp_path / "z.tif", pixels, 10, **TILED, **profile)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "z.tif", "r+") as file:
            if "mask" in kind:
                file.write_mask(np.ones(pixels.shape, bool))
            file.build_overviews([2, 4], Resampling.average)
        return tmp_path / "z.tif"

    def test_the_trap_is_there(self, kind: str, path: Path) -> None:
        with rasterio.open(path, overview_level=0) as file:
            assert {1028, 1542} <= set(np.unique(file.read(1)))

    @pytest.mark.parametrize("cell_m", [20, 30, 50, 100])
    @pytest.mark.parametrize("epsg", [EPSG, 32615])
    def test_are_not_read(self, kind: str, path: Path, cell_m: int, epsg: int) -> None:
        west, _, _, north = rasterio.warp.transform_bounds(EPSG, epsg, LEFT_M, TOP_M - 3200, LEFT_M + 3200, TOP_M)
        west, north = round(west, -2), round(north, -2)
        spec = RasterSpec(epsg, (west, north - 3000, west + 3000, north), (cell_m, cell_m))
        access = Access()
        got = read(path, spec, quality="fast", access=access)
        assert set(mean(got)[got.imag > 0].round(1)) == {2056}
        np.testing.assert_array_equal(got, read(path, spec))
        if epsg == EPSG:
            valid = np.zeros((300, 300))
            valid[5:, 13:] = 1
            valid[101, 201] = 0
            share = valid.reshape(3000 // cell_m, cell_m // 10, -1, cell_m // 10).mean(axis=(1, 3))
            assert (np.abs(got.imag - share) <= quantum(share)).all()
        (note,) = access.usage.notes.values()
        assert "read at native resolution: its overviews may average DN 0" in note
        assert ("read by GDAL" in note) == ("read by GDAL" in kind)

    def test_nothing_is_said_where_none_would_be_read(self, kind: str, path: Path) -> None:
        access = Access()
        read(path, grid(0, 0, 10, 30, 30), access=access, quality="fast")
        read(path, grid(0, 0, 100, 30, 30), access=access, quality="exact")
        assert not any("native" in note for note in access.usage.notes.values())


@pytest.mark.parametrize("compress", ["deflate", "packbits"])
def test_overviews_that_leave_zeros_out_are_read(tmp_path: Path, compress: str) -> None:
    path = tmp_path / "z.tif"
    write_band(path, np.full((320, 320), 2056, "uint16"), 10, **TILED, compress=compress)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], Resampling.average)
    with rasterio.open(path, "r+", overview_level=0) as file:
        file.write(np.full(file.shape, 7, "uint16"), 1)
    access = Access()
    assert (mean(read(path, grid(0, 0, 20, 30, 30), quality="fast", access=access)) == 7).all()
    assert not any("native" in note for note in access.usage.notes.values())


@pytest.fixture(scope="module")
def granules(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """Whole granules of classes, one a pixel size and hemisphere."""
    out = {}
    for pixel_m in (10, 20, 60):
        side = 109_800 // pixel_m
        rows, columns = np.arange(side, dtype="uint32")[:, np.newaxis], np.arange(side, dtype="uint32")
        classes = (1 + (rows * 7 + columns) % 250).astype("uint8")
        for top_m in (4_500_000, 9_400_000):
            path = out[pixel_m, top_m] = tmp_path_factory.mktemp("granule") / f"{pixel_m}.tif"
            corner = from_origin(600_000, top_m, pixel_m, pixel_m)
            write_band(path, classes, pixel_m, transform=corner, **TILED | {"blockxsize": 1024, "blockysize": 1024})
    return out


class TestClasses:
    @pytest.mark.parametrize("crs", [EPSG, 32615])
    def test_are_never_interpolated(self, tmp_path: Path, crs: int) -> None:
        classes = np.random.default_rng(5).choice([1, 250], size=(300, 300)).astype("uint8")
        write_band(tmp_path / "s.tif", classes, 20)
        west, south, east, north = rasterio.warp.transform_bounds(EPSG, crs, LEFT_M, TOP_M - 6000, LEFT_M + 6000, TOP_M)
        spec = RasterSpec(crs, tuple(round(edge / 10) * 10 for edge in (west, south, east, north)), (10, 10))  # type: ignore[arg-type]
        got = read(tmp_path / "s.tif", spec, **NEAREST)
        assert set(np.unique(got)) <= {0, 1, 250}
        want = np.zeros(spec.shape, "uint8")
        with rasterio.open(tmp_path / "s.tif") as source:
            rasterio.warp.reproject(
                rasterio.band(source, 1), want, dst_transform=spec.transform, dst_crs=crs, resampling=Resampling.nearest
            )
        # GDAL's two ways to a pixel's middle differ by a thousandth of it.
        assert (got != want).mean() < (0.002 if crs != EPSG else 1e-9)

    @pytest.mark.parametrize(("shift_m", "step_m"), [(5, 10), (10, 20)])
    def test_a_shifted_classification_is_refused(self, tmp_path: Path, shift_m: float, step_m: float) -> None:
        """Its pixels would reach into cells that they are not counted for."""
        corner = from_origin(LEFT_M + shift_m, TOP_M, 20, 20)
        write_band(tmp_path / "s.tif", CLEAR, 20, transform=corner)
        with pytest.raises(AssetReadError, match="its pixels are not aligned with those of Sentinel-2 granules"):
            read(tmp_path / "s.tif", grid(0, 0, step_m, 40, 40), **NEAREST)
        if shift_m == 10:
            assert read(tmp_path / "s.tif", grid(0, 0, 10, 40, 40), **NEAREST)[0, 1] == 4

    @pytest.mark.parametrize("far", [0, 10_000, 30_000, 70_000, 105_000])
    @pytest.mark.parametrize("top_m", [4_500_000, 9_400_000], ids=["north", "south"])
    @pytest.mark.parametrize("pixel_m", [10, 20, 60])
    @pytest.mark.parametrize("step_m", [10, 20])
    def test_good_files_are_good_far_from_their_corner(
        self, granules: dict[tuple[int, int], Path], far: int, top_m: int, pixel_m: int, step_m: int
    ) -> None:
        """Of a whole granule; a pixel's class tells its row and column. South of the equator granules begin at 40 m."""
        left, top = (600_000 + far) // 20 * 20, (top_m - far) // 20 * 20
        spec = RasterSpec(EPSG, (left, top - 40 * step_m, left + 40 * step_m, top), (step_m, step_m))
        got = read(granules[pixel_m, top_m], spec, **NEAREST)
        middles = (np.arange(40) + 0.5) * step_m
        rows = (top_m - top + middles) // pixel_m
        columns = (left - 600_000 + middles) // pixel_m
        np.testing.assert_array_equal(got, 1 + (rows[:, np.newaxis] * 7 + columns) % 250)

    @pytest.mark.parametrize("off_m", [1, 5, 10, 19, 30])
    @pytest.mark.parametrize("far", [0, 70_000])
    def test_shifted_files_are_refused_far_from_their_corner(self, tmp_path: Path, off_m: int, far: int) -> None:
        corner = from_origin(LEFT_M - far // 60 * 60 + off_m, TOP_M, 60, 60)
        write_band(tmp_path / "s.tif", np.ones((40, 1300), "uint8"), 60, transform=corner, sparse_ok=True)
        with pytest.raises(AssetReadError, match="are not aligned with those of Sentinel-2 granules"):
            read(tmp_path / "s.tif", grid(0, 0, 20, 40, 40), **NEAREST)

    def test_pixels_that_drift_off_the_lattice_are_refused(self, tmp_path: Path) -> None:
        """Of 20.001 m: two millimetres a step are nothing, and 5 m after 100 km."""
        write_band(
            tmp_path / "s.tif", np.ones((40, 5490), "uint8"), 20, transform=from_origin(LEFT_M, TOP_M, 20.001, 20)
        )
        assert read(tmp_path / "s.tif", grid(0, 0, 10, 8, 8), **NEAREST).all()
        with pytest.raises(AssetReadError, match="are not aligned with those of Sentinel-2 granules"):
            read(tmp_path / "s.tif", grid(0, 0, 10, 8, 10_000), **NEAREST)

    @pytest.mark.parametrize("value", [260, -252])
    def test_what_bytes_do_not_hold_is_no_class(self, tmp_path: Path, value: int) -> None:
        write_band(tmp_path / "s.tif", np.full((30, 30), value, "int16"), 20)
        assert set(np.unique(read(tmp_path / "s.tif", grid(0, 0, 10, 40, 40), **NEAREST))) <= {0, 255}

    def test_what_the_file_calls_nodata_is_class_0(self, tmp_path: Path) -> None:
        classes = CLEAR.copy()
        classes[:10] = 255
        write_band(tmp_path / "s.tif", classes, 20, nodata=255)
        got = read(tmp_path / "s.tif", grid(0, 0, 10, 40, 40), **NEAREST)
        assert (got[:20] == 0).all()
        assert (got[20:] == 4).all()


class TestBadFiles:
    def test_floats_are_no_digital_numbers(self, tmp_path: Path) -> None:
        write_band(tmp_path / "f.tif", np.ones((10, 10), "float32"), 10)
        with pytest.raises(AssetReadError, match=r"f.tif: has float32 pixels, not digital numbers"):
            read(tmp_path / "f.tif", grid(0, 0, 30, 3, 3))

    @pytest.mark.parametrize("lack", ["crs", "transform"])
    def test_a_file_that_lies_nowhere(self, tmp_path: Path, lack: str) -> None:
        options: dict[str, Any] = {lack: None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_band(tmp_path / "f.tif", ramp(60, 10), 10, **options)
        with pytest.raises(AssetReadError, match=r"f.tif: has no georeferencing"):
            read(tmp_path / "f.tif", grid(0, 0, 30, 3, 3))

    def test_every_error_names_scene_and_asset(self, tmp_path: Path) -> None:
        path = str(tmp_path / "f.tif")
        with pytest.raises(AssetReadError, match="f.tif") as caught:
            read(Path(path), grid(0, 0, 30, 3, 3), declared={path: (Placement("S2", "blue"),)})
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert (error.scene, error.asset) == ("S2", "blue")

    def test_another_crs_than_the_item_says(self, tmp_path: Path) -> None:
        write_band(tmp_path / "f.tif", ramp(60, 10), 10)
        path = str(tmp_path / "f.tif")
        right, wrong = (Placement("S2", "blue", f"EPSG:{epsg}") for epsg in (32614, 32615))
        with pytest.raises(SceneError, match=r"f.tif: has the CRS EPSG:32614, but .* EPSG:32615") as caught:
            read(Path(path), grid(0, 0, 30, 3, 3), declared={path: (right, wrong)})
        assert (caught.value.scene, caught.value.asset) == ("S2", "blue")
        assert read(Path(path), grid(0, 0, 30, 3, 3), declared={path: (right,)}).imag.all()

    def test_a_turned_file_is_warped(self, tmp_path: Path) -> None:
        """Rows that do not run along the grid's: as GDAL warps it."""
        pixels = np.random.default_rng(6).integers(1, 9000, (200, 200)).astype("uint16")
        turned = from_origin(LEFT_M, TOP_M, 10, 10) @ rasterio.Affine.rotation(10)
        write_band(tmp_path / "t.tif", pixels, 10, transform=turned)
        spec = grid(300, -300, 30, 30, 30)
        want = np.zeros(spec.shape, "float32")
        with rasterio.open(tmp_path / "t.tif") as source:
            rasterio.warp.reproject(
                rasterio.band(source, 1), want, dst_transform=spec.transform, dst_crs=EPSG, dst_nodata=0,
                resampling=Resampling.average,
            )  # fmt: skip
        got = read(tmp_path / "t.tif", spec)
        inside = got.imag > 0.999
        assert inside.mean() > 0.5
        np.testing.assert_allclose(mean(got)[inside], want[inside], atol=1)


def test_survives_pickling_and_closing(tmp_path: Path) -> None:
    write_band(tmp_path / "p.tif", ramp(60, 10), 10)
    reader = AssetReader(url=str(tmp_path / "p.tif"), spec=grid(0, 0, 30, 20, 20), quality="fast", **AVERAGE)
    before = reader.read(Window(0, 0, 20, 20))
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read(Window(0, 0, 20, 20)), before)
    reader.close()
    np.testing.assert_array_equal(reader.read(Window(0, 0, 20, 20)), before)


def test_beside_the_file_there_is_nothing(tmp_path: Path) -> None:
    write_band(tmp_path / "p.tif", ramp(60, 10), 10)
    for spec in (grid(5000, 0, 30, 5, 5), grid(-3000, 3000, 30, 5, 5), grid(0, 5000, 30, 5, 5, 32615)):
        assert not read(tmp_path / "p.tif", spec).any()
        assert not read(tmp_path / "p.tif", spec, **NEAREST).any()
