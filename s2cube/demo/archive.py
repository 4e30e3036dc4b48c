"""A small simulated Sentinel-2 archive, as Earth Search would serve it, whose pixels follow a closed formula.

Centre-pivot fields, dry corners and a river, through a summer: every digital number is `surface_reflectance` at the
centre of its pixel, or `CLOUD_REFLECTANCE` under a cloud, harmonised or not as the scene's item says.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, polygon
from rasterio.io import MemoryFile

from s2cube.sentinel2 import BAND_ASSETS, BOA_ADD_OFFSET_DN, SCALE

EPSG = 32614
BAND_RESOLUTION_M = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20}
SCL_RESOLUTION_M = 20
CLOUD_REFLECTANCE = 0.65

_GRANULE_M = 6000
_TOP_M = 4553580
_GRANULE_LEFT_M = {"14TNL": 562020, "14TPL": 567420}
"""Left edges, multiples of 60 m as the real ones; the two overlap by 600 m."""

_AOI_SHELL: list[tuple[float, float]] = [
    (563400, 4548300),
    (571900, 4547900),
    (572600, 4551200),
    (570100, 4553200),
    (564000, 4552700),
]
_AOI_HOLE: list[tuple[float, float]] = [(566000, 4550000), (567000, 4549700), (567300, 4550900), (566200, 4551000)]

_PARCEL_M = 810
_PIVOT_RADIUS_M = 390
_RIVER_HALF_WIDTH_M = 90

_SOIL = {"blue": 0.09, "green": 0.12, "red": 0.16, "nir": 0.24, "swir16": 0.30}
_CROP = {"blue": 0.025, "green": 0.07, "red": 0.03, "nir": 0.48, "swir16": 0.17}
_WATER = {"blue": 0.06, "green": 0.06, "red": 0.04, "nir": 0.02, "swir16": 0.01}

_Metres = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """A round cloud and, south-east of it, its shadow.

    Parameters
    ----------
    x_m, y_m
        Centre, metres in EPSG:32614.
    """

    x_m: float
    y_m: float
    radius_m: float


@dataclass(frozen=True)
class Pass:
    """One overflight.

    Parameters
    ----------
    offset_applied
        What the item says as `earthsearch:boa_offset_applied`.
    edge_m
        East of this easting (at the top; slanting) the swath ends and there is no data.
    """

    time: datetime
    baseline: str
    offset_applied: bool
    tiles: tuple[str, ...] = tuple(_GRANULE_LEFT_M)
    clouds: tuple[Cloud, ...] = ()
    edge_m: float = np.inf

    @property
    def offset_dn(self) -> int:
        """What was added to the digital numbers and is still in them."""
        return -BOA_ADD_OFFSET_DN if self.baseline >= "04.00" and not self.offset_applied else 0


def _at(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T17:19:31").replace(tzinfo=UTC)


PASSES = (
    Pass(_at("2021-07-24"), "03.01", offset_applied=False),
    Pass(_at("2022-05-20"), "04.00", offset_applied=False),
    Pass(
        _at("2022-06-14"),
        "04.00",
        offset_applied=True,
        clouds=(Cloud(565200, 4551600, 520), Cloud(569800, 4549300, 700)),
    ),
    Pass(_at("2022-07-09"), "05.10", offset_applied=False, edge_m=570500),
    Pass(_at("2022-08-03"), "05.10", offset_applied=True, tiles=("14TNL",), clouds=(Cloud(566800, 4549000, 430),)),
    Pass(_at("2022-09-12"), "05.10", offset_applied=False, clouds=(Cloud(567700, 4550800, 900),)),
)


def surface_reflectance(band: str, x_m: _Metres, y_m: _Metres, time: datetime) -> _Metres:
    """Give the reflectance of the simulated ground.

    Parameters
    ----------
    x_m, y_m
        Metres in EPSG:32614; arrays that broadcast.
    """
    crop = _crop_share(x_m, y_m, time)
    ground = _SOIL[band] * (1 - crop) + _CROP[band] * crop + 0.02 * (x_m - 562020) / 12000
    return np.where(_is_river(x_m, y_m), _WATER[band], ground)


def digital_numbers(band: str, geobox: GeoBox, overflight: Pass) -> NDArray[np.uint16]:
    """Give what the file of a band holds; 0 where there is no data."""
    x_m, y_m = _centres(geobox)
    reflectance = surface_reflectance(band, x_m, y_m, overflight.time)
    reflectance = np.where(_under(overflight.clouds, x_m, y_m, 0, 0), CLOUD_REFLECTANCE, reflectance)
    dn = np.round(reflectance / SCALE) + overflight.offset_dn
    return np.where(_beyond_swath(overflight, x_m, y_m), 0, dn).astype("uint16")


def scene_classes(geobox: GeoBox, overflight: Pass) -> NDArray[np.uint8]:
    """Give what the scene classification holds."""
    x_m, y_m = _centres(geobox)
    classes = np.where(_crop_share(x_m, y_m, overflight.time) > 0.4, 4, 5)
    classes = np.where(_is_river(x_m, y_m), 6, classes)
    classes = np.where(_under(overflight.clouds, x_m, y_m, 500, -400), 3, classes)
    # Sen2Cor draws clouds wider than they are; what it marks as probable covers all that is bright.
    classes = np.where(_under(overflight.clouds, x_m, y_m, 0, 0, wider_m=60), 8, classes)
    classes = np.where(_under(overflight.clouds, x_m, y_m, 0, 0, wider_m=-100), 9, classes)
    return np.where(_beyond_swath(overflight, x_m, y_m), 0, classes).astype("uint8")


def granule_geobox(tile: str, resolution_m: float) -> GeoBox:
    """Give the grid of a granule's files."""
    left = _GRANULE_LEFT_M[tile]
    bounds = (left, _TOP_M - _GRANULE_M, left + _GRANULE_M, _TOP_M)
    return GeoBox.from_bbox(bounds, f"EPSG:{EPSG}", resolution=resolution_m)


def farm() -> Geometry:
    """Give the area of interest: over both granules, with a hole, in EPSG:32614."""
    return polygon(_AOI_SHELL + _AOI_SHELL[:1], f"EPSG:{EPSG}", _AOI_HOLE + _AOI_HOLE[:1])


@dataclass(frozen=True)
class Archive:
    """Where a simulated archive lies: an ItemCollection and the area of interest."""

    items: Path
    aoi: Path


def write_archive(folder: Path) -> Archive:
    """Write the archive: a folder of COGs a scene, ``items.json`` that points to them relatively, ``aoi.geojson``."""
    items = [_write_scene(folder, tile, overflight) for overflight in PASSES for tile in overflight.tiles]
    archive = Archive(folder / "items.json", folder / "aoi.geojson")
    archive.items.write_text(json.dumps({"type": "FeatureCollection", "features": items}, indent=1))
    outline = {
        "type": "Feature",
        "id": "farm",
        "properties": {"id": "farm"},
        "geometry": farm().to_crs("EPSG:4326").json,
    }
    archive.aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [outline]}, indent=1))
    return archive


def _write_scene(folder: Path, tile: str, overflight: Pass) -> dict[str, Any]:
    scene = f"S2A_{tile}_{overflight.time:%Y%m%d}_0_L2A"
    (folder / scene).mkdir(parents=True, exist_ok=True)
    assets = {}
    for key, name, geobox, pixels in _layers(tile, overflight):
        _write_cog(pixels, geobox, folder / scene / f"{name}.tif")
        layer: dict[str, Any] = {"nodata": 0, "data_type": pixels.dtype.name, "spatial_resolution": geobox.resolution.x}
        if key != "scl":
            # Earth Search writes -0.1 here from baseline 04.00 on, even where the pixels no longer want it.
            layer |= {"scale": SCALE, "offset": -0.1 if overflight.baseline >= "04.00" else 0}
        assets[key] = {
            "href": f"./{scene}/{name}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"],
            "proj:shape": list(geobox.shape),
            "proj:transform": list(geobox.affine)[:6],
            "raster:bands": [layer],
        }
    return _item(scene, tile, overflight, assets)


def _layers(tile: str, overflight: Pass) -> Iterator[tuple[str, str, GeoBox, NDArray[Any]]]:
    for band, resolution_m in BAND_RESOLUTION_M.items():
        geobox = granule_geobox(tile, resolution_m)
        yield band, BAND_ASSETS[band][1], geobox, digital_numbers(band, geobox, overflight)
    geobox = granule_geobox(tile, SCL_RESOLUTION_M)
    yield "scl", "SCL", geobox, scene_classes(geobox, overflight)


def _item(scene: str, tile: str, overflight: Pass, assets: dict[str, Any]) -> dict[str, Any]:
    classes = scene_classes(granule_geobox(tile, SCL_RESOLUTION_M), overflight)
    stamp = f"{overflight.time:%Y%m%dT%H%M%S}"
    footprint = granule_geobox(tile, 10).extent.to_crs("EPSG:4326")
    extensions = ("eo/v1.1.0", "projection/v1.1.0", "raster/v1.1.0", "grid/v1.0.0")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "id": scene,
        "collection": "sentinel-2-l2a",
        "bbox": list(footprint.boundingbox),
        "geometry": shapely.geometry.mapping(footprint.geom),
        "properties": {
            "datetime": overflight.time.isoformat().replace("+00:00", "Z"),
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": round(100 * float(np.isin(classes, (8, 9)).mean()), 2),
            "proj:epsg": EPSG,
            "grid:code": f"MGRS-{tile}",
            "s2:processing_baseline": overflight.baseline,
            "s2:datatake_id": f"GS2A_{stamp}_000000_N{overflight.baseline}",
            "earthsearch:boa_offset_applied": overflight.offset_applied,
        },
        "links": [],
        "assets": assets,
    }


def _write_cog(pixels: NDArray[Any], geobox: GeoBox, path: Path) -> None:
    """Lay a file out as Earth Search does (deflate, predictor 2, averaged overviews), in smaller tiles."""
    height, width = pixels.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=1,
            height=height,
            width=width,
            dtype=pixels.dtype.name,
            nodata=0,
            crs=f"EPSG:{EPSG}",
            transform=geobox.affine,
        ) as plain:
            plain.write(pixels, 1)
        averaged = "mode" if pixels.dtype == np.uint8 else "average"
        with memory.open() as plain:
            rasterio.shutil.copy(
                plain,
                path,
                driver="COG",
                compress="deflate",
                predictor="standard",
                blocksize=256,
                overview_resampling=averaged,
            )


def _centres(geobox: GeoBox) -> tuple[_Metres, _Metres]:
    rows, columns = geobox.shape
    edges = geobox.boundingbox
    x_m = edges.left + (np.arange(columns) + 0.5) * geobox.resolution.x
    y_m = edges.top + (np.arange(rows) + 0.5) * geobox.resolution.y
    return x_m[np.newaxis, :], y_m[:, np.newaxis]


def _crop_share(x_m: _Metres, y_m: _Metres, time: datetime) -> _Metres:
    column, row = np.floor(x_m / _PARCEL_M), np.floor(y_m / _PARCEL_M)
    from_pivot_m = np.hypot(x_m - (column + 0.5) * _PARCEL_M, y_m - (row + 0.5) * _PARCEL_M)
    ripe_day = 205 + 12 * ((3 * column + 7 * row) % 5 - 2)
    day = time.timetuple().tm_yday
    crop = 0.1 + 0.85 * np.exp(-(((day - ripe_day) / 38) ** 2))
    return np.where(from_pivot_m < _PIVOT_RADIUS_M, crop, 0.22)


def _is_river(x_m: _Metres, y_m: _Metres) -> NDArray[np.bool_]:
    course_m = 4551500 + 420 * np.sin(x_m / 1300) + 0.08 * (x_m - 567000)
    return np.asarray(np.abs(y_m - course_m) < _RIVER_HALF_WIDTH_M)


def _under(
    clouds: tuple[Cloud, ...], x_m: _Metres, y_m: _Metres, east_m: float, north_m: float, wider_m: float = 0
) -> NDArray[np.bool_]:
    below = np.zeros(np.broadcast_shapes(x_m.shape, y_m.shape), dtype=bool)
    for cloud in clouds:
        distance_m = np.hypot(x_m - cloud.x_m - east_m, y_m - cloud.y_m - north_m)
        below |= distance_m < cloud.radius_m + wider_m
    return below


def _beyond_swath(overflight: Pass, x_m: _Metres, y_m: _Metres) -> NDArray[np.bool_]:
    return np.asarray(x_m + 0.2 * (_TOP_M - y_m) > overflight.edge_m)
