"""The fields and scenes of ``field_statistics.py``, and the bytes that their statistics need at least."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
import tifffile
from archive import BAND_M, EPSG, GRANULE_M, LEFT_M, TOP_M
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

CELL_M, MARGIN_M = 30, 1_500
DENSE_M = 30_000
FILES = {"red": "blue", "nir": "swir16", "blue": "blue", "scl": "scl"}
"""Band of the archive that serves as an asset. NDVI needs red and nir; blue is only listed, as in real items."""


class Case(NamedTuple):
    """Fields and scenes: up to 1,000 fields in a square of 30 km, more over the whole granule."""

    fields: int
    scenes: int

    def __str__(self) -> str:
        return f"{self.fields:,} × {self.scenes}"

    @property
    def rows(self) -> int:
        return self.fields * self.scenes

    @property
    def square(self) -> tuple[float, float]:
        """Return the distance of the square from the upper left corner of the granule, and its side, metres."""
        return (24_000, DENSE_M) if self.fields <= 1000 else (MARGIN_M, GRANULE_M - 2 * MARGIN_M)

    def outlines(self) -> np.ndarray:
        """Return polygons of 5 to 12 corners, 300 to 900 m wide. Over 14,000 of them overlap."""
        noise, (corner_m, side_m) = np.random.default_rng(14), self.square
        found = np.empty(self.fields, object)
        places = int(np.ceil(np.sqrt(self.fields)))
        for number, place in enumerate(noise.permutation(places**2)[: self.fields]):
            corners = noise.integers(5, 13)
            angles = (np.arange(corners) + noise.uniform(0, 0.8, corners)) * 2 * np.pi / corners
            ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * noise.uniform(0.5, 1, (corners, 1))
            size_m = noise.uniform(300, 900)
            ring = (ring - ring.min(axis=0)) * size_m / np.ptp(ring, axis=0).max()
            row, column = divmod(place, places)
            # A field is at a random position in its place, or around it if the place is smaller.
            free_m = max(side_m / places - size_m, 0)
            ring += np.array([column, row]) * (side_m - 900) / places + noise.uniform(0, free_m, 2) + corner_m
            found[number] = shapely.Polygon(np.column_stack([LEFT_M + ring[:, 0], TOP_M - ring[:, 1]]))
        return found

    def write_fields(self, path: Path, count: int | None = None) -> None:
        features = [
            {
                "type": "Feature",
                "properties": {"id": f"field{number}"},
                "geometry": transform_geom(EPSG, 4326, shapely.geometry.mapping(outline), precision=9),
            }
            for number, outline in enumerate(self.outlines()[:count])
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def write_catalogue(self, archive: Path) -> Path:
        """Write the first scenes of an archive to a new ItemCollection beside the files, and return its path."""
        collection = json.loads((archive / "items.json").read_text())
        for feature in collection["features"]:
            feature["assets"] = {name: feature["assets"][band] for name, band in FILES.items()}
        path = archive / f"ndvi{self.scenes}.json"
        path.write_text(json.dumps(collection | {"features": collection["features"][: self.scenes]}))
        return path


def least_bytes(archive: Path, case: Case) -> int:
    """Count the catalogue, the headers, and the native tiles under the cells that fields touch, each once."""
    size = 0
    cells = GRANULE_M // CELL_M
    inside = geometry_mask(
        case.outlines(), (cells, cells), from_origin(LEFT_M, TOP_M, CELL_M, CELL_M), all_touched=True, invert=True
    )
    upper_left_m = np.argwhere(inside) * CELL_M
    for band in BAND_M:
        with tifffile.TiffFile(archive / f"{band}.tif") as file:
            pages = list(file.pages)
            page: Any = pages[0]
            tile_m, across = page.tilewidth * BAND_M[band], -(-page.imagewidth // page.tilewidth)
            sides = np.stack([upper_left_m // tile_m, (upper_left_m + CELL_M - 1) // tile_m])
            numbers = [rows[:, 0] * across + columns[:, 1] for rows in sides for columns in sides]
            size += min(min(each.dataoffsets) for each in pages)
            size += sum(page.databytecounts[tile] for tile in np.unique(np.concatenate(numbers)).tolist())
    return case.write_catalogue(archive).stat().st_size + size * case.scenes
