"""Read tiles of a GeoTIFF as blocks of pixels.

Each tile is fetched once. Adjacent tiles share a request, and several requests run at the same time.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from s2cube.errors import AssetReadError
from s2cube.fetch.cache import Span, file_cache
from s2cube.fetch.session import cores
from s2cube.fetch.store import Access, fetch, is_current, read_error
from s2cube.raster.lattice import Block, Lattice, Report, tiles_under
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

    def runs(self, rects: np.ndarray) -> list[list[Span]]:
        """Return the bytes of rectangles: one span per tile, grouped into runs that are contiguous in the file."""
        return _grouped(self._spans(self._needed(rects)))

    def extents(self, rects: np.ndarray) -> np.ndarray:
        """Return the rectangles of the blocks that `blocks` yields, in the same order, (blocks, 4)."""
        return np.array(list(self._needed(rects).values()), "int64").reshape(-1, 4)

    def blocks(self, rects: np.ndarray, report: Report | None = None) -> Iterator[Block]:
        """Yield the pixels of rectangles, tile by tile, in the order of the bytes in the file.

        Of each tile, the rectangle around all rectangles in it is yielded. If errors are reported, each tile is
        requested alone, so that a request that fails concerns only one tile.

        Raises
        ------
        AssetReadError
            If a tile cannot be read, or is damaged, and errors are not reported.
        Changed
            If the file has changed.
        """
        needed = self._needed(rects)
        spans = self._spans(needed)
        runs, on_failure = (
            (_grouped(spans), None) if report is None else ([[span] for span in spans], partial(self._failed, report))
        )
        fetch_part = partial(_fetch_part, self.tiff, self.access)
        for span, data in file_cache().stream(runs, fetch_part, on_failure):
            tile: int = span.key[-1]  # type: ignore[index]
            with cores():
                try:
                    pixels = self._decoded(tile, span, data)
                except AssetReadError as error:
                    if report is None:
                        raise
                    report(self._extent(tile), error)
                    continue
                top, bottom, left, right = needed[tile]
                row, column = self._corner(tile)
                yield Block(top, left, pixels[top - row : bottom - row, left - column : right - column])

    def _needed(self, rects: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
        """Return which tiles with data are needed, in the order of the file, and which rectangle of each."""
        level = self.level
        tiles, inside = tiles_under(rects, level.tile_shape, level.tiles_across)
        order = np.argsort(level.offsets[tiles], kind="stable")
        order = order[level.sizes[tiles[order]] > 0]
        return dict(zip(tiles[order].tolist(), map(tuple, inside[order].tolist()), strict=True))

    def _spans(self, tiles: Iterable[int]) -> list[Span]:
        level, tiff = self.level, self.tiff
        starts = ((tile, int(level.offsets[tile])) for tile in tiles)
        return [
            Span((tiff.href, tiff.version, start, tile), start, start + int(level.sizes[tile]))
            for tile, start in starts
        ]

    def _corner(self, tile: int) -> tuple[int, int]:
        """Return the first row and the first column of a tile."""
        down, across = divmod(tile, self.level.tiles_across)
        return down * self.level.tile_shape[0], across * self.level.tile_shape[1]

    def _extent(self, tile: int) -> np.ndarray:
        """Return the rectangle of a tile."""
        (row, column), (rows, columns) = self._corner(tile), self.level.tile_shape
        return np.array([row, row + rows, column, column + columns])

    def _failed(self, report: Report, span: Span, error: BaseException) -> None:
        if not isinstance(error, AssetReadError):
            raise error
        report(self._extent(span.key[-1]), error)  # type: ignore[index]

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


def _grouped(spans: Iterable[Span]) -> list[list[Span]]:
    """Group spans into runs: a request fetches a run."""
    out: list[list[Span]] = []
    for span in spans:
        near = out and 0 <= span.start - out[-1][-1].stop <= _GAP_BYTES
        if near and span.stop - out[-1][0].start <= _LONGEST_RUN_BYTES:
            out[-1].append(span)
        else:
            out.append([span])
    return out


def _fetch_part(tiff: Tiff, access: Access, start: int, stop: int) -> memoryview:
    part = fetch(tiff.href, start, stop, access)
    if part.version != tiff.version:
        raise Changed(tiff.href)
    if len(part.data) != stop - start:
        raise read_error(tiff.href, f"ends at {part.whole_bytes}: it is shorter than its header says")
    return part.data
