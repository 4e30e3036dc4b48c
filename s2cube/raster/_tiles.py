"""Tiles of a GeoTIFF become blocks of pixels: each is fetched once, neighbours together, many at a time."""

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
"""Fetched by one request: beyond some megabytes it is quicker to ask for two halves at a time."""

_GAP_BYTES = 1024
"""Between tiles that are fetched together: the marks that GDAL puts around them, and the padding of others."""


_TRUSTED_S = 60
"""After that, a header is asked for again: slices of one scene follow one another, and an archive may change."""


class Changed(Exception):
    """A file is not the one whose header was read."""


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
    """Read the header of a file anew, when it is wanted again."""
    file_cache().drop(("header", href))


@dataclass(frozen=True)
class TiledRaster:
    """A level of a file, as `resample` wants it."""

    tiff: Tiff
    level: Level
    access: Access

    @property
    def lattice(self) -> Lattice:
        """Where its pixels lie."""
        return self.level.lattice

    @property
    def nodata(self) -> float | None:
        """What the file calls so."""
        return self.tiff.nodata

    @property
    def skips_zeros(self) -> bool:
        """Whether its overviews average no DN 0: GDAL, which makes them, leaves out the file's nodata value."""
        return self.tiff.nodata == 0

    @property
    def version(self) -> str:
        """Changes when the file does."""
        return self.tiff.version

    def runs(self, window: Window) -> list[list[Span]]:
        """Say which bytes hold a window: a span a tile, in runs that lie together in the file."""
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
            If a tile cannot be had, or is damaged.
        Changed
            If the file is another now.
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
                # It may have been damaged on its way.
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
