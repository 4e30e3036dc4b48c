"""Read and check the header of a GeoTIFF, and decode its tiles.

`async-tiff` is not used, because it reads by obstore: its requests would not have the tokens, retries and counters of
`fetch.store`.
"""

import io
import logging
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from affine import Affine

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access, fetch, read_error
from s2cube.raster._codec import COMPRESSIONS, LERC, PREDICTORS, Codec
from s2cube.raster._geotiff import Unsupported, georeferencing
from s2cube.raster.lattice import Lattice

# tifffile logs a line for each file that has unknown content. Here such content raises an error, or GDAL reads the
# file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

HEADER_BYTES = 16 << 10
"""Size of the first request. A COG begins with its directories. In a 10 m band of Earth Search they have 4 KB."""

_LARGEST_HEADER_BYTES = 16 << 20
_MOST_HEADER_REQUESTS = 32
_MOST_DIRECTORIES = 32
_LARGEST_TILE_BYTES = 64 << 20
"""Limits: a million tiles of 4096 × 4096 pixels of two bytes. Sentinel-2 files are much smaller."""

_TAGS = {254, 256, 257, 258, 259, 266, 273, 274, 277, 278, 279, 317, 322, 323, 324, 325, 339}
_TAGS |= {33550, 33922, 34264, 34735, 42113, 50674}
"""Codes of all tags that this module uses."""

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
    magic = head.peek(8)
    if magic.startswith(_JPEG2000_MAGIC):
        raise Unsupported("a JPEG 2000", "JP2OpenJPEG")
    if not magic.startswith(_TIFF_MAGIC):
        raise read_error(href, "is neither a TIFF nor a JPEG 2000")
    try:
        source: Any = head
        with tifffile.TiffFile(source) as file:
            return _tiff(href, head, _directories(file))
    except (AssetReadError, Unsupported):
        raise
    except Exception as error:  # noqa: BLE001  this file is the reason for any error of the parser
        raise read_error(href, f"has a damaged header ({type(error).__name__}: {error})") from None


def _directories(file: tifffile.TiffFile) -> list[dict[int, Any]]:
    pages: list[dict[int, Any]] = []
    for position in range(_MOST_DIRECTORIES):
        try:
            page = file.pages[position]
        except IndexError:
            return pages
        assert isinstance(page, tifffile.TiffPage)
        tags = {tag.code: tag.value for tag in page.tags}
        # tifffile omits a tag that it cannot read. A tag that is missing or duplicate may change the meaning of a file.
        unclear = [code for code, times in _tag_counts(file, page).items() if times > 1 or code not in tags]
        if not _TAGS.isdisjoint(unclear):
            raise ValueError(f"tags that cannot be read, or occur twice: {', '.join(map(str, unclear))}")
        pages.append(tags | {0: file.byteorder})
    raise ValueError(f"more than {_MOST_DIRECTORIES} directories")


def _tag_counts(file: tifffile.TiffFile, page: tifffile.TiffPage) -> Counter[int]:
    """Count how often each tag code occurs in a directory."""
    file.filehandle.seek(page.offset)
    (count,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
    entries = file.filehandle.read(count * file.tiff.tagsize)
    starts = range(0, len(entries), file.tiff.tagsize)
    return Counter(struct.unpack_from(f"{file.byteorder}H", entries, at)[0] for at in starts)


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
    tag = page.get(42113, "")
    text = tag.split("\0")[0] if isinstance(tag, str) else "not a text"
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
    offsets, sizes = (np.atleast_1d(np.asarray(page[tag], "int64")) for tag in ((273, 279) if strips else (324, 325)))
    if not len(offsets) == len(sizes) == math.ceil(height / rows) * math.ceil(width / columns):
        raise ValueError(f"{len(offsets)} tile offsets and {len(sizes)} tile sizes, which do not fit the image size")
    if (offsets < 0).any() or (sizes < 0).any() or (sizes > 2 * tile_bytes + 4096).any():
        raise ValueError("tiles with impossible sizes or offsets")
    if ((offsets == 0) != (sizes == 0)).any():
        raise ValueError("tiles of which only the offset or only the size is 0")
    if (offsets + sizes > whole_bytes).any():
        raise ValueError(f"tiles beyond the end of the file at {whole_bytes} bytes: the file is truncated")
    transform = full.transform @ Affine.scale(full.width / width, full.height / height)
    return Level(Lattice(full.crs, transform, height, width), (rows, columns), offsets, sizes, strips)


class _Head(io.RawIOBase):
    """A file object that fetches only the parts that are read."""

    def __init__(self, href: str, access: Access) -> None:
        super().__init__()
        self._href, self._access = href, access
        self._position = 0
        first = fetch(href, 0, HEADER_BYTES, access)
        self.whole_bytes, self.version = first.whole_bytes, first.version
        self._parts = {0: first.data}

    def peek(self, size: int) -> bytes:
        return bytes(self._parts[0][:size])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + (0, self._position, self.whole_bytes)[whence]
        if self._position < 0:
            raise ValueError("a position before the beginning of the file")
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        stop = self.whole_bytes if size < 0 else min(self._position + size, self.whole_bytes)
        data = self._range(self._position, stop) if stop > self._position else b""
        self._position += len(data)
        return data

    def _range(self, start: int, stop: int) -> bytes:
        for begin, part in self._parts.items():
            if begin <= start and stop <= begin + len(part):
                return bytes(part[start - begin : stop - begin])
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
