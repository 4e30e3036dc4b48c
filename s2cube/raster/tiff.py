"""Read and check the header of a GeoTIFF, and decode its tiles."""

import math
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access, fetch, read_error
from s2cube.raster._codec import COMPRESSIONS, LERC, PREDICTORS, Codec
from s2cube.raster._geotiff import Unsupported, georeferencing
from s2cube.raster.lattice import Lattice

HEADER_BYTES = 16 << 10
"""Size of the first request. A COG begins with its directories. In a 10 m band of Earth Search they have 4 KB."""

_LARGEST_HEADER_BYTES = 16 << 20
_MOST_HEADER_REQUESTS = 32
_MOST_DIRECTORIES = 32
_MOST_ENTRIES = 4096
_LARGEST_TILE_BYTES = 64 << 20
"""Limits: a million tiles of 4096 × 4096 pixels of two bytes. Sentinel-2 files are much smaller."""

_INTEGERS = {3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_NUMBERS = _INTEGERS | {11: "f4", 12: "f8"}
_TEXT, _NODATA = {2: "S1"}, 42113
"""Types of values, and their dtypes: TIFF 6.0, and the specification of BigTIFF."""

_SCALARS = (254, 256, 257, 258, 259, 266, 274, 277, 278, 317, 322, 323, 339)
_PLACES = (273, 279, 324, 325)
_TYPES = dict.fromkeys((*_SCALARS, *_PLACES, 34735, 50674), _INTEGERS)
_TYPES |= dict.fromkeys((33550, 33922, 34264), _NUMBERS) | {_NODATA: _TEXT}
"""All tags that this module uses, and the types that each may have."""

_SAMPLE_FORMATS = {1: "u", 2: "i"}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG2000_MAGIC = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NO_NODATA = ("", "nan", "inf", "+inf", "-inf")
"""Nodata tags, in lower case, that GDAL ignores in integer files."""


@dataclass(frozen=True, eq=False)
class Level:
    """Full resolution or an overview.

    Parameters
    ----------
    tile_shape
        Rows and columns of a tile. A strip is a tile as wide as the file. The last strip may have fewer rows.
    offsets, sizes
        Offset and size of each tile in bytes, row by row. Both are 0 for a tile without data.
    """

    lattice: Lattice
    tile_shape: tuple[int, int]
    offsets: np.ndarray
    sizes: np.ndarray
    strips: bool

    @property
    def tiles_across(self) -> int:
        """Number of tile columns."""
        return math.ceil(self.lattice.width / self.tile_shape[1])

    def rows_of(self, tile: int) -> int:
        """Number of rows of a tile that contain pixels."""
        rows = self.tile_shape[0]
        return min(rows, self.lattice.height - tile * rows) if self.strips else rows


@dataclass(frozen=True, eq=False)
class Tiff:
    """Header of a file with one band of integers.

    Parameters
    ----------
    version
        Text that changes when the file changes.
    nodata
        Nodata value of the file, if it has one.
    levels
        Full resolution first.
    """

    href: str
    version: str
    nodata: float | None
    codec: Codec
    levels: tuple[Level, ...]

    @property
    def size(self) -> int:
        """Approximate size of these values in memory, bytes."""
        return 2000 + sum(level.offsets.nbytes + level.sizes.nbytes for level in self.levels)

    def decode(self, level: Level, tile: int, data: memoryview) -> np.ndarray:
        """Decode a tile to its pixels, see `Codec.decode`."""
        return self.codec.decode(data, level.rows_of(tile), level.tile_shape)


def read_header(href: str, access: Access) -> Tiff:
    """Read the header of a file. One request is enough if the directories are at its beginning, as in a COG.

    Raises
    ------
    AssetReadError
        If the header cannot be read, is damaged, or would need more memory than any Sentinel-2 file.
    Unsupported
        If only GDAL can read the file.
    """
    head = _Head(href, access)
    magic = head.first[:8].tobytes()
    if magic.startswith(_JPEG2000_MAGIC):
        raise Unsupported("a JPEG 2000", "JP2OpenJPEG")
    if not magic.startswith(_TIFF_MAGIC):
        raise read_error(href, "is neither a TIFF nor a JPEG 2000")
    try:
        return _tiff(href, head, _directories(head))
    except (AssetReadError, Unsupported):
        raise
    except Exception as error:  # noqa: BLE001  this file is the reason for any error of the parser
        raise read_error(href, f"has a damaged header ({type(error).__name__}: {error})") from None


def _directories(head: "_Head") -> list[dict[int, Any]]:
    """Read the tags that this module uses, for each directory. Number 0 is not a tag: it is the byte order."""
    order, is_big = "<" if head.first[0] == ord("I") else ">", 43 in head.first[2:4]
    count_code, entry_code, offset_code = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    if is_big and head.unpack(f"{order}HH", 4) != (8, 0):
        raise ValueError("a BigTIFF whose offsets do not have 8 bytes")
    (start,) = head.unpack(f"{order}{offset_code}", 8 if is_big else 4)
    pages: list[dict[int, Any]] = []
    while start:
        if len(pages) == _MOST_DIRECTORIES:
            raise ValueError(f"more than {_MOST_DIRECTORIES} directories")
        (count,) = head.unpack(f"{order}{count_code}", start)
        if count > _MOST_ENTRIES:
            raise ValueError(f"a directory of {count} entries")
        start += struct.calcsize(f"={count_code}")
        stop = start + count * struct.calcsize(f"={entry_code}")
        # Read the entries together with the offset of the next directory, which follows them.
        data = head.read(start, stop + struct.calcsize(f"={offset_code}"))
        page: dict[int, Any] = {0: order}
        for code, type_code, length, field in struct.iter_unpack(f"{order}{entry_code}", data[: stop - start]):
            if code not in _TYPES:
                continue
            if code in page:
                raise ValueError(f"its tag {code} occurs twice")
            page[code] = _value(head, order, code, (type_code, length, field))
        pages.append(page)
        (start,) = struct.unpack(f"{order}{offset_code}", data[stop - start :])
    return pages


def _value(head: "_Head", order: str, code: int, entry: tuple[int, int, bytes]) -> Any:
    """Read the value of a tag: it is in the entry if it fits, otherwise the entry contains its offset.

    Returns
    -------
    str, int, tuple of numbers, or numpy.ndarray
        A text up to its first NUL. Offsets and sizes of tiles: int64.
    """
    type_code, length, field = entry
    if type_code not in _TYPES[code]:
        raise ValueError(f"its tag {code} has values of type {type_code}")
    dtype = np.dtype(f"{order}{_TYPES[code][type_code]}")
    data, size = field[: length * dtype.itemsize], length * dtype.itemsize
    if size > len(field):
        start = int.from_bytes(field, "little" if order == "<" else "big")
        if start < 8:
            raise ValueError(f"its tag {code} has its value in the first bytes of the file")
        data = head.read(start, start + size)
    if code == _NODATA:
        return data.split(b"\0")[0].strip().decode("ascii", "replace")
    values = np.frombuffer(data, dtype)
    if code in _PLACES:
        return values.astype("int64")
    numbers = tuple(values.tolist())
    return numbers[0] if code in _SCALARS and length == 1 else numbers


def _tiff(href: str, head: "_Head", pages: list[dict[int, Any]]) -> Tiff:
    full, *others = pages
    nodata = _nodata(full)
    subfile_types = [int(page.get(254, 0)) for page in others]
    if any(each & 4 for each in subfile_types):
        raise Unsupported("a file with an internal mask")
    georeference = georeferencing(full)
    if georeference is None:
        raise read_error(href, "has no georeferencing")
    transform, crs = georeference
    dtype = _dtype(full)
    _reject_unsupported(full)
    levels = []
    for page in (full, *(page for page, each in zip(others, subfile_types, strict=True) if each & 1)):
        if any(page.get(tag, 1) != full.get(tag, 1) for tag in (258, 259, 277, 317, 339)):
            raise Unsupported("a TIFF whose overviews have another format")
        levels.append(_level(page, Lattice(crs, transform, full[257], full[256]), dtype, head.whole_bytes))
    return Tiff(href, head.version, nodata, Codec(dtype, full.get(259, 1), full.get(317, 1)), tuple(levels))


def _nodata(page: dict[int, Any]) -> float | None:
    """Read the nodata tag, an ASCII text, as GDAL does.

    GDAL parses only the beginning of a text, up to the end of a number, and truncates fractions. It reads ``1_000`` as
    1, ``n/a`` as 0, ``7.6`` as 7. This function rejects such tags, because their meaning is unknown.

    Raises
    ------
    ValueError
        If the tag is not a whole number.
    """
    text = page.get(_NODATA, "")
    if text.lower() in _NO_NODATA:
        return None
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not number.is_integer():
        raise ValueError(f"its nodata tag '{text[:20]}' is not a whole number")
    return number


def _reject_unsupported(page: dict[int, Any]) -> None:
    if page.get(277, 1) != 1:
        raise Unsupported("a file with several bands")
    if page.get(259, 1) not in COMPRESSIONS:
        raise Unsupported(f"a TIFF with the uncommon compression {int(page[259])}")
    if page.get(259) == LERC and tuple(page.get(50674, (0, 0)))[1:2] != (0,):
        raise Unsupported("a TIFF with additionally compressed LERC data")
    if page.get(317, 1) not in PREDICTORS or page.get(266, 1) != 1 or page.get(274, 1) != 1:
        raise Unsupported("a TIFF with an uncommon predictor, bit order or orientation")


def _dtype(page: dict[int, Any]) -> "np.dtype[Any]":
    bits, sample_format = (page.get(tag, 1) for tag in (258, 339))
    if isinstance(bits, tuple) or sample_format not in _SAMPLE_FORMATS or bits not in (8, 16, 32):
        raise Unsupported("a TIFF with an uncommon pixel type")
    return np.dtype(f"{page[0]}{_SAMPLE_FORMATS[sample_format]}{bits // 8}")


def _level(page: dict[int, Any], full: Lattice, dtype: "np.dtype[Any]", whole_bytes: int) -> Level:
    height, width = page[257], page[256]
    strips = 322 not in page
    rows, columns = (min(page.get(278, height), height), width) if strips else (page[323], page[322])
    if min(height, width, rows, columns) < 1 or height > full.height or width > full.width:
        raise ValueError(f"{height} × {width} pixels in tiles of {rows} × {columns}")
    tile_bytes = rows * columns * dtype.itemsize
    if tile_bytes > _LARGEST_TILE_BYTES:
        raise ValueError(f"tiles of {tile_bytes >> 20} MB; convert the file to a Cloud-Optimized GeoTIFF")
    offsets, sizes = (page[tag] for tag in ((273, 279) if strips else (324, 325)))
    if not len(offsets) == len(sizes) == math.ceil(height / rows) * math.ceil(width / columns):
        raise ValueError(f"{len(offsets)} tile offsets and {len(sizes)} tile sizes, which do not fit the image size")
    if (offsets < 0).any() or (sizes < 0).any() or (sizes > 2 * tile_bytes + 4096).any():
        raise ValueError("tiles with impossible sizes or offsets")
    if ((offsets == 0) != (sizes == 0)).any():
        raise ValueError("tiles of which only the offset or only the size is 0")
    if (offsets > whole_bytes - sizes).any():
        raise ValueError(f"tiles beyond the end of the file at {whole_bytes} bytes: the file is truncated")
    transform = full.transform @ Affine.scale(full.width / width, full.height / height)
    return Level(Lattice(full.crs, transform, height, width), (rows, columns), offsets, sizes, strips)


class _Head:
    """The bytes of a file: its first `HEADER_BYTES`, and other parts, which are fetched when they are read."""

    def __init__(self, href: str, access: Access) -> None:
        self._href, self._access = href, access
        part = fetch(href, 0, HEADER_BYTES, access)
        self.whole_bytes, self.version, self.first = part.whole_bytes, part.version, part.data
        self._parts = {0: part.data}

    def unpack(self, layout: str, start: int) -> tuple[Any, ...]:
        """Read values of a layout of `struct`."""
        return struct.unpack(layout, self.read(start, start + struct.calcsize(layout)))

    def read(self, start: int, stop: int) -> bytes:
        """Read bytes [start, stop)."""
        for begin, part in self._parts.items():
            if begin <= start and stop <= begin + len(part):
                return bytes(part[start - begin : stop - begin])
        if stop > self.whole_bytes:
            raise ValueError(f"it refers to bytes beyond the end of the file at {self.whole_bytes} bytes")
        fetched_bytes = sum(map(len, self._parts.values()))
        if fetched_bytes + stop - start > _LARGEST_HEADER_BYTES or len(self._parts) >= _MOST_HEADER_REQUESTS:
            raise ValueError(f"it is over {_LARGEST_HEADER_BYTES >> 20} MB or {_MOST_HEADER_REQUESTS} requests")
        # Double the size of each request, so that few requests are needed if directories are far apart.
        ahead = min(max(stop, start + fetched_bytes), self.whole_bytes)
        more = fetch(self._href, start, ahead, self._access)
        if more.version != self.version or len(more.data) != ahead - start:
            raise read_error(self._href, "changed while it was read")
        self._parts[start] = more.data
        return bytes(more.data[: stop - start])
