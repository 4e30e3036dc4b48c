"""Fields of all kinds and scenes of several days for tests of statistics; exactextract's statistics of a cube."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio.warp
import shapely
from numpy.typing import NDArray
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

import s2cube
from s2cube.area.aoi import AOI
from s2cube.sentinel2 import QA
from support.scenes import EPSG, LEFT_M, NATIVE_M, TOP_M, write_band
from support.zonal import exact

SIDE_M = 4800
BANDS = {"blue": 10, "red": 10, "nir": 10, "swir16": 20}
CRS_OF_SCENES, NEXT_ZONE = f"EPSG:{EPSG}", f"EPSG:{EPSG + 1}"


def placed(shape: BaseGeometry) -> BaseGeometry:
    """Move a shape in metres from the upper left corner of the scenes; y points up, so it is negative."""
    return shapely.transform(shape, lambda points: points + np.array([LEFT_M, TOP_M]))


FIELDS: dict[str, BaseGeometry] = {
    name: placed(shape)
    for name, shape in {
        "on_the_lattice": shapely.box(300, -900, 720, -330),
        "off_the_lattice": shapely.box(617.3, -1213.9, 1011.1, -703.7),
        "twin": shapely.box(300, -900, 720, -330),
        "hole": shapely.box(1111.1, -900, 1700, -333.3) - shapely.box(1200, -800.5, 1500.7, -600),
        "parts": shapely.union(shapely.box(77.7, -1555, 211.1, -1400), shapely.box(500.5, -1600, 650, -1366.6)),
        "sliver": shapely.Polygon([(100, -2000), (1500, -2900), (1500, -2893)]),
        "within_a_cell": shapely.box(1001, -1009, 1009, -1001),
        "over_blocks": shapely.Point(1950, -1930).buffer(290, quad_segs=5),
        "past_the_left_edge": shapely.box(-455.5, -3000, 333.3, -2777.7),
        "past_the_corner": shapely.box(4444.4, -5200, 5300, -4400.1),
        "larger_than_a_block": shapely.Polygon([(2300, -4700), (4600, -4300), (4400, -2300), (3100, -2650)]),
    }.items()
}
"""In the CRS of the scenes. Blocks of 64 cells have edges at multiples of 1,920 m if cells have 30 m."""


def areas(names: Sequence[str] = tuple(FIELDS)) -> list[AOI]:
    return [AOI(name, Geometry(FIELDS[name], CRS_OF_SCENES)) for name in names]


def day_scenes(folder: Path) -> list[pystac.Item]:
    """Write the scenes of five days of July 2020.

    1: one scene. 2: one of the next UTM zone and one of this zone, over each other. 3: all is cloud. 4: two scenes with
    a seam between them. 5: the scene ends in the middle of the fields.
    """
    random = np.random.default_rng(15)
    x, y = np.meshgrid(np.arange(480), np.arange(480))
    seam = 2 * x + y  # a slanted line across the fields
    whole = np.ones((480, 480), bool)
    return [
        _scene(folder, "one", 1, random, whole),
        _scene(folder, "next_zone", 2, random, whole, epsg=EPSG + 1),
        _scene(folder, "this_zone", 2, random, whole, second=9),
        _scene(folder, "cloudy", 3, random, whole, classes=[9]),
        _scene(folder, "west", 4, random, seam < 431),
        _scene(folder, "east", 4, random, seam > 402, second=9),
        _scene(folder, "short", 5, random, whole[:, :130]),
    ]


def _scene(  # noqa: PLR0913  what differs between the scenes
    folder: Path, name: str, day: int, random: np.random.Generator, seen: NDArray[np.bool_], *, second: int = 0,
    epsg: int = EPSG, classes: Sequence[int] = (*[4] * 50, 5, 6, 0, 9, 8, 3, 11),
) -> pystac.Item:  # fmt: skip
    """Write a scene with noise, in tiles of 64 pixels. Parts that are not seen are no data."""
    left, top = float(LEFT_M), float(TOP_M)
    if epsg != EPSG:
        (left, *_), (top, *_) = rasterio.warp.transform(EPSG, epsg, [LEFT_M + 500], [TOP_M - 700])
        left, top = round(left / 60) * 60, round(top / 60) * 60
    layers = {
        key: random.integers(0, 4000, (480 * 10 // m, 480 * 10 // m)).astype("uint16") for key, m in BANDS.items()
    }
    layers["scl"] = random.choice(classes, size=(240, 240)).astype("uint8")
    assets = {}
    for key, values in layers.items():
        step = NATIVE_M[key] // 10
        pixels = np.where(seen[::step, ::step], values[:, : seen.shape[1] // step], 0).astype(values.dtype)
        path = folder / f"{name}_{key}.tif"
        write_band(
            path, pixels, NATIVE_M[key], crs=epsg, tiled=True, blockxsize=64, blockysize=64,
            transform=rasterio.Affine(NATIVE_M[key], 0, left, 0, -NATIVE_M[key], top),
        )  # fmt: skip
        assets[key] = {"href": str(path)}
    west, south, east, north = rasterio.warp.transform_bounds(
        epsg, 4326, left, top - 10 * seen.shape[0], left + 10 * seen.shape[1], top
    )
    time = datetime(2020, 7, day, 17, 0, second, tzinfo=UTC)
    return pystac.Item.from_dict(
        {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [], "bbox": [west, south, east, north],
            "geometry": shapely.geometry.mapping(shapely.box(west, south, east, north)), "assets": assets,
            "properties": {
                "proj:epsg": epsg, "datetime": f"{time:%Y-%m-%dT%H:%M:%SZ}", "s2:processing_baseline": "02.14",
            },
        }
    )  # fmt: skip


def later(item: pystac.Item, **shift: float) -> pystac.Item:
    """Return the same scene at another time."""
    moved = item.clone()
    assert moved.datetime
    moved.datetime += timedelta(**shift)
    return moved


def write_areas_file(
    path: Path, shapes: Mapping[str, BaseGeometry], columns: Mapping[str, Sequence[object]] | None = None
) -> None:
    frame = geopandas.GeoDataFrame(
        {**(columns or {})} | {"name": [*shapes]}, geometry=[*shapes.values()], crs=CRS_OF_SCENES
    )
    frame.to_parquet(path)


def write_items(path: Path, items: Sequence[pystac.Item]) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item.to_dict() for item in items]}))


def rows_of_cube(
    items: Sequence[pystac.Item], scenes: Sequence[str], fields: Mapping[str, BaseGeometry], statistics: Sequence[str],
    crs: str, settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Open the cube of a box around fields, which is not clipped, and compute the statistics by exactextract.

    Parameters
    ----------
    scenes
        Ids of the scenes of the cube: those of one slice.
    fields
        In the CRS of the grid.
    """
    around = shapely.box(*shapely.total_bounds([*fields.values()])).buffer(900, join_style="mitre")
    chosen = [item for item in items if item.id in scenes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 2048)
        (cube,) = s2cube.open_cube(chosen, AOI("box", Geometry(around, crs)), crs=crs, **settings)
        cube = cube.compute(scheduler="sync")
    grid, shapes = cube.odc.geobox, np.array([*fields.values()], object)
    found = {}
    for name, values in zip(cube["band"].values, cube.values, strict=True):
        of_band = exact(shapes, grid, values, statistics)
        found |= {f"{name}_{each}": of_band[each] for each in statistics}
    cells = shapely.area(shapes) / settings.get("resolution", 30) ** 2
    # The coordinate knows only masks.
    is_valid = np.isfinite(cube.values).all(axis=0)
    qa = np.where(is_valid, QA.CLEAR, np.where(cube["qa"].values == QA.CLEAR, QA.NO_DATA, cube["qa"].values))

    def share(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return exact(shapes, grid, np.where(mask, 1, np.nan), ["count"])["count"]

    found |= {"cells": cells, "clear_percent": 100 * share(qa == QA.CLEAR) / cells}
    with np.errstate(invalid="ignore"):
        found["cloud_percent"] = 100 * share(qa == QA.CLOUD) / share((qa != QA.NO_DATA) & (qa != QA.OUTSIDE))
    return pd.DataFrame(found, index=[*fields])


def meeting(item: pystac.Item, field: BaseGeometry) -> bool:
    """Return whether a footprint and a field share more than an edge: geopandas transforms the field."""
    (lonlat,) = geopandas.GeoSeries([field], crs=CRS_OF_SCENES).to_crs(4326)
    footprint = shapely.geometry.shape(item.geometry)
    return bool(footprint.intersects(lonlat) and not footprint.touches(lonlat))
