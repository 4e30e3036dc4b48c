"""Write a raster of one tile as a Cloud-Optimized GeoTIFF, in memory.

GDAL's COG driver takes milliseconds for any file, because it opens several datasets. The file here has the same tags,
in the same order: header, GDAL's description of the layout, directory, values of tags, the tile. Only its tile is not
larger than the raster needs.

TIFF 6.0: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, GeoTIFF: https://docs.ogc.org/is/19-008r4,
the description of the layout: https://gdal.org/en/stable/drivers/raster/cog.html
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import imagecodecs
import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio import Affine
from rasterio.io import MemoryFile

from s2cube.config.literals import Compression

_LITTLE_ENDIAN = b"II*\0"
_STRUCTURE = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""GDAL reads such a file with fewer requests, because the size of a tile is before the tile."""

_PROLOGUE = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n%b\0" % (len(_STRUCTURE), _STRUCTURE)
_DIRECTORY = len(_LITTLE_ENDIAN) + 4 + len(_PROLOGUE)
"""Position of the directory, bytes. It is even, as TIFF requires."""

_TILE_STEP = 16
"""The sides of a tile are multiples of this number of cells, as TIFF requires."""

_CODES: dict[Compression, int] = {"none": 1, "lzw": 5, "deflate": 8, "zstd": 50000}
_KINDS = {"u": 1, "i": 2, "f": 3}
"""Sample format by kind of a numpy data type."""

_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
"""Predictors."""

_MOST_CRS = 64


class Tag(IntEnum):
    """Tags that are written."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    BANDS = 277
    PLANAR = 284
    DATE_TIME = 306
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_POSITION = 324
    TILE_BYTES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    CELL_SIZE = 33550
    TIE_POINT = 33922
    TRANSFORM = 34264
    GEO_KEYS = 34735
    GEO_NUMBERS = 34736
    GEO_TEXTS = 34737
    GDAL_METADATA = 42112
    GDAL_NODATA = 42113


class Field(NamedTuple):
    """The value of a tag: the code of its type, the number of its elements, and their bytes."""

    kind: int
    elements: int
    content: bytes


@dataclass(frozen=True)
class Encoding:
    """How a tile is compressed.

    Parameters
    ----------
    level
        None if the method has no levels.
    has_predictor
        Whether the differences between neighbouring pixels are stored. They are small, so they compress better.
    """

    method: Compression
    level: int | None
    has_predictor: bool


def shorts(*values: int) -> Field:
    """Return a field of unsigned numbers of 16 bits."""
    return Field(3, len(values), struct.pack(f"<{len(values)}H", *values))


def text(value: str) -> Field:
    """Return a field of a text."""
    content = value.encode() + b"\0"
    return Field(2, len(content), content)


def _long(value: int) -> Field:
    return Field(4, 1, struct.pack("<I", value))


def _doubles(*values: float) -> Field:
    return Field(12, len(values), struct.pack(f"<{len(values)}d", *values))


def one_tile(values: np.ndarray, geobox: GeoBox, described: Mapping[Tag, Field], encoding: Encoding) -> bytes:
    """Return the content of a file with one tile.

    Parameters
    ----------
    values
        Dims (band, y, x), integers or floats of any size.
    described
        Tags that the values and the grid do not determine: colours, texts.
    """
    bands, height, width = values.shape
    tile_height, tile_width = (math.ceil(side / _TILE_STEP) * _TILE_STEP for side in (height, width))
    # The values of a cell are side by side, as in the files of GDAL's COG driver.
    tile = np.zeros((tile_height, tile_width, bands), values.dtype.newbyteorder("<"))
    tile[:height, :width] = values.transpose(1, 2, 0)
    predictor = _predictor(values.dtype) if encoding.has_predictor else 1
    content = _compressed(_differences(tile, predictor).tobytes(), encoding)
    fields = {
        **described,
        **_crs_fields(str(geobox.crs)),
        **_position(geobox.affine),
        Tag.WIDTH: shorts(width),
        Tag.HEIGHT: shorts(height),
        Tag.BITS: shorts(*[8 * values.dtype.itemsize] * bands),
        Tag.COMPRESSION: shorts(_CODES[encoding.method]),
        Tag.BANDS: shorts(bands),
        Tag.PLANAR: shorts(1),
        Tag.PREDICTOR: shorts(predictor),
        Tag.TILE_WIDTH: shorts(tile_width),
        Tag.TILE_HEIGHT: shorts(tile_height),
        Tag.TILE_POSITION: _long(0),
        Tag.TILE_BYTES: _long(len(content)),
        Tag.SAMPLE_FORMAT: shorts(*[_KINDS[values.dtype.kind]] * bands),
    }
    # The size of the directory does not depend on the position.
    fields[Tag.TILE_POSITION] = _long(_DIRECTORY + len(_directory(fields)) + 4)
    head = _LITTLE_ENDIAN + struct.pack("<I", _DIRECTORY) + _PROLOGUE + _directory(fields)
    return b"".join((head, struct.pack("<I", len(content)), content, content[-4:]))


def _directory(fields: Mapping[Tag, Field]) -> bytes:
    """Return the directory, sorted by tag, and after it the values that have more than four bytes."""
    following = _DIRECTORY + 2 + 12 * len(fields) + 4
    entries, values = [struct.pack("<H", len(fields))], []
    for tag in sorted(fields):
        kind, elements, content = fields[tag]
        if len(content) > 4:
            values.append(content + b"\0" * (len(content) % 2))
            content = struct.pack("<I", following)
            following += len(values[-1])
        entries.append(struct.pack("<HHI4s", tag, kind, elements, content))
    return b"".join((*entries, bytes(4), *values))


def _predictor(dtype: np.dtype) -> int:
    return _FLOAT_DIFFERENCES if dtype.kind == "f" else _DIFFERENCES


def _differences(tile: np.ndarray, predictor: int) -> np.ndarray:
    """Replace the values of a tile (y, x, band) by their differences from the pixel on the left."""
    if predictor == _DIFFERENCES:
        numbers = tile.view(f"<u{tile.itemsize}")
        differences = numbers.copy()
        differences[:, 1:] -= numbers[:, :-1]
        return differences
    if predictor == _FLOAT_DIFFERENCES:
        # Of a row, the first bytes of all floats are stored first, then the second bytes.
        height, width, bands = tile.shape
        octets = tile.astype(tile.dtype.newbyteorder(">")).view("u1").reshape(height, width * bands, tile.itemsize)
        rows = octets.transpose(0, 2, 1).reshape(height, -1)
        differences = rows.copy()
        differences[:, bands:] -= rows[:, :-bands]
        return differences
    return tile


def _compressed(content: bytes, encoding: Encoding) -> bytes:
    match encoding.method:
        case "deflate":
            return bytes(imagecodecs.deflate_encode(content, encoding.level))
        case "zstd":
            return bytes(imagecodecs.zstd_encode(content, encoding.level))
        case "lzw":
            return bytes(imagecodecs.lzw_encode(content))
    return content


def _position(transform: Affine) -> dict[Tag, Field]:
    """Return the tags of an affine transform, as GDAL writes them."""
    width, _, west, _, height, north = transform[:6]
    if height < 0 and transform.is_rectilinear:
        return {
            Tag.CELL_SIZE: _doubles(width, -height, 0),
            Tag.TIE_POINT: _doubles(0, 0, 0, west, north, 0),
        }
    a, b, c, d, e, f = transform[:6]
    return {Tag.TRANSFORM: _doubles(a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1)}


@lru_cache(_MOST_CRS)
def _crs_fields(crs: str) -> dict[Tag, Field]:
    """Return the tags of a CRS, from a file that GDAL writes: only GDAL knows the keys of every CRS."""
    with MemoryFile() as memory:
        profile = {"count": 1, "height": 1, "width": 1, "dtype": "uint8", "transform": Affine(1, 0, 0, 0, -1, 1)}
        with memory.open(driver="GTiff", crs=CRS(crs).to_wkt(), ENDIANNESS="LITTLE", **profile):
            pass
        content = memory.read()
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    fields = {}
    for position in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from("<HHI", content, position)
        if tag in (Tag.GEO_KEYS, Tag.GEO_NUMBERS, Tag.GEO_TEXTS):
            size = count * {2: 1, 3: 2, 12: 8}[kind]
            at = position + 8 if size <= 4 else struct.unpack_from("<I", content, position + 8)[0]
            fields[Tag(tag)] = Field(kind, count, content[at : at + size])
    return fields
