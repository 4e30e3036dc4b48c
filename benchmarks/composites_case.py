"""The days and the area of ``composites.py``, and the bytes that a composite needs at least.

The files of a day are copies of those of archive.py whose tiles are in another order, so that no two days have the same
pixels. The order of tiles of 1,024 pixels, and of those of the first overview, is the same.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import shapely
import tifffile
from archive import BAND_M, EPSG, GRANULE_M, LEFT_M, TOP_M, write_archive
from rasterio.warp import transform_geom

CELL_M = 30
CORNER_M = 24_000
FILES = {"red": "blue", "nir": "blue", "swir16": "swir16", "scl": "scl"}
"""Band of the archive that serves as an asset."""

MOST_COPIES = 24
"""Number of days whose pixels differ. Later days have links to their files."""

OFFSETS, SIZES = 324, 325
"""Tags of the positions and the sizes of tiles."""

TAG_BYTES = {3: 2, 4: 4, 16: 8}
"""Size of the values of a tag, by its type: SHORT, LONG, LONG8."""

BESIDE_BYTES = 8
"""GDAL repeats the size of a tile before it, and its last bytes after it: four bytes each."""


class Case(NamedTuple):
    """The days and bands of a composite, and the side of its square. A side of 0 is a whole granule."""

    days: int
    side_m: int
    bands: tuple[str, ...] = ("red", "nir", "swir16")

    @property
    def square_m(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom, in metres from the upper left corner of the granule."""
        if not self.side_m:
            return 0, 0, GRANULE_M, GRANULE_M
        return CORNER_M, CORNER_M, CORNER_M + self.side_m, CORNER_M + self.side_m

    def write_area(self, path: Path) -> None:
        left, top, right, bottom = self.square_m
        square = shapely.box(LEFT_M + left, TOP_M - bottom, LEFT_M + right, TOP_M - top)
        outline = transform_geom(EPSG, 4326, shapely.geometry.mapping(square), precision=9)
        feature = {"type": "Feature", "properties": {"id": "county"}, "geometry": outline}
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))

    def write_catalogue(self, archive: Path, clear_day: int | None = None) -> Path:
        """Write the first days of an archive to a new ItemCollection beside the files, and return its path.

        With a clear day, no pixel of this day is cloud.
        """
        collection = json.loads((archive / "items.json").read_text())
        features = collection["features"][: self.days]
        for day, feature in enumerate(features):
            transforms = {name: feature["assets"][band] for name, band in FILES.items()}
            names = {name: file_of(name, day) for name in FILES} | ({"scl": "clear.tif"} if day == clear_day else {})
            feature["assets"] = {name: each | {"href": f"./{names[name]}"} for name, each in transforms.items()}
        path = archive / f"composite{self.days}{'' if clear_day is None else 'clear'}.json"
        path.write_text(json.dumps(collection | {"features": features}))
        return path

    def least_bytes(self, archive: Path) -> int:
        """Count the catalogue, the headers, and the native tiles under the area, each once."""
        sizes = [
            _needed_bytes(archive / file_of(name, day % MOST_COPIES), BAND_M[FILES[name]], self.square_m)
            for name in (*self.bands, "scl")
            for day in range(self.days)
        ]
        return self.write_catalogue(archive).stat().st_size + sum(sizes)


def file_of(asset: str, day: int) -> str:
    return f"day{day}_{asset}.tif"


def write_days(archive: Path, days: int) -> None:
    """Write the archive and the files of its days."""
    write_archive(archive, days)
    _write_clear(archive)
    for day in range(days):
        for number, (name, band) in enumerate(FILES.items()):
            path = archive / file_of(name, day)
            if path.exists():
                continue
            if day >= MOST_COPIES:
                path.hardlink_to(archive / file_of(name, day % MOST_COPIES))
            else:
                _shuffle_tiles(archive / f"{band}.tif", path, np.random.default_rng((day, number)))


def _write_clear(archive: Path) -> None:
    with rasterio.open(archive / "scl.tif") as file:
        profile = file.profile | {"compress": "deflate"}
        with rasterio.open(archive / "clear.tif", "w", **profile) as clear:
            clear.write(np.full(file.shape, 4, "uint8"), 1)


def _shuffle_tiles(source: Path, path: Path, noise: np.random.Generator) -> None:
    """Copy a file with its tiles in another order, except those at the right and at the bottom, which are not whole."""
    content = source.read_bytes()
    copy = bytearray(content)
    with tifffile.TiffFile(source) as file:
        across, down = _tiles(file.pages[0])
        order = np.arange(across * down).reshape(down, across)
        order[:-1, :-1] = noise.permutation(order[:-1, :-1].ravel()).reshape(down - 1, across - 1)
        for page in filter(lambda page: _tiles(page) == (across, down), file.pages):
            offsets, sizes = np.array(page.dataoffsets), np.array(page.databytecounts)
            spans = sizes + BESIDE_BYTES
            if (np.diff(offsets) != spans[:-1]).any():
                raise RuntimeError(f"the tiles of {source} are not one after the other")
            # Tiles stay in the order of their rows, because readers join requests for neighbours.
            moved = offsets[0] + np.append(0, np.cumsum(spans[order.ravel()])[:-1])
            for at, tile in zip(moved, order.ravel(), strict=True):
                to, begin = at - BESIDE_BYTES // 2, offsets[tile] - BESIDE_BYTES // 2
                copy[to : to + spans[tile]] = content[begin : begin + spans[tile]]
            for number, values in ((OFFSETS, moved), (SIZES, sizes[order.ravel()])):
                tag = page.tags[number]
                table = values.astype(f"{file.byteorder}u{TAG_BYTES[tag.dtype]}").tobytes()
                copy[tag.valueoffset : tag.valueoffset + len(table)] = table
    path.write_bytes(copy)


def _tiles(page: tifffile.TiffPage) -> tuple[int, int]:
    return -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)


def _needed_bytes(path: Path, pixel_m: int, square_m: tuple[int, int, int, int]) -> int:
    left, top, right, bottom = square_m
    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
        page = pages[0]
        tile_m, across = page.tilewidth * pixel_m, _tiles(page)[0]
        rows, columns = (range(low // tile_m, -(-high // tile_m)) for low, high in ((top, bottom), (left, right)))
        tiles = [row * across + column for row in rows for column in columns]
        header = min(min(each.dataoffsets) for each in pages)
        return header + sum(page.databytecounts[tile] for tile in tiles)
