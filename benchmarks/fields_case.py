"""The fields and scenes of ``fields.py``, and the tiles that they need: how many bytes, and how long decoding takes."""

import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import tifffile
from archive import BAND_M, EPSG, LEFT_M, TOP_M
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from rasterio.windows import Window

SQUARE_M, CELL_M = 30_000, 30
PLACES = 32
"""Number of places for fields along a side of the square. A place has at most one field."""


class Case(NamedTuple):
    """Fields and scenes. The corner is the upper left of the square of fields, in metres from the granule's corner."""

    fields: int
    scenes: int
    corner_m: int

    def __str__(self) -> str:
        return f"{self.fields} × {self.scenes}"

    @property
    def slices(self) -> int:
        return self.fields * self.scenes

    def outlines(self) -> list[dict[str, Any]]:
        """Return the polygons in the CRS of the scenes. Cases with fewer fields have the first of them."""
        noise = np.random.default_rng(14)
        pitch_m = SQUARE_M / PLACES
        outlines = []
        for place in noise.permutation(PLACES**2)[: self.fields]:
            corners = noise.integers(5, 13)
            angles = (np.arange(corners) + noise.uniform(0, 0.8, corners)) * 2 * np.pi / corners
            ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * noise.uniform(0.5, 1, (corners, 1))
            size_m = noise.uniform(300, 900)
            ring = (ring - ring.min(axis=0)) * size_m / np.ptp(ring, axis=0).max()
            row, column = divmod(place, PLACES)
            ring += np.array([column, row]) * pitch_m + noise.uniform(0, pitch_m - size_m, 2)
            x, y = LEFT_M + self.corner_m + ring[:, 0], TOP_M - self.corner_m - ring[:, 1]
            outlines.append({"type": "Polygon", "coordinates": [[*zip(x, y, strict=True), (x[0], y[0])]]})
        return outlines

    def write_fields(self, path: Path) -> None:
        features = [
            {
                "type": "Feature",
                "properties": {"id": f"field{number}"},
                "geometry": transform_geom(EPSG, 4326, outline, precision=9),
            }
            for number, outline in enumerate(self.outlines())
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def write_catalogue(self, archive: Path) -> Path:
        """Write the first scenes of an archive to a new ItemCollection beside the files, and return its path."""
        collection = json.loads((archive / "items.json").read_text())
        path = archive / f"items{self.scenes}.json"
        path.write_text(json.dumps(collection | {"features": collection["features"][: self.scenes]}))
        return path


class Least(NamedTuple):
    """What is needed at least: bytes of the catalogue, of headers and of tiles, and CPU time to decode the tiles."""

    bytes: int
    decoding_s: float


def least(archive: Path, case: Case, overviews: bool) -> Least:
    """Count with tifffile and decode with GDAL what a case needs, if it reads overviews or native pixels."""
    size, decoding_s = 0, 0.0
    for band in BAND_M:
        path = archive / f"{band}.tif"
        with tifffile.TiffFile(path) as file:
            pages = list(file.pages)
            # The dimensions of a page are in pixels; a pixel of an overview is a whole number of pixels of the file.
            pixels_m = [BAND_M[band] * round(pages[0].imagewidth / page.imagewidth) for page in pages]
            level = sum(pixel_m <= CELL_M for pixel_m in pixels_m[1:]) if overviews else 0
            page = pages[level]
            tiles = sorted(needed_tiles(case, page.tilewidth * pixels_m[level]))
            across = -(-page.imagewidth // page.tilewidth)
            size += min(min(each.dataoffsets) for each in pages)
            size += sum(page.databytecounts[row * across + column] for row, column in tiles)
            windows = [
                Window(column * page.tilewidth, row * page.tilelength, page.tilewidth, page.tilelength)
                for row, column in tiles
            ]
        decoding_s += statistics.median(decode(path, level, windows) for _ in range(3))
    catalogue = case.write_catalogue(archive).stat().st_size
    return Least(catalogue + size * case.scenes, decoding_s * case.scenes)


def needed_tiles(case: Case, tile_m: float) -> set[tuple[int, int]]:
    """Return row and column of the tiles under the cells whose centres are in a field."""
    cells = SQUARE_M // CELL_M
    transform = from_origin(LEFT_M + case.corner_m, TOP_M - case.corner_m, CELL_M, CELL_M)
    inside = geometry_mask(case.outlines(), (cells, cells), transform, invert=True)
    upper_left_m = np.argwhere(inside) * CELL_M + case.corner_m
    sides = np.stack([upper_left_m // tile_m, (upper_left_m + CELL_M - 1) // tile_m]).astype(int)
    return {
        (int(row), int(column))
        for rows in sides
        for columns in sides
        for row, column in np.unique(np.stack([rows[:, 0], columns[:, 1]], axis=1), axis=0)
    }


def decode(path: Path, level: int, windows: list[Window]) -> float:
    began = time.process_time()
    options = {"overview_level": level - 1} if level else {}
    with rasterio.open(path, **options) as file:
        for window in windows:
            file.read(1, window=window)
    return time.process_time() - began
