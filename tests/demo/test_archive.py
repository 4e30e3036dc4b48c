"""Every pixel of the demo, against its formula, reduced here by plain numpy: no code of the cube, mask or mosaic."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from s2cube.demo import _ground as demo
from s2cube.demo._ground import Pass
from s2cube.demo.archive import Archive
from support.runs import CommandLine

CELL_M = 30
EDGE_M = 0.05
BANDS = ("red", "green", "blue", "nir", "swir16")
MASKED = (0, 1, 3, 8, 9, 10)


@pytest.fixture(scope="module")
def images(server_processes: None, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `run` makes of the archive, in float, so that rounding hides nothing, and in int16."""
    import s2cube
    from s2cube.config.loading import load_config

    out = tmp_path_factory.mktemp("images")
    for dtype in ("int16", "float32"):
        flags = {"aoi": archive.aoi, "stac": str(archive.items), "out": out / dtype, "dtype": dtype, "workers": 1}
        assert len(s2cube.run(load_config(flags, {})).written) == len(demo.PASSES)
    return out


def ten_metres(pixels: np.ndarray, resolution_m: float) -> np.ndarray:
    """Cut pixels into 10 m ones; an area mean of these is one of the whole pixels by the areas they share."""
    times = int(resolution_m) // 10
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def blocks(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (length // 3 for length in pixels.shape)
    return pixels.reshape(rows, 3, columns, 3).swapaxes(1, 2).reshape(rows, columns, 9)


def expected_granule(tile: str, overflight: Pass) -> np.ndarray:
    """Reflectance × 10000 of a granule at 30 m: (band, y, x), NaN where nothing may be."""
    layers = []
    classes_box = demo.granule_geobox(tile, 20)
    clear = ~np.isin(blocks(ten_metres(demo.scene_classes(classes_box, overflight), 20)), MASKED).any(axis=-1)
    for band in BANDS:
        resolution_m = demo.BAND_RESOLUTION_M[band]
        pixels = demo.digital_numbers(band, demo.granule_geobox(tile, resolution_m), overflight)
        native = blocks(ten_metres(pixels, resolution_m).astype(float))
        native[native == 0] = np.nan
        with np.errstate(invalid="ignore"):
            valid = ~np.isnan(native)
            mean = np.where(valid, native, 0).sum(axis=-1) / np.maximum(valid.sum(axis=-1), 1)
        layers.append(np.where(clear & valid.any(axis=-1), mean - overflight.offset_dn, np.nan))
    return np.stack(layers)


def farm(archive: Archive) -> shapely.Geometry:
    """The AOI as its file has it: its edges are straight in degrees, so points along them go with the corners."""
    (outline,) = geopandas.read_file(archive.aoi).geometry
    return geopandas.GeoSeries([shapely.segmentize(outline, 0.0005)], crs="EPSG:4326").to_crs(demo.EPSG)[0]


def expected(overflight: Pass, aoi: shapely.Geometry, transform: rasterio.Affine, shape: tuple[int, int]) -> np.ndarray:
    """The mosaic on the output's grid, cut by the AOI: a cell is in when its centre is."""
    mosaic = np.full((len(BANDS), *shape), np.nan)
    for tile in sorted(overflight.tiles):
        edges = demo.granule_geobox(tile, CELL_M).boundingbox
        granule = expected_granule(tile, overflight)
        row, column = round((edges.top - transform.f) / CELL_M), round((transform.c - edges.left) / CELL_M)
        for y in range(shape[0]):
            for x in range(shape[1]):
                if 0 <= y + row < granule.shape[1] and 0 <= x + column < granule.shape[2]:
                    of_cell = mosaic[:, y, x]
                    of_cell[np.isnan(of_cell)] = granule[:, y + row, x + column][np.isnan(of_cell)]
    mosaic[:, ~shapely.contains_xy(aoi, *centres(transform, shape))] = np.nan
    return mosaic


def centres(transform: rasterio.Affine, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x_m = transform.c + CELL_M * (np.arange(shape[1]) + 0.5)
    y_m = transform.f - CELL_M * (np.arange(shape[0]) + 0.5)
    return tuple(np.meshgrid(x_m, y_m))


def on_the_edge(aoi: shapely.Geometry, transform: rasterio.Affine, shape: tuple[int, int]) -> np.ndarray:
    """Cells whose centre is so near to the outline that where points were added to it decides."""
    return shapely.dwithin(shapely.points(*centres(transform, shape)), aoi.boundary, EDGE_M)


@pytest.mark.parametrize("overflight", demo.PASSES, ids=lambda each: f"{each.time:%Y%m%d}")
def test_every_value_follows_the_formula(images: Path, archive: Archive, overflight: Pass) -> None:
    name = f"farm_{overflight.time:%Y%m%d}"
    with rasterio.open(images / "int16" / "farm" / name / f"{name}.tif") as cog:
        got = cog.read()
        assert (cog.transform.c / CELL_M).is_integer()
        assert (cog.transform.f / CELL_M).is_integer()
        aoi = farm(archive)
        want = expected(overflight, aoi, cog.transform, cog.shape)
        judged = ~on_the_edge(aoi, cog.transform, cog.shape)
    assert (~judged).sum() < 5
    got, want = got[:, judged], want[:, judged]
    hole = np.isnan(want)
    np.testing.assert_array_equal(got == -9999, hole)
    assert np.abs(got[~hole] - want[~hole]).max() <= 1
    # The scene that is all there must be: an empty image would agree with an empty expectation.
    assert (~hole).sum() > 50_000
    with rasterio.open(images / "float32" / "farm" / name / f"{name}.tif") as cog:
        reflectance = cog.read()[:, judged]
    np.testing.assert_array_equal(np.isnan(reflectance), hole)
    assert np.abs(reflectance[~hole] * 10000 - want[~hole]).max() <= 1


def test_clear_percent_counts_the_pixels_of_the_aoi(images: Path) -> None:
    clear_percent = {
        path.stem: json.loads(path.read_text())["properties"]["s2cube:clear_percent"]
        for path in (images / "int16").glob("farm/*/*.json")
    }
    assert clear_percent["farm_20210724"] == 100
    assert 40 < clear_percent["farm_20220803"] < 60


def test_demo_command(server_processes: None, s2cube_command: CommandLine, tmp_path: Path) -> None:
    done = s2cube_command("demo", "--out", tmp_path / "d", "--json")
    assert done.status == 0, done.err
    assert len(done.json["written"]) == len(demo.PASSES)
    assert str(tmp_path / "d" / "images") in done.err
