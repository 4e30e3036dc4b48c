"""Read tiles of a GeoTIFF as blocks of pixels.

Each tile is fetched once. Adjacent tiles share a request, and several requests run at the same time.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from rasterio.windows import Window

from s2cube.fetch.cache import Span, file_cache
from s2cube.fetch.session import cores
from s2cube.fetch.store import Access, fetch, is_current, read_error
from s2cube.raster.lattice import Block, Lattice
from s2cube.raster.tiff import Level, Tiff, read_header

_LONGEST_RUN_BYTES = 8 << 20
"""Largest part that one request fetches. Two requests in parallel are faster than one of twice the size."""

_GAP_BYTES = 1024
"""Largest gap between tiles of one request. The gap contains padding, or markers that GDAL writes around tiles."""

_TRUSTED_S = 60
"""After this time a header is read again, because an archive may change. Slices of one scene are usually
read in less time."""


class Changed(Exception):
    """A file has changed since its header was read."""


def header(href: str, access: Access) -> Tiff:
    """Return the header of a file from a cache of this process. An entry is valid for `_TRUSTED_S`."""

    def read() -> tuple[tuple[float, Tiff], int]:
        tiff = read_header(href, access)
        return (time.monotonic(), tiff), tiff.size

    read_s, tiff = file_cache().get(("header", href), read)
    if time.monotonic() - read_s > _TRUSTED_S or not is_current(href, tiff.version):
        forget(href)
        _, tiff = file_cache().get(("header", href), read)
    return tiff


def forget(href: str) -> None:
    """Remove the header of a file from the cache."""
    file_cache().drop(("header", href))


@dataclass(frozen=True)
class TiledRaster:
    """A `Raster`: one level of a file."""

    tiff: Tiff
    level: Level
    access: Access

    @property
    def lattice(self) -> Lattice:
        """Rows and columns of pixels, and their location."""
        return self.level.lattice

    @property
    def nodata(self) -> float | None:
        """Nodata value of the file, if it has one."""
        return self.tiff.nodata

    @property
    def skips_zeros(self) -> bool:
        """Whether overviews are averages without DN 0: GDAL excludes the nodata value of the file from them."""
        return self.tiff.nodata == 0

    @property
    def version(self) -> str:
        """Text that changes when the file changes."""
        return self.tiff.version

    def runs(self, window: Window) -> list[list[Span]]:
        """Return the bytes of a window: one span per tile, grouped into runs that are contiguous in the file."""
        level, tiff = self.level, self.tiff
        (top, bottom), (left, right) = window.toranges()
        rows, columns = level.tile_shape
        across = np.arange(left // columns, -(-right // columns))
        down = np.arange(top // rows, -(-bottom // rows))
        tiles = (down[:, np.newaxis] * level.tiles_across + across).ravel()
        tiles = tiles[level.sizes[tiles] > 0]
        out: list[list[Span]] = []
        for tile in tiles[np.argsort(level.offsets[tiles], kind="stable")].tolist():
            start = int(level.offsets[tile])
            span = Span((tiff.href, tiff.version, start, tile), start, start + int(level.sizes[tile]))
            near = out and 0 <= start - out[-1][-1].stop <= _GAP_BYTES
            if near and span.stop - out[-1][0].start <= _LONGEST_RUN_BYTES:
                out[-1].append(span)
            else:
                out.append([span])
        return out

    def blocks(self, window: Window) -> Iterator[Block]:
        """Yield the pixels of a window, tile by tile, in the order of the bytes in the file.

        Raises
        ------
        AssetReadError
            If a tile cannot be read, or is damaged.
        Changed
            If the file has changed.
        """
        (top, bottom), (left, right) = window.toranges()
        fetch_part = partial(_fetch_part, self.tiff, self.access)
        for span, data in file_cache().stream(self.runs(window), fetch_part):
            tile = span.key[-1]  # type: ignore[index]
            row, column = (
                index * length
                for index, length in zip(divmod(tile, self.level.tiles_across), self.level.tile_shape, strict=True)
            )
            first_row, first_column = max(top - row, 0), max(left - column, 0)
            inside = np.s_[first_row : bottom - row, first_column : right - column]
            with cores():
                yield Block(row + first_row, column + first_column, self._decoded(tile, span, data)[inside])

    def _decoded(self, tile: int, span: Span, data: memoryview) -> np.ndarray:
        for attempt in range(2):
            try:
                return self.tiff.decode(self.level, tile, data)
            except (ValueError, RuntimeError) as error:
                if attempt == 1:
                    position = divmod(tile, self.level.tiles_across)
                    problem = f"is damaged: its tile {position} of {span.size} bytes cannot be decoded ({error})"
                    raise read_error(self.tiff.href, problem) from None
                # The bytes may have been damaged in transfer: fetch them again.
                file_cache().drop(span.key)
                data = _fetch_part(self.tiff, self.access, span.start, span.stop)
        raise AssertionError


def _fetch_part(tiff: Tiff, access: Access, start: int, stop: int) -> memoryview:
    part = fetch(tiff.href, start, stop, access)
    if part.version != tiff.version:
        raise Changed(tiff.href)
    if len(part.data) != stop - start:
        raise read_error(tiff.href, f"ends at {part.whole_bytes}: it is shorter than its header says")
    return part.data
