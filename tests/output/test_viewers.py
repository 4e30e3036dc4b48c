"""Other programs open the output as it is, also in another folder."""

import json
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import odc.stac
import pyarrow.parquet
import pystac
import pytest
import rasterio
import stac_geoparquet.arrow
import stackstac
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rasterio.io import MemoryFile
from rio_tiler.io import STACReader
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.core.factory import MultiBaseTilerFactory, TilerFactory

import s2cube
from s2cube.demo.archive import PASSES, Archive

BANDS = ["red", "green", "blue", "nir"]
DAYS = [f"farm_{each.time:%Y%m%d}" for each in PASSES]


@pytest.fixture(scope="module")
def moved(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output, in another folder than it was written to."""
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items))
    cube = s2cube.open_cube(items, aoi, bands=BANDS, resolution=60, dtype="int16")
    written = tmp_path_factory.mktemp("written") / "out"
    s2cube.write_cogs(cube, written)
    folder = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(written, folder)
    return folder


@pytest.fixture(scope="module")
def items(moved: Path) -> list[pystac.Item]:
    return sorted(pystac.Catalog.from_file(moved / "catalog.json").get_items(recursive=True), key=lambda item: item.id)


def pixels(item: pystac.Item, asset: str = "data") -> np.ndarray:
    with rasterio.open(item.assets[asset].get_absolute_href()) as file:
        return file.read()


def test_pystac_walks_the_catalogue(moved: Path, items: list[pystac.Item]) -> None:
    assert [item.id for item in items] == DAYS
    for item in items:
        assert item.get_collection().id == "farm"
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href())
            assert path.is_relative_to(moved)
            assert path.stat().st_size == asset.extra_fields["file:size"]


def test_odc_stac_loads_the_same_values(items: list[pystac.Item]) -> None:
    """odc-stac takes names of bands from STAC 1.0's `eo:bands` only, so it numbers the bands of an asset."""
    loaded = odc.stac.load(items)
    assert set(loaded) == {"qa", *(f"data.{number + 1}" for number in range(len(BANDS)))}
    for number, item in enumerate(items):
        for band, values in enumerate(pixels(item), start=1):
            assert (loaded[f"data.{band}"].values[number] == values).all()
        assert (loaded["qa"].values[number] == pixels(item, "qa")[0]).all()
    assert loaded["data.1"].dtype == "int16"
    assert loaded["qa"].dtype == "uint8"
    assert loaded["data.1"].attrs["nodata"] == -9999


def test_geopandas_reads_the_table(moved: Path, items: list[pystac.Item]) -> None:
    frame = geopandas.read_parquet(moved / "items.parquet")
    assert list(frame["id"]) == DAYS
    assert frame.crs == "EPSG:4326"
    assert list(frame["datetime"]) == [item.datetime for item in items]
    for item, bounds in zip(items, frame.bounds.values, strict=True):
        assert bounds == pytest.approx(item.bbox)


def test_duckdb_reads_the_table(moved: Path, items: list[pystac.Item]) -> None:
    query = f"""
        select id, "proj:code", "s2cube:settings"->>'dtype', assets.data.bands[1]."raster:scale"
        from '{moved / "items.parquet"}' order by id
    """
    assert duckdb.sql(query).fetchall() == [(each, "EPSG:32614", "int16", 0.0001) for each in DAYS]


def test_stac_geoparquet_reads_the_table(moved: Path, items: list[pystac.Item]) -> None:
    table = pyarrow.parquet.read_table(moved / "items.parquet")
    assert json.loads(table.schema.metadata[b"stac-geoparquet"])["version"] == "1.0.0"
    documents = list(stac_geoparquet.arrow.stac_table_to_items(table))
    assert [each["id"] for each in documents] == DAYS
    for document, item in zip(documents, items, strict=True):
        assert pystac.Item.from_dict(document).assets["data"].extra_fields["bands"][0]["name"] == "red"
        assert document["bbox"] == item.bbox


def test_gdal_opens_all_images_as_a_mosaic(items: list[pystac.Item], tmp_path: Path) -> None:
    """STACIT reads an ItemCollection. Its images of one asset and CRS are one mosaic: the latest is on top."""
    collection = tmp_path / "items.json"
    absolute = [item.clone().make_asset_hrefs_absolute() for item in items]
    pystac.ItemCollection(absolute, clone_items=False).save_object(str(collection))
    with rasterio.open(f'STACIT:"{collection}":asset=data') as mosaic:
        assert mosaic.crs == "EPSG:32614"
        assert mosaic.count == len(BANDS)
        assert list(mosaic.transform)[:6] == items[0].properties["proj:transform"]
        assert mosaic.shape == tuple(items[0].properties["proj:shape"])
    with rasterio.open(f'STACIT:"{collection}":asset=data', OVERLAP_STRATEGY="REMOVE_IF_NO_NODATA") as mosaic:
        stacked = np.stack([pixels(item) for item in items])
        on_top = stacked[0]
        for later in stacked[1:]:
            on_top = np.where(later != -9999, later, on_top)
        assert (mosaic.read() == on_top).all()


def test_stackstac_reads_a_file_of_one_band_only(items: list[pystac.Item]) -> None:
    """It reads no `proj:code`, so the grid is given."""
    document = items[0].to_dict(transform_hrefs=True)
    for asset in document["assets"].values():
        asset["href"] = str(Path(items[0].get_self_href()).parent / asset["href"])
    grid = {"epsg": 32614, "resolution": 60, "bounds": document["properties"]["proj:bbox"], "snap_bounds": False}
    stack = partial(stackstac.stack, [document], dtype="float64", rescale=False, errors_as_nodata=(), **grid)
    qa = stack(assets=["qa"])
    assert (np.nan_to_num(qa.values[0, 0], nan=255) == pixels(items[0], "qa")[0]).all()
    with pytest.raises(RuntimeError, match="exactly 1 band"):
        stack(assets=["data"]).compute()


@pytest.fixture(scope="module")
def titiler() -> TestClient:
    app = FastAPI()
    app.include_router(TilerFactory(router_prefix="/cog").router, prefix="/cog")
    app.include_router(MultiBaseTilerFactory(reader=STACReader, router_prefix="/stac").router, prefix="/stac")
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    return TestClient(app)


def shown(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    with MemoryFile(answer.content) as memory, memory.open() as image:
        return image.read()


def test_titiler_shows_the_cog(titiler: TestClient, items: list[pystac.Item]) -> None:
    path = items[0].assets["data"].get_absolute_href()
    info = titiler.get("/cog/info", params={"url": path}).json()
    assert [name for _, name in info["band_descriptions"]] == BANDS
    assert info["nodata_value"] == -9999
    parameters = {"url": path, "bidx": [1, 2, 3], "rescale": "0,3000"}
    image = shown(titiler.get("/cog/preview.png", params=parameters))
    expected = np.clip(pixels(items[0])[:3].astype(float), 0, 3000) / 3000 * 255
    valid = (pixels(items[0]) != -9999).all(axis=0)
    assert (image[3] > 0).tolist() == valid.tolist()
    assert np.abs(image[:3] - expected)[:, valid].max() <= 1


def test_titiler_shows_the_item_as_its_renders_say(titiler: TestClient, items: list[pystac.Item]) -> None:
    item = items[0]
    render = item.properties["renders"]["natural"]
    (asset,) = render["assets"]
    numbers = ",".join(map(str, render["bidx"]))
    parameters = {
        "url": item.get_self_href(),
        "assets": f"{asset}|bidx={numbers}",
        "rescale": [f"{low},{high}" for low, high in render["rescale"]],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some statistics data in STAC are invalid")
        info = titiler.get("/stac/info", params={"url": item.get_self_href(), "assets": "data"}).json()
        image = shown(titiler.get("/stac/preview.png", params=parameters))
        by_name = parameters | {"assets": f"{asset}|bands={','.join(render['bands'][0])}"}
        assert (shown(titiler.get("/stac/preview.png", params=by_name)) == image).all()
    assert info["data"]["count"] == len(BANDS)
    expected = np.clip(pixels(item)[:3].astype(float), 0, 3000) / 3000 * 255
    valid = (pixels(item) != -9999).all(axis=0)
    assert np.abs(image[:3] - expected)[:, valid].max() <= 1
