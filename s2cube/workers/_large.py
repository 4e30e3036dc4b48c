"""Compute one slice of an area of any size, chunk by chunk."""

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import dask.array as da
import numpy as np
from dask import threaded

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.cube.chunks import ReadGrid
from s2cube.cube.cut import inside_chunks, labelled
from s2cube.cube.facts import slice_facts
from s2cube.cube.images import images, means_of, reasons, screened
from s2cube.cube.offset_check import OffsetCheck
from s2cube.cube.open_cube import offsets_dn
from s2cube.cube.reads import Read, reads, with_cloud
from s2cube.cube.stack import read_bands
from s2cube.cube.tap import Observers, Tap
from s2cube.fetch.store import Access
from s2cube.fields.patches import FieldTask
from s2cube.kernels.indices import BeyondInt16
from s2cube.output.files import write_files
from s2cube.scenes.assets import bands_read
from s2cube.scenes.time_slice import Task
from s2cube.sentinel2 import QA, cloud_percent
from s2cube.storage.output import Output
from s2cube.workers._fields import PatchImage, rows_of
from s2cube.workers.delivery import deliver
from s2cube.workers.results import SliceResult, Written, rejection

_MAX_KEPT_CELLS = 10 << 20
"""Maximum number of cells of masks that stay in memory, at some 6 bytes, if they are computed before bands are read.
Larger masks are computed twice, from tiles that may still be in the cache."""


@dataclass(frozen=True)
class LargeSlice:
    """Computes and writes the slice of a task chunk by chunk, because its area may be larger than the memory.

    Parameters
    ----------
    readers
        Number of threads that read and compute.
    """

    task: Task
    config: JobConfig
    grid: ReadGrid
    access: Access
    readers: int

    def run(self, output: Output | None) -> SliceResult:
        """Read, compute and write the slice. Without an output, return the content of its files."""
        files = reads(self.task.scenes, self.grid, self.config.cube)
        masks = self._masks(files, self.config.cube)
        limit = self.config.job.max_aoi_cloud_percent
        if limit is not None:
            cloud_config = with_cloud(self.config.cube)
            cloud_masks = masks
            if cloud_config != self.config.cube:
                cloud_masks = self._masks(reads(self.task.scenes, self.grid, cloud_config), cloud_config)
            elif math.prod(self.grid.geobox.shape) * len(self.task.scenes) <= _MAX_KEPT_CELLS:
                # Compute the masks once, for the rejection and for the image.
                masks = cloud_masks = masks.persist(scheduler=threaded.get, num_workers=self.readers)
            judged = self._judged(cloud_masks, limit)
            if judged.rejected:
                return judged
        if not isinstance(self.task, FieldTask):
            return deliver(partial(self._write, files, masks, None), self.task.aoi.id, self.task.id, output)
        tap = Tap(len(bands_read(self.config.cube)), self.grid.chunks)
        if self.task.image:
            result = deliver(partial(self._write, files, masks, tap), self.task.aoi.id, self.task.id, output)
        else:
            result = SliceResult(self.task.id)
            self._compute(files, masks, tap)
        return replace(result, rows=rows_of(self.task, PatchImage(tap.bands, tap.reasons), self.config, {}))

    def _compute(self, files: list[Read], masks: da.Array, tap: Tap) -> None:
        """Compute the pixels, without an image."""
        dn = read_bands(files, self.config.cube.quality, self.access)
        assert dn is not None, "statistics need a band"
        found = means_of(dn, masks, [offsets_dn(self.task.scenes, self.config.cube)], tap)
        # The tap keeps the chunks. The result would be a copy.
        nothing = da.map_blocks(_forget, found, chunks=tuple((1,) * count for count in found.numblocks), dtype=bool)
        nothing.compute(scheduler=threaded.get, num_workers=self.readers)

    def _masks(self, files: list[Read], config: CubeSection) -> da.Array:

        return screened([files], [self.grid], config, self.access)

    @cached_property
    def _inside(self) -> da.Array:

        chunks = self.grid.chunks
        return inside_chunks(self.task.geobox, self.task.aoi.geometry, (chunks.rows, chunks.columns))

    def _judged(self, masks: da.Array, limit_percent: float) -> SliceResult:
        found = reasons(masks, self._inside)
        counts = da.stack([(found == each.value).sum() for each in QA])
        return judge(self.task.id, counts.compute(scheduler=threaded.get, num_workers=self.readers), limit_percent)

    def _write(self, files: list[Read], masks: da.Array, tap: Tap | None, folder: Path) -> Written:
        """Write the files of the image."""
        task, config = self.task, self.config.cube
        dn = read_bands(files, config.quality, self.access)
        offsets = offsets_dn(task.scenes, config)
        beyond = BeyondInt16()
        values = images(dn, masks, self._inside, [offsets], config, Observers(beyond, tap))
        image = labelled(values, reasons(masks, self._inside), config.image_bands, task.geobox, [task.slice.time])[0]
        check = None if dn is None else OffsetCheck(dn, masks, offsets, bands_read(config))
        facts = slice_facts(task, config)
        doubtful = write_files(image, facts, folder, self.config.output, self.readers, check)
        return Written(doubtful, beyond.cells)


def _forget(chunk: np.ndarray) -> np.ndarray:
    return np.zeros((1,) * chunk.ndim, bool)


def judge(slice_id: str, counts: np.ndarray, limit_percent: float) -> SliceResult:
    """Return the result of a slice that is rejected, or a result without content.

    Parameters
    ----------
    counts
        Number of cells of each value of `QA`, by masks only.
    """
    cloud = cloud_percent(counts)
    return SliceResult(slice_id, rejected=rejection(cloud, limit_percent), cloud_percent=cloud)
