"""Predict the cost of a task: exactly, from the headers of its files, or approximately, from the items."""

import math
import os
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.windows import Window

from s2cube.config.sections import JobConfig
from s2cube.cube.chunks import read_grid
from s2cube.cube.reads import Read, reads, with_cloud
from s2cube.fetch.cache import Span
from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.fetch.store import Access
from s2cube.fetch.traffic import Traffic
from s2cube.jobs._memory import PROCESS_BYTES, of_slice
from s2cube.jobs.results import Cost
from s2cube.raster.assumed import FULL_RESOLUTION_SHARE, assumed_levels
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import placement
from s2cube.raster.reader import AssetReader
from s2cube.raster.tiff import HEADER_BYTES
from s2cube.scenes.time_slice import Task


class _Grid(NamedTuple):
    """A grid in the form that `AssetReader` needs."""

    epsg: int
    transform: Affine
    shape: tuple[int, int]

    @classmethod
    def of(cls, geobox: GeoBox) -> Self:
        """Convert a grid. Its CRS has an EPSG code, because `grid.aoi_geobox` makes no other grids."""
        assert geobox.crs is not None
        assert geobox.crs.epsg is not None
        return cls(geobox.crs.epsg, geobox.affine, (geobox.shape.y, geobox.shape.x))


@dataclass
class Forecast:
    """Predict the cost of tasks, one after the other. A tile that an earlier task fetches is not counted again.

    Parameters
    ----------
    headers
        Read the headers of all files. Requests and bytes are then exact, unless a slice fails or is rejected.
    """

    config: JobConfig
    headers: bool
    _fetched: set[Hashable] = field(default_factory=set)
    _known_urls: set[str] = field(default_factory=set)

    def of(self, task: Task) -> Cost:
        """Predict the cost of a task.

        Raises
        ------
        SliceError
            If the items, or headers, show that the task will fail.
        """
        config = self.config.cube
        grid = read_grid(task.geobox, task.scenes, config.dilation_m)
        with_masks = config if self.config.job.max_aoi_cloud_percent is None else with_cloud(config)
        files = reads(task.scenes, grid, with_masks)
        readers = [self._reader(each) for each in files]
        with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
            runs_of_files = list(threads.map(_runs, readers, files))
        traffic = Traffic()
        for reader, runs in zip(readers, runs_of_files, strict=True):
            if reader.url not in self._known_urls:
                self._known_urls.add(reader.url)
                traffic += reader.access.usage.traffic if self.headers else Traffic(1, HEADER_BYTES)
            traffic = sum(map(self._count, runs or ()), traffic)
        threads_per_process = self.config.cluster.threads_on(os.cpu_count() or 1)
        cells, pixel_bytes = math.prod(grid.geobox.shape), np.dtype(config.dtype).itemsize
        return Cost(
            traffic,
            peak_bytes=PROCESS_BYTES + threads_per_process * of_slice(grid, config),
            output_bytes=math.ceil(cells * (len(config.bands) * pixel_bytes + 1) / FULL_RESOLUTION_SHARE),
            by_gdal=sum(runs is None for runs in runs_of_files),
        )

    def _reader(self, file: Read) -> AssetReader:
        read, spec = self.config.read, _Grid.of(file.geobox)
        access = Access(read.timeout_s, read.retries, read.tokens, read.stores)
        reader = AssetReader(
            url=file.asset.href, spec=spec, dtype=file.dtype, quality=self.config.cube.quality, access=access,
            declared={file.asset.href: (placement(file.scene, file.key),)},
        )  # fmt: skip
        if not self.headers:
            grid = Lattice(CRS.from_epsg(spec.epsg), spec.transform, *spec.shape)
            reader.assume(assumed_levels(file.scene, file.key, file.name, grid, access))
        return reader

    def _count(self, run: list[Span]) -> Traffic:
        """Count the requests and bytes of a run of tiles. Tiles that are already fetched are skipped: they split it."""
        parts: list[list[Span]] = [[]]
        for span in run:
            if span.key in self._fetched:
                parts.append([])
            else:
                parts[-1].append(span)
        self._fetched.update(span.key for span in run)
        sizes = [part[-1].stop - part[0].start for part in parts if part]
        return Traffic(len(sizes), sum(sizes))


def _runs(reader: AssetReader, file: Read) -> list[list[Span]] | None:
    """Return the runs of tiles that the chunks of a file need; None if GDAL reads the file."""
    found: list[list[Span]] = []
    for rows in pairwise(accumulate(file.chunks.rows, initial=0)):
        for columns in pairwise(accumulate(file.chunks.columns, initial=0)):
            runs = reader.runs(Window.from_slices(rows, columns))
            if runs is None:
                return None
            found += runs
    return found
