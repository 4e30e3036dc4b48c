"""Write a small simulated Sentinel-2 archive in the layout of Earth Search. `_ground` computes its pixels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from s2cube.demo._ground import (
    BAND_RESOLUTION_M,
    EPSG,
    PASSES,
    SCL_RESOLUTION_M,
    Pass,
    digital_numbers,
    farm,
    granule_geobox,
    scene_classes,
)
from s2cube.sentinel2 import BAND_ASSETS, SCALE


@dataclass(frozen=True)
class Archive:
    """Paths of a simulated archive: the ItemCollection and the area of interest."""

    items: Path
    aoi: Path


def write_archive(folder: Path) -> Archive:
    """Write one folder of COGs per scene, ``items.json`` with relative links to the COGs, and ``aoi.geojson``."""
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
        path = folder / scene / f"{name}.tif"
        _write_cog(pixels, geobox, path)
        layer: dict[str, Any] = {"nodata": 0, "data_type": pixels.dtype.name, "spatial_resolution": geobox.resolution.x}
        if key != "scl":
            # From baseline 04.00 on, Earth Search writes -0.1, even if the offset is already applied to the pixels.
            layer |= {"scale": SCALE, "offset": -0.1 if overflight.baseline >= "04.00" else 0}
        assets[key] = {
            "href": f"./{scene}/{name}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"],
            "proj:shape": list(geobox.shape),
            "proj:transform": list(geobox.affine)[:6],
            "raster:bands": [layer],
            "file:size": path.stat().st_size,
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
    extensions = ("eo/v1.1.0", "projection/v1.1.0", "raster/v1.1.0", "grid/v1.0.0", "file/v2.1.0")
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
    """Write a COG like those of Earth Search (deflate, predictor 2, averaged overviews), but with smaller tiles."""
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
        overview_resampling = "mode" if pixels.dtype == np.uint8 else "average"
        with memory.open() as plain:
            rasterio.shutil.copy(
                plain,
                path,
                driver="COG",
                compress="deflate",
                predictor="standard",
                blocksize=256,
                overview_resampling=overview_resampling,
            )
