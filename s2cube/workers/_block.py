"""Compute slices of small areas that are close to each other. Each tile is read once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.cube.block import Block, Pixels, read_block
from s2cube.cube.cut import ComputedImage, inside
from s2cube.cube.facts import slice_facts
from s2cube.cube.open_cube import offsets_dn
from s2cube.cube.reads import with_cloud
from s2cube.errors import SliceError
from s2cube.fetch.store import Access
from s2cube.fields.patches import FieldTask
from s2cube.kernels.indices import BeyondInt16, beyond_int16, index_values, pack_index
from s2cube.kernels.mask import Screened, explain, no_screen, screen
from s2cube.kernels.mosaic import means, mosaic, pack, reflectance, with_classes
from s2cube.kernels.offset_check import count_dark, doubtful
from s2cube.kernels.packing import PACKINGS
from s2cube.output.files import write_computed
from s2cube.scenes.assets import bands_read, layers_read
from s2cube.scenes.time_slice import Task
from s2cube.sentinel2 import QA, count_classes, reflectance_bands
from s2cube.storage.output import Output
from s2cube.workers._fields import PatchImage, rows_of
from s2cube.workers._large import judge
from s2cube.workers.delivery import deliver
from s2cube.workers.results import SliceResult, Written, attempt, failures_of

_WRITERS = 2
"""Number of threads that write the images of a block. They mainly wait until files are on the disk. Rows of statistics
are in memory: a second thread would only take a core from the threads of another block."""


@dataclass(frozen=True, eq=False)
class BlockComputation:
    """Computes and writes the slices of small areas.

    Parameters
    ----------
    output
        None: the results contain the files.
    """

    config: JobConfig
    output: Output | None

    def results(self, block: Block, access: Access, readers: int) -> Iterator[SliceResult]:
        """Read the files of all slices of a block, then compute and write one slice after the other.

        Parameters
        ----------
        readers
            Number of threads that read.

        Raises
        ------
        SceneError
            If a scene has no geometry or two projections.
        """
        cube, limit = self.config.cube, self.config.job.max_aoi_cloud_percent
        tasks: Sequence[Task] = block.tasks
        files, layers = block.files(tasks, cube), None
        if limit is not None:
            # Cloudy slices are rejected before their bands are read.
            with_masks = with_cloud(cube)
            of_masks = [each for each in block.files(tasks, with_masks) if each.is_layer]
            layers = read_block(block, tasks, of_masks, cube.quality, access, readers)
            judged = [attempt(task, partial(self._judged, task, layers, with_masks, limit)) for task in tasks]
            yield from (each for each in judged if each.failure or each.rejected)
            tasks = [task for task, each in zip(tasks, judged, strict=True) if not each.failure and not each.rejected]
            files = [each for each in block.files(tasks, cube) if not each.is_layer]
        pixels = read_block(block, tasks, files, cube.quality, access, readers)
        has_images = any(not isinstance(task, FieldTask) or task.image for task in tasks)
        with ThreadPoolExecutor(_WRITERS if has_images else 1) as threads:
            yield from threads.map(partial(self._written, layers or pixels, pixels), tasks)

    def _written(self, layers: Pixels, pixels: Pixels, task: Task) -> SliceResult:
        if isinstance(task, FieldTask):
            return attempt(task, partial(self._with_rows, task, layers, pixels))
        write = partial(self._write_pixels, task, layers, pixels)
        return attempt(task, partial(deliver, write, task.aoi.id, task.id, self.output))

    def _with_rows(self, task: FieldTask, layers: Pixels, pixels: Pixels) -> SliceResult:
        """Compute the statistics of fields. A field under a tile that cannot be read fails, and no other."""
        cube, errors = self.config.cube, _errors_of_fields(task, layers, pixels, self.config.cube)
        if len(errors) == len(task.fields):
            raise errors[0]
        masks, offsets = masks_of(task, layers, cube, Pixels.cut), offsets_dn(task.scenes, cube)
        dn = pixels.cut(task, bands_read(cube))
        bands = reflectance(means(dn, masks, offsets))
        found = rows_of(task, PatchImage(bands, explain(masks)), self.config, errors)
        image = task.image_task
        if image is None:
            return SliceResult(task.id, rows=found, failures=failures_of(task, errors))
        rows, columns = (slice(each.start, each.stop) for each in task.geobox.overlap_roi(image.geobox))
        write = partial(self._write, image, dn[:, :, rows, columns], masks.part(rows, columns))
        return replace(deliver(write, task.aoi.id, task.id, self.output), rows=found)

    def _judged(self, task: Task, layers: Pixels, config: CubeSection, limit_percent: float) -> SliceResult:
        """Return the result of a slice that is rejected, or a result without content."""
        task = task.image_task or task if isinstance(task, FieldTask) else task
        reasons = explain(masks_of(task, layers, config))
        counts = count_classes(np.where(inside(task.geobox, task.aoi.geometry), reasons, np.uint8(QA.OUTSIDE)))
        return judge(task.id, counts, limit_percent)

    def _write_pixels(self, task: Task, layers: Pixels, pixels: Pixels, folder: Path) -> Written:
        bands = bands_read(self.config.cube)
        dn = pixels.of(task, bands) if bands else None
        return self._write(task, dn, masks_of(task, layers, self.config.cube), folder)

    def _write(self, task: Task, dn: np.ndarray | None, masks: Screened, folder: Path) -> Written:
        """Write the files of an image.

        Parameters
        ----------
        dn
            Dims (scene, band, y, x), from `Pixels.of`; None if there are only bands of classes.
        """
        cube = self.config.cube
        offsets, bands = offsets_dn(task.scenes, cube), bands_read(cube)
        area = inside(task.geobox, task.aoi.geometry)
        beyond = BeyondInt16()
        values = packed_image(dn, masks, offsets, area, cube, beyond)
        packing = PACKINGS[cube.dtype]
        values = np.where(area, values, np.array(packing.nodata, cube.dtype))
        reasons = np.where(area, explain(masks), np.uint8(QA.OUTSIDE))
        doubts = [] if dn is None else doubtful(count_dark(dn, masks, offsets), offsets, bands)
        facts = slice_facts(task, cube)
        names = tuple(compress(facts.scenes, doubts))
        image = ComputedImage(values, reasons, cube.image_bands, task.geobox, task.slice.time, packing)
        write_computed(image, facts, folder, self.config.output, names)
        return Written(names, beyond.cells)


def packed_image(
    dn: np.ndarray | None, masks: Screened, offsets: np.ndarray, area: np.ndarray, config: CubeSection,
    beyond: BeyondInt16,
) -> np.ndarray:  # fmt: skip
    """Compute the bands and indices of an image, packed but not clipped: dims (band, y, x).

    Parameters
    ----------
    dn
        Dims (scene, band, y, x), from `Pixels.of`; None if there are only bands of classes.
    offsets
        Offset that is added to the digital numbers of each scene.
    area, beyond
        Cells of the area of interest; receives the number of those that int16 cannot store.
    """
    if not config.indices:
        return mosaic(dn, masks, offsets, config.bands, config.dtype)
    assert dn is not None, "every index needs a band"
    return _with_indices(means(dn, masks, offsets), masks, area, config, beyond)


def _with_indices(
    found: np.ndarray, masks: Screened, area: np.ndarray, config: CubeSection, beyond: BeyondInt16
) -> np.ndarray:
    """Return bands and indices of an image.

    Parameters
    ----------
    found
        From `means`, dims (band, y, x), of all bands that are read.
    area
        Cells of the area of interest. Other cells are not counted.
    beyond
        Receives the number of cells that int16 cannot store.
    """
    written = len(reflectance_bands(config.bands))
    bands = with_classes(pack(found[:written], config.dtype), masks, config.bands, config.dtype)
    indices = index_values(reflectance(found), bands_read(config), config.indices)
    if config.dtype == "int16":
        for name, values in zip(config.indices, indices, strict=True):
            beyond.add(name, (), int(np.count_nonzero(beyond_int16(values) & area)))
    return np.concatenate([bands, pack_index(indices, config.dtype)])


def masks_of(
    task: Task,
    layers: Pixels,
    config: CubeSection,
    cut: Callable[[Pixels, Task, Sequence[str]], np.ndarray] = Pixels.of,
) -> Screened:
    """Return the masks of a slice.

    Parameters
    ----------
    layers
        Mask layers of the block of the slice.
    cut
        Cuts them to the grid of the slice.
    """
    names = layers_read(config)
    if not names:
        return no_screen(len(task.scenes), (task.geobox.shape.y, task.geobox.shape.x))
    return screen({name: cut(layers, task, [name])[:, 0] for name in names}, layers.steps(task), config)


def _errors_of_fields(task: FieldTask, layers: Pixels, pixels: Pixels, config: CubeSection) -> dict[int, SliceError]:
    """Return why fields cannot be computed, by their positions."""
    needed = [(layers, layers_read(config)), (pixels, bands_read(config))]
    if not any(source.error(task, names) for source, names in needed):
        return {}
    found = {}
    for position, part in enumerate(task.windows()):
        errors = filter(None, (source.error(task, names, part) for source, names in needed))
        if error := next(errors, None):
            found[position] = error
    return found
