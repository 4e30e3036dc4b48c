"""A real granule through the whole job, against an area mean that rasterio makes of its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from odc.geo.geobox import GeoBox
from odc.geo.geom import polygon
from rasterio.enums import Resampling
from rasterio.windows import Window
from stackstac.raster_spec import RasterSpec

from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.reader import AssetReader
from support.runs import CommandLine
from support.warps import warped_by_tiles

RESOLUTION_M = 300
BANDS = {"blue": "B02", "swir16": "B11", "coastal": "B01"}
MASKED = (0, 1, 3, 8, 9, 10)


@pytest.fixture
def granule(real: Path) -> Path:
    return real / "rasters" / "es_29RKH_20200219"


@pytest.fixture
def job(granule: Path, tmp_path: Path, scheduler: str) -> list[str]:
    """The granule's own item with its hrefs led to the files here: 100 m pixels under an item that says 10 m."""
    item = json.loads((granule / "S2A_29RKH_20200219_0_L2A.json").read_text())
    assert item["assets"]["blue"]["proj:shape"] == [10980, 10980]
    for key, name in (BANDS | {"scl": "SCL"}).items():
        item["assets"][key]["href"] = str(granule / f"{name}.tif")
    (tmp_path / "item.json").write_text(json.dumps(item))
    # Inside the granule, oblique to its grid, with a hole.
    shell = [(220000, 2700000), (290000, 2710000), (285000, 2780000), (230000, 2790000), (220000, 2700000)]
    hole = [(250000, 2740000), (265000, 2742000), (262000, 2755000), (250000, 2740000)]
    outline = polygon(shell, "EPSG:32629", hole).to_crs("EPSG:4326")
    (tmp_path / "aoi.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": outline.json}))
    words = ["run", "--aoi", "aoi.geojson", "--stac", "item.json", "--resolution", str(RESOLUTION_M), "--json"]
    return [*words, "--bands", ",".join(BANDS), "--scheduler", scheduler]


def warped(path: Path, like: rasterio.DatasetReader, resampling: Resampling) -> np.ndarray:
    pixels = np.zeros(like.shape, "float32")
    with rasterio.open(path) as source:
        rasterio.warp.reproject(
            rasterio.band(source, 1), pixels, dst_transform=like.transform, dst_crs=like.crs,
            resampling=resampling, src_nodata=0, dst_nodata=0,
        )  # fmt: skip
    return pixels


def masked_cells(path: Path, like: rasterio.DatasetReader) -> np.ndarray:
    """Cells that overlap a masked pixel, pixel by pixel."""
    cells = np.zeros(like.shape, bool)
    with rasterio.open(path) as scl:
        rows, columns = np.nonzero(np.isin(scl.read(1), MASKED))
        for row, column in zip(rows, columns, strict=True):
            (left, top), (right, bottom) = scl.transform * (column, row), scl.transform * (column + 1, row + 1)
            (first, upper), (last, lower) = ~like.transform * (left, top), ~like.transform * (right, bottom)
            if last > 0 and lower > 0:
                cells[max(0, int(upper)) : int(np.ceil(lower)), max(0, int(first)) : int(np.ceil(last))] = True
    return cells


@pytest.mark.parametrize("mask", ["scl", "none"])
def test_a_real_granule(s2cube_command: CommandLine, job: list[str], granule: Path, tmp_path: Path, mask: str) -> None:
    done = s2cube_command(*job, "--mask", mask, "--out", "out")
    assert done.status == 0, done.err
    (path,) = done.json["written"]
    assert Path(path).name == "aoi_20200219.tif"
    with rasterio.open(path) as cog:
        got = cog.read()
        assert cog.res == (RESOLUTION_M, RESOLUTION_M)
        inside = ~rasterio.features.geometry_mask(
            [shapely.geometry.shape(each["geometry"]) for each in [outline(tmp_path)]], cog.shape, cog.transform
        )
        hidden = masked_cells(granule / "SCL.tif", cog) if mask == "scl" else np.zeros(cog.shape, bool)
        for band, (name, file) in zip(got, BANDS.items(), strict=True):
            mean = warped(granule / f"{file}.tif", cog, Resampling.average)
            want = inside & ~hidden & (mean > 0)
            # The outline has points added on the way; a cell or two on it may fall to either side.
            assert ((band != -9999) != want).sum() <= 2, name
            judged = want & (band != -9999)
            assert judged.sum() > 30_000
            assert np.abs(band[judged] - mean[judged]).max() <= 1, name


def outline(folder: Path) -> dict[str, object]:
    aoi = json.loads((folder / "aoi.geojson").read_text())
    densified = shapely.segmentize(shapely.geometry.shape(aoi["geometry"]), 0.001)
    shape = rasterio.warp.transform_geom("EPSG:4326", "EPSG:32629", shapely.geometry.mapping(densified))
    return {"geometry": shape}


def test_the_granule_holds_clouds_to_mask(granule: Path) -> None:
    with rasterio.open(granule / "SCL.tif") as scl:
        assert np.isin(scl.read(1), MASKED).mean() > 0.005


@pytest.mark.parametrize("crs", [32631, 32632])
def test_real_pixels_with_another_nodata(real: Path, crs: int) -> None:
    """Native 10 m texture with nodata 65535: the means that rasterio's warp makes of it."""
    path = real / "rasters" / "vito_l1c_31U_icor" / "ref_input_S2_B04.tif"
    with rasterio.open(path) as source:
        assert source.nodata == 65535
        box = GeoBox.from_bbox(source.bounds, source.crs, resolution=30, anchor="edge").to_crs(crs)
        grid = GeoBox.from_bbox(tuple(box.boundingbox), crs, resolution=30, anchor="edge")
    want = warped_by_tiles(path, grid, nodata=65535)
    spec = RasterSpec(crs, tuple(grid.boundingbox), (30, 30))
    reader = AssetReader(url=str(path), spec=spec, dtype=CELLS)
    means, whole = whole_means(reader.read(Window(0, 0, grid.shape[1], grid.shape[0])))
    assert whole.sum() > 40_000
    assert np.abs(means[whole] - want[whole]).max() <= 1


def test_fast_is_near(s2cube_command: CommandLine, job: list[str], tmp_path: Path) -> None:
    """Overviews of the real granule: not the same numbers, but the same ground."""
    images = {}
    for quality in ("exact", "fast"):
        done = s2cube_command(*job, "--quality", quality, "--out", quality)
        with rasterio.open(done.json["written"][0]) as cog:
            images[quality] = cog.read()
    exact, fast = images["exact"], images["fast"]
    np.testing.assert_array_equal(exact == -9999, fast == -9999)
    seen = exact[0] != -9999
    off = (fast.astype(int) - exact)[:, seen]
    # Blue has an overview of 200 m; the others are no finer than 300 m allows.
    assert [np.abs(band).max() > 0 for band in off] == [True, False, False]
    assert 0 < np.sqrt((off[0] ** 2).mean()) < 0.2 * exact[0][seen].std()
    assert abs(off[0].mean()) < 1
