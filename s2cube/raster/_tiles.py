"""Read tiles of a GeoTIFF as blocks of pixels: each tile is fetched once, neighbours together, many at a time."""

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
"""Longest part that one request fetches: two halves at a time are faster than more megabytes in one."""

_GAP_BYTES = 1024
"""Longest gap between tiles that are fetched together: marks that GDAL writes around them, or padding."""


_TRUSTED_S = 60
"""After that, a header is read again, because an archive may change. Slices of one scene follow each other faster."""


class Changed(Exception):
    """A file has changed since its header was read."""


def header(href: str, access: Access) -> Tiff:
    """Give the header of a file: read once in a process, see `tiff.read_header`, and trusted for a minute."""

    def make() -> tuple[tuple[float, Tiff], int]:
        read = read_header(href, access)
        return (time.monotonic(), read), read.size

    read_s, tiff = file_cache().get(("header", href), make)
    if time.monotonic() - read_s > _TRUSTED_S or not is_current(href, tiff.version):
        forget(href)
        _, tiff = file_cache().get(("header", href), make)
    return tiff


def forget(href: str) -> None:
    """Read the header of a file again when it is needed next."""
    file_cache().drop(("header", href))


@dataclass(frozen=True)
class TiledRaster:
    """A level of a file, a `Raster`."""

    tiff: Tiff
    level: Level
    access: Access

    @property
    def lattice(self) -> Lattice:
        """Rows and columns of its pixels."""
        return self.level.lattice

    @property
    def nodata(self) -> float | None:
        """Nodata value of the file, if it has one."""
        return self.tiff.nodata

    @property
    def skips_zeros(self) -> bool:
        """Whether its overviews leave DN 0 out: GDAL, which computes them, leaves out the nodata value of the file."""
        return self.tiff.nodata == 0

    @property
    def version(self) -> str:
        """Changes when the file does."""
        return self.tiff.version

    def runs(self, window: Window) -> list[list[Span]]:
        """Give the bytes that hold a window: one span for each tile, in runs that are contiguous in the file."""
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
        """Yield the pixels of a window, tile by tile, in the order of the file.

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
                if attempt:
                    place = divmod(tile, self.level.tiles_across)
                    raise read_error(
                        self.tiff.href, f"is damaged: its tile {place} of {span.size} bytes cannot be decoded ({error})"
                    ) from None
                # It may have been damaged in transfer.
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
