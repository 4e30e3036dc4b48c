"""The header of a GeoTIFF becomes values, and its tiles become pixels; nothing in it is believed unseen."""

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from affine import Affine
from rasterio.crs import CRS

from s2cube.errors import AssetReadError
from s2cube.resample import Lattice
from s2cube.store import Access, failed, fetch

HEADER_BYTES = 16 << 10
"""Asked for at first: a COG's directories stand in front; those of a 10 m band of Earth Search fill some 4 KB."""

_LARGEST_HEADER_BYTES = 16 << 20
_MOST_HEADER_REQUESTS = 32
_MOST_DIRECTORIES = 32
_LARGEST_TILE_BYTES = 64 << 20
"""Bounds of what is believed: a million tiles, of 4096 × 4096 pixels of two bytes; Sentinel-2's stay far below."""

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _LERC, _ZSTD = 1, 5, 8, 32946, 34887, 50000
_DECODERS: dict[int, Any] = {
    _LZW: imagecodecs.lzw_decode,
    _DEFLATE: imagecodecs.deflate_decode,
    _OLD_DEFLATE: imagecodecs.deflate_decode,
    _ZSTD: imagecodecs.zstd_decode,
}
_KINDS = {1: "u", 2: "i"}
_BASELINE_PREDICTORS = (1, 2)
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG2000_MAGIC = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_USER_DEFINED = 32767
_METRE = 9001
"""Codes of TIFF 6.0, of its supplements and of GeoTIFF 1.1."""


class Unsupported(Exception):
    """A file that is none of those read here, though a driver of GDAL may read it; says why."""

    def __init__(self, kind: str, driver: str = "GTiff") -> None:
        super().__init__(kind)
        self.driver = driver


@dataclass(frozen=True, eq=False)
class Level:
    """Full resolution, or an overview.

    Parameters
    ----------
    tile_shape
        Rows and columns of a tile. A strip is a tile as wide as the file; its last one may have fewer rows.
    offsets, sizes
        Of each tile, row by row, in bytes; a tile of size 0 holds no data.
    """

    lattice: Lattice
    tile_shape: tuple[int, int]
    offsets: np.ndarray
    sizes: np.ndarray
    strips: bool

    @property
    def tiles_across(self) -> int:
        """Columns of tiles."""
        return math.ceil(self.lattice.width / self.tile_shape[1])

    def rows_of(self, tile: int) -> int:
        """Rows that a tile holds."""
        rows = self.tile_shape[0]
        return min(rows, self.lattice.height - tile * rows) if self.strips else rows


@dataclass(frozen=True, eq=False)
class Tiff:
    """A file of one band of integers.

    Parameters
    ----------
    version
        Changes when the file does.
    nodata
        What the file calls so.
    levels
        Full resolution first.
    """

    href: str
    version: str
    dtype: "np.dtype[Any]"
    nodata: float | None
    compression: int
    predictor: int
    levels: tuple[Level, ...]

    @property
    def size(self) -> int:
        """Bytes that these values take in memory, about."""
        return 2000 + sum(level.offsets.nbytes + level.sizes.nbytes for level in self.levels)

    def decode(self, level: Level, tile: int, data: memoryview) -> np.ndarray:
        """Decode a tile: its pixels, (rows, columns), in the order of bytes of this machine.

        Raises
        ------
        ValueError
            If the bytes are not those of a tile of this size.
        """
        rows, columns = level.rows_of(tile), level.tile_shape[1]
        if self.compression == _LERC:
            lerc: Any = imagecodecs.lerc_decode
            pixels = np.asarray(lerc(data, out=np.empty((rows, columns), self.dtype)))
        else:
            row_bytes = columns * self.dtype.itemsize
            unpacked = _unpacked(self.compression, data, level.tile_shape[0] * row_bytes)
            # Some writers fill the last strip up, others do not.
            if len(unpacked) not in (rows * row_bytes, level.tile_shape[0] * row_bytes):
                raise ValueError(f"{len(unpacked)} bytes where there should be {rows * row_bytes}")
            pixels = unpacked[: rows * row_bytes].view(self.dtype).reshape(rows, columns)
        if not pixels.dtype.isnative:
            pixels = pixels.astype(pixels.dtype.newbyteorder("="))
        return np.asarray(imagecodecs.delta_decode(pixels, axis=1, out=pixels)) if self.predictor == 2 else pixels


def _unpacked(compression: int, data: memoryview, room: int) -> np.ndarray:
    if compression == _NONE:
        return np.frombuffer(data, "uint8").copy()
    # A decoder gets room for as much as a tile holds, and no more: a bomb has none to go off in.
    out = np.empty(room, "uint8")
    return out[: len(_DECODERS[compression](data, out=out))]


def read_header(href: str, access: Access) -> Tiff:
    """Read what a file says of itself: one request, where the directories stand in front as in a COG.

    Raises
    ------
    AssetReadError
        If it cannot be read, is damaged, or wants more memory than any file of Sentinel-2.
    Unsupported
        If it is for GDAL.
    """
    head = _Head(href, access)
    magic = head.peek(8)
    if magic.startswith(_JPEG2000_MAGIC):
        raise Unsupported("a JPEG 2000", "JP2OpenJPEG")
    if not magic.startswith(_TIFF_MAGIC):
        raise failed(href, "is neither a TIFF nor a JPEG 2000")
    try:
        source: Any = head
        with tifffile.TiffFile(source) as file:
            return _checked(href, head, _directories(file))
    except (AssetReadError, Unsupported):
        raise
    except Exception as error:  # noqa: BLE001  whatever a parser trips over, it is this file
        raise failed(href, f"has a damaged header ({type(error).__name__}: {error})") from None


def _directories(file: tifffile.TiffFile) -> list[dict[int, Any]]:
    pages: list[dict[int, Any]] = []
    for position in range(_MOST_DIRECTORIES):
        try:
            page = file.pages[position]
        except IndexError:
            return pages
        assert isinstance(page, tifffile.TiffPage)
        pages.append({tag.code: tag.value for tag in page.tags} | {0: file.byteorder})
    raise ValueError(f"more than {_MOST_DIRECTORIES} directories")


def _checked(href: str, head: "_Head", pages: list[dict[int, Any]]) -> Tiff:
    full, *others = pages
    kinds = [int(page.get(254, 0)) for page in others]
    if any(kind & 4 for kind in kinds):
        raise Unsupported("a file with a mask of its own")
    transform, crs = _place(href, full)
    dtype = _dtype(full)
    _refuse_exotic(full)
    levels = []
    for page in (full, *(page for page, kind in zip(others, kinds, strict=True) if kind & 1)):
        if any(page.get(tag, 1) != full.get(tag, 1) for tag in (258, 259, 277, 317, 339)):
            raise Unsupported("a TIFF with overviews of another kind")
        levels.append(_level(page, Lattice(crs, transform, full[257], full[256]), dtype, head.whole_bytes))
    nodata = float(str(full[42113]).strip(" \0")) if 42113 in full else None
    return Tiff(href, head.version, dtype, nodata, full.get(259, 1), full.get(317, 1), tuple(levels))


def _refuse_exotic(page: dict[int, Any]) -> None:
    if page.get(277, 1) != 1:
        raise Unsupported("a file of several bands")
    if page.get(259, 1) not in (_NONE, _LERC, *_DECODERS):
        raise Unsupported(f"compressed in a way (TIFF {int(page[259])}) that is not read here")
    if page.get(259) == _LERC and tuple(page.get(50674, (0, 0)))[1:2] != (0,):
        raise Unsupported("LERC, compressed again")
    if page.get(317, 1) not in _BASELINE_PREDICTORS or page.get(266, 1) != 1 or page.get(274, 1) != 1:
        raise Unsupported("a TIFF with an uncommon predictor, order of bits or orientation")


def _dtype(page: dict[int, Any]) -> "np.dtype[Any]":
    bits, kind = (page.get(tag, 1) for tag in (258, 339))
    if isinstance(bits, tuple) or kind not in _KINDS or bits not in (8, 16, 32):
        raise Unsupported("a TIFF with pixels of an uncommon type")
    return np.dtype(f"{page[0]}{_KINDS[kind]}{bits // 8}")


def _place(href: str, page: dict[int, Any]) -> tuple[Affine, CRS]:
    keys, scale, tie = (page.get(tag, ()) for tag in (34735, 33550, 33922))
    if 34264 in page or len(tie) > 6:
        raise Unsupported("a TIFF whose place is not told by one corner")
    if not keys or len(scale) < 2 or len(tie) < 6:
        raise failed(href, "does not say where it lies")
    of = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    code = of.get(3072, _USER_DEFINED)
    if code == _USER_DEFINED or of.get(3076, _METRE) != _METRE or of.get(1025, 1) != 1:
        raise Unsupported("a TIFF with an uncommon CRS")
    across, down = scale[:2]
    column, row, _, x, y = tie[:5]
    transform = Affine(across, 0, x - column * across, 0, -down, y + row * down)
    if not all(map(math.isfinite, transform)) or across <= 0 or down <= 0:
        raise failed(href, "does not say where it lies")
    return transform, epsg(code)


@lru_cache(maxsize=256)
def epsg(code: int) -> CRS:
    """Give the CRS of an EPSG code."""
    return CRS.from_epsg(code)


def _level(page: dict[int, Any], full: Lattice, dtype: "np.dtype[Any]", whole_bytes: int) -> Level:
    height, width = page[257], page[256]
    strips = 322 not in page
    rows, columns = (min(page.get(278, height), height), width) if strips else (page[323], page[322])
    if min(height, width, rows, columns) < 1 or height > full.height or width > full.width:
        raise ValueError(f"{height} × {width} pixels in tiles of {rows} × {columns}")
    tile_bytes = rows * columns * dtype.itemsize
    if tile_bytes > _LARGEST_TILE_BYTES:
        raise ValueError(f"tiles of {tile_bytes >> 20} MB; make it a Cloud-Optimized GeoTIFF")
    offsets, sizes = (np.atleast_1d(np.asarray(page[tag], "int64")) for tag in ((273, 279) if strips else (324, 325)))
    if not len(offsets) == len(sizes) == math.ceil(height / rows) * math.ceil(width / columns):
        raise ValueError(f"{len(offsets)} tiles are told of, and {len(sizes)} sizes of them")
    if (offsets < 0).any() or (sizes < 0).any() or (sizes > 2 * tile_bytes + 4096).any():
        raise ValueError("tiles of an impossible size")
    if (offsets + sizes > whole_bytes).any():
        raise ValueError(f"it tells of bytes beyond its end at {whole_bytes}: the file is cut off")
    transform = full.transform @ Affine.scale(full.width / width, full.height / height)
    return Level(Lattice(full.crs, transform, height, width), (rows, columns), offsets, sizes, strips)


class _Head(io.RawIOBase):
    """A file of which no more is fetched than is looked at, from its beginning on."""

    def __init__(self, href: str, access: Access) -> None:
        super().__init__()
        self._href, self._access = href, access
        self._at = 0
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
        self._at = offset + (0, self._at, self.whole_bytes)[whence]
        if self._at < 0:
            raise ValueError("a place before the beginning")
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        stop = self.whole_bytes if size < 0 else min(self._at + size, self.whole_bytes)
        data = self._bytes(self._at, stop) if stop > self._at else b""
        self._at += len(data)
        return data

    def _bytes(self, start: int, stop: int) -> bytes:
        for begin, part in self._parts.items():
            if begin <= start and stop <= begin + len(part):
                return bytes(part[start - begin : stop - begin])
        known = sum(map(len, self._parts.values()))
        if known + stop - start > _LARGEST_HEADER_BYTES or len(self._parts) >= _MOST_HEADER_REQUESTS:
            raise ValueError("a header that does not end")
        # Twice as much each time: where directories are strewn about, a few requests find them.
        ahead = min(max(stop, start + known), self.whole_bytes)
        more = fetch(self._href, start, ahead, self._access)
        if more.version != self.version or len(more.data) != ahead - start:
            raise failed(self._href, "changed while it was read")
        self._parts[start] = more.data
        return bytes(more.data[: stop - start])
