"""Read the days of composites, and compose them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Self

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from s2cube.config.composites import DAY_METHODS
from s2cube.cube.block import Block, Pixels, read_block
from s2cube.cube.open_cube import offsets_dn
from s2cube.cube.reads import Read
from s2cube.errors import SliceError, safe_text
from s2cube.fetch.store import Access
from s2cube.inventory.stored_image import check_content, read_pixels
from s2cube.kernels.indices import BeyondInt16
from s2cube.kernels.offset_check import count_dark
from s2cube.kernels.packing import PACKINGS
from s2cube.products.composer import Composer
from s2cube.products.day_stack import DayStack
from s2cube.scenes.assets import bands_read, layers_read
from s2cube.scenes.time_slice import Task, TimeSlice
from s2cube.workers._block import masks_of, packed_image
from s2cube.workers.composite_task import CompositeTask, Unit
from s2cube.workers.memory import BLOCK_READERS, blocks, of_block, share, stack_in_memory

_THREADS = 2
"""Number of threads that compute the days of a block, and compose cells."""

_BLOCKS_AT_ONCE = 2
"""Number of blocks of days that are in memory at the same time: while one waits for a server, another one is
computed."""

_READERS_BYTES = 256 << 20
"""Memory of the threads that read a block, if there are more than two. A large block needs fewer threads, because each
reads many tiles at a time."""

_STRIP_BYTES = 8 << 20
"""Size of the part of a stack that one thread composes at a time. Its arrays in float64 are several times as large."""


def read_units(units: Sequence[Unit], composer: Composer, access: Access) -> None:
    """Read all days of units that are close to each other, each tile once. The units receive images and errors."""
    read_stored(units, access, {task.id for unit in units for task in unit.tasks})
    reading = DayReading(units, composer, access)
    reading.read([task for unit in units for task in unit.tasks if task.id not in unit.read])


def read_stored(units: Sequence[Unit], access: Access, days: Collection[str]) -> None:
    """Read daily images that lie in the output, of some days. An image that cannot be read is named in its unit.

    Parameters
    ----------
    days
        Ids of slices.
    """
    todo = [(unit, day) for unit in units for day in unit.task.stored if day in days and day in unit.positions]
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(partial(_read_image, access), todo):
            pass  # raises the error of a thread


def _read_image(access: Access, place: tuple[Unit, str]) -> None:
    unit, day = place
    window = Window.from_slices(*unit.task.geobox.overlap_roi(unit.geobox))
    image = replace(unit.task.stored[day], access=access)
    try:
        check_content(image)
        values = read_pixels(image, window, image.dtype)[0]
    except SliceError as error:
        unit.damaged[day] = f"{safe_text(image.href)} {error.problem}"
        return
    for strip in unit.strips:
        unit.stack.put(unit.positions[day], strip.inside(values[:, strip.rows]), strip.first)
    unit.read.add(day)


class DayReading:
    """Reads days of units that are close to each other.

    Parameters
    ----------
    layers
        Mask layers that are read already, by the ids of slices; empty if they are read together with the bands.
    """

    def __init__(self, units: Sequence[Unit], composer: Composer, access: Access) -> None:
        self.owners = {task.id: unit for unit in units for task in unit.tasks}
        self.layers: dict[str, Pixels] = {}
        self.held_bytes = sum(unit.stack.nbytes for unit in units)
        self._composer, self._access = composer, access

    def read(self, tasks: Sequence[Task]) -> None:
        """Read days. The units receive the images, and errors of files."""
        self.read_files(tasks, self._files, self._take)

    def read_files(
        self, tasks: Sequence[Task], files: Callable[[Block], list[Read]], take: Callable[[Pixels, Task], None]
    ) -> None:
        """Read files of days, in blocks that fit into memory, and take each day.

        Parameters
        ----------
        files
            Returns the files of a block that are read.
        take
            Takes the pixels of a day. Threads call it.
        """
        with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as threads:
            for _ in threads.map(lambda block: self._read_block(block, files, take), self.blocks(tasks)):
                pass  # raises the error of a thread

    def blocks(self, tasks: Sequence[Task]) -> Iterator[Block]:
        """Divide days into blocks that fit into memory."""
        daily = sorted(tasks, key=lambda task: (task.id.removeprefix(f"{task.aoi.id}_"), task.id))
        return blocks(daily, self._composer.reading, _BLOCKS_AT_ONCE)

    def _read_block(
        self, block: Block, files: Callable[[Block], list[Read]], take: Callable[[Pixels, Task], None]
    ) -> None:
        """Read files of a block, and take each day; if it cannot be read as a whole, each day by itself."""
        cube = self._composer.reading

        def needed(readers: int) -> int:
            return of_block(block.grid, cube, readers) + self.held_bytes

        most = max(2, min(BLOCK_READERS, _READERS_BYTES // (needed(2) - needed(1))))
        try:
            with share(needed, most) as readers:
                pixels = read_block(block, block.tasks, files(block), cube.quality, self._access, readers)
                with ThreadPoolExecutor(_THREADS) as threads:
                    for _ in threads.map(partial(take, pixels), block.tasks):
                        pass  # raises the error of a thread
        except SliceError as error:
            if len(block.tasks) == 1:
                self.owners[block.tasks[0].id].errors[block.tasks[0].id] = error
                return
            for task in block.tasks:
                self._read_block(replace(block, tasks=(task,)), files, take)

    def _files(self, block: Block) -> list[Read]:
        found = block.files(block.tasks, self._composer.reading)
        has_layers = all(task.id in self.layers for task in block.tasks)
        return [each for each in found if not each.is_layer] if has_layers else found

    def _take(self, pixels: Pixels, task: Task) -> None:
        """Compute the image of a day, and give it to its unit."""
        unit, cube, layers = self.owners[task.id], self._composer.reading, self.layers.get(task.id, pixels)
        bands = bands_read(cube)
        if error := layers.error(task, layers_read(cube)) or pixels.error(task, bands):
            unit.errors[task.id] = error
            return
        offsets, day = offsets_dn(task.scenes, cube), unit.positions[task.id]
        beyond, dark = Counter[str](), list[np.ndarray]()
        for strip in unit.strips:
            part, beyond_here = replace(task, geobox=strip.geobox), BeyondInt16()
            masks = masks_of(part, layers, cube, Pixels.cut)
            dn = pixels.cut(part, bands) if bands else None
            values = packed_image(dn, masks, offsets, strip.area, cube, beyond_here)
            unit.stack.put(day, strip.inside(values), strip.first)
            beyond.update(beyond_here.cells)
            if dn is not None:
                dark.append(count_dark(dn, masks, offsets))
        unit.read.add(task.id)
        if not self._composer.has_own_indices:
            unit.beyond[task.id] = dict(beyond)
        if dark:
            unit.dark[task.id] = np.sum(dark, axis=0)


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a composite on its whole grid.

    Parameters
    ----------
    values
        Dims (band, y, x), packed.
    count, date
        See `products.compose.Composite`.
    """

    values: np.ndarray
    count: np.ndarray
    date: np.ndarray | None

    @classmethod
    def empty(cls, shape: tuple[int, int], composer: Composer) -> Self:
        """Return layers without any observation."""
        dtype, bands = composer.cube.dtype, len(composer.cube.image_bands)
        has_date = composer.method.name in DAY_METHODS
        return cls(
            np.full((bands, *shape), PACKINGS[dtype].nodata, dtype),
            np.zeros(shape, "uint16"),
            np.zeros(shape, "uint16") if has_date else None,
        )

    def part(self, rows: slice, columns: slice) -> "Layers":
        """Return a view of some cells."""
        of_days = None if self.date is None else self.date[rows, columns]
        return Layers(self.values[:, rows, columns], self.count[rows, columns], of_days)

    def fill(self, unit: Unit, composer: Composer, clear_days: np.ndarray | None = None) -> None:
        """Compose the days of a unit that were read. The layers have its grid.

        Parameters
        ----------
        clear_days
            Number of days on which the masks call each cell of the area clear, if not all days were read. It is the
            count of cells that have a value.
        """
        chosen = [at for at, each in enumerate(unit.days) if each.id in unit.read and each.id not in unit.errors]
        days = [day_of_slice(unit.task, unit.days[at]) for at in chosen]
        cells = int(np.count_nonzero(unit.area))
        if not chosen or not cells:
            return
        itemsize = np.dtype(composer.cube.dtype).itemsize
        size = max(1, _STRIP_BYTES // (itemsize * len(chosen) * len(composer.reading.image_bands)))
        strips = [slice(start, min(start + size, cells)) for start in range(0, cells, size)]
        flat = Layers.empty((1, cells), composer)

        beyond = BeyondInt16()

        def compute(strip: slice) -> None:
            made = composer.compose(unit.stack.part(chosen, strip), days, beyond, strip.start)
            part = flat.part(slice(None), strip)
            part.values[:] = made.values
            part.count[:] = made.count
            if part.date is not None and made.date is not None:
                part.date[:] = made.date

        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(compute, strips):
                pass  # raises the error of a thread
        unit.beyond[unit.task.id] = beyond.cells
        if clear_days is not None:
            is_filled = flat.count[0] >= composer.method.min_count
            np.copyto(flat.count[0], np.maximum(flat.count[0], clear_days), where=is_filled)
        self.values[:, unit.area] = flat.values[:, 0]
        self.count[unit.area] = flat.count[0]
        if self.date is not None and flat.date is not None:
            self.date[unit.area] = flat.date[0]


def day_of_slice(task: CompositeTask, day: TimeSlice) -> date:
    """Return the solar day of a slice of a composite."""
    return date.fromisoformat(task.label(day.id)[:8])


def make_units(
    parts: Sequence[tuple[CompositeTask, GeoBox, np.ndarray]],
    without: Mapping[str, SliceError],
    composer: Composer,
    opened: ExitStack,
) -> list[Unit]:
    """Make the units of parts of areas: their grids, and their cells inside the areas.

    Parameters
    ----------
    without
        Days that are not read, by the ids of their slices.
    opened
        Closes the files of the units.
    """
    units = []
    for task, geobox, area in parts:
        days = tuple(each for each in task.days if each.id not in without)
        shape = (len(days), len(composer.reading.image_bands), int(np.count_nonzero(area)))
        stack = opened.enter_context(DayStack(shape, composer.cube.dtype, stack_in_memory()))
        units.append(Unit(task, geobox, area, days, stack))
    return units
