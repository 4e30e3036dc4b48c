"""A real granule through the whole job, against an area mean that rasterio makes of its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from conftest import CommandLine
from odc.geo.geom import polygon
from rasterio.enums import Resampling

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
    return [*words, "--bands", ",".join(BANDS), "--scheduler", scheduler, "--out", "out"]


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
    done = s2cube_command(*job, "--mask", mask)
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
