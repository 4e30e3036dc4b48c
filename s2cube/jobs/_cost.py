"""Predict the cost of batches: exactly, from the headers of their files, or approximately, from the items."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple, Self

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.windows import Window

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.cube.block import Block
from s2cube.cube.chunks import read_grid
from s2cube.cube.reads import Read, reads, with_cloud
from s2cube.errors import SliceError
from s2cube.fetch.cache import Span
from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.fetch.store import Access
from s2cube.fetch.traffic import Traffic
from s2cube.fields.patches import FieldTask
from s2cube.jobs._sharing import NeededFile, Sharing
from s2cube.jobs.results import Cost
from s2cube.raster.assumed import FULL_RESOLUTION_SHARE, assumed_levels, declared_bytes
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import placement
from s2cube.raster.reader import AssetReader
from s2cube.raster.tiff import HEADER_BYTES
from s2cube.scenes.time_slice import Task
from s2cube.tables.rows import value_columns
from s2cube.workers.batches import Batch, day_of, is_small
from s2cube.workers.memory import PROCESS_BYTES, day_blocks, of_block, of_task

_ROW_BYTES, _VALUE_BYTES = 180, 4
"""Size of a row of statistics without its statistics, and of a statistic, in memory. Measured with an id of 4 letters
and two scenes. Files are compressed, so they are smaller."""


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
    """Predict the cost of batches, one after the other. A tile that an earlier batch fetches is not counted again.

    Parameters
    ----------
    headers
        Read the headers of all files. Requests and bytes are then exact if no file is needed by two batches, or if one
        process computes them, unless a slice fails or is rejected.
    """

    config: JobConfig
    headers: bool
    _sharing: Sharing = field(default_factory=Sharing)

    def of(self, batch: Batch) -> dict[str, Cost | SliceError]:
        """Predict the cost of each slice of a batch, by id; or the error with which it will fail.

        Slices of a day that are read together share their traffic: it is in the cost of the first one.
        """
        costs: dict[str, Cost | SliceError] = {}
        for _, tasks in groupby(batch.tasks, day_of):
            of_day = list(tasks)
            for block in day_blocks([task for task in of_day if is_small(task.geobox)], self.config.cube):
                costs |= self._of_block(block)
            costs |= {task.id: self._of_large(task) for task in of_day if not is_small(task.geobox)}
        return costs

    def _of_block(self, block: Block) -> dict[str, Cost | SliceError]:
        """Predict the cost of the slices of one day."""
        try:
            files = block.files(block.tasks, self._with_masks)
            parts = {
                kind: block.parts(block.tasks, [each for each in files if each.is_layer == kind])
                for kind in (True, False)
            }
            readers = [self._reader(each, parts[each.is_layer][each.asset.href]) for each in files]
            traffic, shared_with, by_gdal = self._add(block.tasks[0].id, files, readers)
        except SliceError as error:
            if len(block.tasks) == 1:
                return {block.tasks[0].id: error}
            return {
                slice_id: cost
                for task in block.tasks
                for slice_id, cost in self._of_block(replace(block, tasks=(task,))).items()
            }
        peak_bytes = PROCESS_BYTES + self._threads * of_block(block.grid, self.config.cube)
        first, *others = block.tasks
        costs: dict[str, Cost | SliceError] = {}
        costs[first.id] = Cost(traffic, peak_bytes, self._output_bytes(first), by_gdal, shared_with)
        for task in others:
            costs[task.id] = Cost(Traffic(), peak_bytes, self._output_bytes(task), 0, (first.id,))
        return costs

    def _of_large(self, task: Task) -> Cost | SliceError:
        try:
            grid = read_grid(task.geobox, task.scenes, self.config.cube.dilation_m)
            files = reads(task.scenes, grid, self._with_masks)
            traffic, shared_with, by_gdal = self._add(task.id, files, [self._reader(each) for each in files])
        except SliceError as error:
            return error
        peak_bytes = PROCESS_BYTES + self._threads * of_task(task, grid, self.config.cube)
        return Cost(traffic, peak_bytes, self._output_bytes(task), by_gdal, shared_with)

    def at_most(self, processes: int) -> Traffic:
        """Predict the maximum for all batches so far, if several processes compute them. Each has its own cache."""
        return self._sharing.at_most(processes)

    @property
    def tiles(self) -> int:
        """Number of tiles of all batches so far, each counted once."""
        return self._sharing.tiles

    @cached_property
    def _with_masks(self) -> CubeSection:
        config = self.config.cube
        return config if self.config.job.max_aoi_cloud_percent is None else with_cloud(config)

    @cached_property
    def _threads(self) -> int:
        return self.config.cluster.threads_on(os.cpu_count() or 1)

    def _output_bytes(self, task: Task) -> int:
        rows_bytes, image = 0, task
        if isinstance(task, FieldTask):
            rows_bytes = len(task.fields) * (_ROW_BYTES + _VALUE_BYTES * len(value_columns(self.config)))
            if task.image_task is None:
                return rows_bytes
            image = task.image_task
        config, cells = self.config.cube, math.prod(image.geobox.shape)
        pixel_bytes = np.dtype(config.dtype).itemsize
        return rows_bytes + math.ceil(cells * (len(config.image_bands) * pixel_bytes + 1) / FULL_RESOLUTION_SHARE)

    def _add(
        self, slice_id: str, files: Sequence[Read], readers: Sequence[AssetReader]
    ) -> tuple[Traffic, tuple[str, ...], int]:
        """Add the files of slices that are read together; return traffic, shared slices, files that GDAL reads."""
        if self.headers:
            with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
                runs_of_files = list(threads.map(_runs, readers, files))
        else:
            runs_of_files = list(map(_runs, readers, files))
        needed = (
            NeededFile(reader.url, self._header(reader, file), runs or [])
            for reader, file, runs in zip(readers, files, runs_of_files, strict=True)
        )
        traffic, shared_with = self._sharing.add(slice_id, needed)
        return traffic, shared_with, sum(runs is None for runs in runs_of_files)

    def _header(self, reader: AssetReader, file: Read) -> Traffic:
        if self.headers:
            return reader.access.usage.traffic
        return Traffic(1, min(HEADER_BYTES, declared_bytes(file.asset) or HEADER_BYTES))

    def _reader(self, file: Read, parts: tuple[Window, ...] = ()) -> AssetReader:
        read, spec = self.config.read, _Grid.of(file.geobox)
        access = Access(read.timeout_s, read.retries, read.tokens, read.stores)
        reader = AssetReader(
            url=file.asset.href, spec=spec, dtype=file.dtype, quality=self.config.cube.quality, access=access,
            declared={file.asset.href: (placement(file.scene, file.key),)}, parts=parts,
        )  # fmt: skip
        if not self.headers:
            grid = Lattice(CRS.from_epsg(spec.epsg), spec.transform, *spec.shape)
            reader.assume(assumed_levels(file.scene, file.key, file.name, grid, access))
        return reader


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
