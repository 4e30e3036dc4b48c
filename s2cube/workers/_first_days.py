"""Read the days of the method first until every cell is filled, by what the scene classification says."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from weakref import WeakKeyDictionary

import numpy as np

from s2cube.config.composites import Method
from s2cube.cube.block import Block, Pixels
from s2cube.cube.reads import Read
from s2cube.fetch.store import Access
from s2cube.kernels.mask import explain
from s2cube.products.composer import Composer
from s2cube.scenes.assets import layers_read
from s2cube.scenes.time_slice import Task
from s2cube.sentinel2 import QA
from s2cube.workers._block import masks_of
from s2cube.workers._composite_days import DayReading, read_stored
from s2cube.workers.composite_task import Unit
from s2cube.workers.memory import stack_in_memory

_CELLS_AT_ONCE = 1 << 18


class ClearDays:
    """The days on which the cells of a unit are clear: first by masks, then, for days that were read, by their bands.

    Parameters
    ----------
    days, cells
        Their numbers.
    """

    def __init__(self, days: int, cells: int) -> None:
        # One bit for each day and cell.
        self._bits = np.zeros(((days + 7) // 8, cells), "uint8")
        self._days, self._lock = days, threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._bits.nbytes

    def set(self, day: int, is_clear: np.ndarray) -> None:
        """Set one day, dims (cell)."""
        byte, bit = divmod(day, 8)
        with self._lock:
            row = self._bits[byte]
            row &= np.uint8(255 ^ (1 << bit))
            row |= is_clear.astype("uint8") << np.uint8(bit)

    def count(self) -> np.ndarray:
        """Return the number of clear days of each cell, uint16."""
        found = np.zeros(self._bits.shape[1], "uint16")
        for row in self._bits:
            found += np.bitwise_count(row)
        return found

    def needed(self, is_read: np.ndarray, method: Method) -> np.ndarray:
        """Return which days must be read, because a cell may have its first observations on them.

        Parameters
        ----------
        is_read
            Whether each day was read.
        """
        order = slice(None, None, -1) if method.is_least else slice(None)
        found: np.ndarray = np.zeros(self._days, bool)
        for start in range(0, self._bits.shape[1], _CELLS_AT_ONCE):
            packed = self._bits[:, start : start + _CELLS_AT_ONCE]
            bits: np.ndarray = np.unpackbits(packed, axis=0, count=self._days, bitorder="little")
            clear = bits.astype(bool)[order]
            is_first = np.logical_and(clear, clear.cumsum(0, dtype="uint16") <= method.min_count)
            found |= np.any(is_first, axis=1)[order]
        return np.asarray(found & ~is_read)


@dataclass(frozen=True)
class FirstDays:
    """What reading has found.

    Parameters
    ----------
    clear_days
        Number of days on which the masks call each cell of a unit clear, for each unit.
    estimated_bytes_saved
        Bytes of bands that were not read. The files that were not read may have other sizes than those that were.
    """

    clear_days: list[np.ndarray]
    estimated_bytes_saved: int


def read_first(units: Sequence[Unit], composer: Composer, access: Access) -> FirstDays:
    """Read the masks of all days, and the bands of those days that fill cells. The units receive images and errors.

    The masks are read from the archive, also of days whose images lie in the output, because images do not have them.
    """
    reading = _FirstReading(units, composer, access)
    reading.read_masks()
    counts = [reading.clear[id(unit)].count() for unit in units]
    before, days, tried = access.usage.traffic.bytes, 0, 0
    while tasks := reading.needed():
        read_stored(units, access, {task.id for task in tasks})
        of_archive = [task for task in tasks if task.id not in reading.owners[task.id].read]
        reading.read(of_archive)
        reading.update(tasks)
        days, tried = days + len(of_archive), tried + len(tasks)
    unread = sum(len(unit.days) for unit in units) - tried
    used = access.usage.traffic.bytes - before
    return FirstDays(counts, round(used / days * unread) if days else 0)


class _FirstReading(DayReading):
    """Reads masks, and then the days that they choose."""

    def __init__(self, units: Sequence[Unit], composer: Composer, access: Access) -> None:
        super().__init__(units, composer, access)
        self._units, self._lock = units, threading.Lock()
        self.clear = {id(unit): ClearDays(len(unit.days), int(np.count_nonzero(unit.area))) for unit in units}
        self._tried = set[str]()
        self._kept = WeakKeyDictionary[Pixels, Pixels]()
        self.held_bytes += sum(each.nbytes for each in self.clear.values())

    def read_masks(self) -> None:
        """Read the mask layers of all days."""
        self.read_files([task for unit in self._units for task in unit.tasks], self._layers_of, self._take_masks)

    def _layers_of(self, block: Block) -> list[Read]:
        return [each for each in block.files(block.tasks, self._composer.reading) if each.is_layer]

    def _take_masks(self, pixels: Pixels, task: Task) -> None:
        unit, cube = self.owners[task.id], self._composer.reading
        if error := pixels.error(task, layers_read(cube)):
            unit.errors[task.id] = error
            return
        found = []
        for strip in unit.strips:
            is_clear = explain(masks_of(replace(task, geobox=strip.geobox), pixels, cube, Pixels.cut)) == QA.CLEAR.value
            found.append(strip.inside(is_clear[np.newaxis])[0])
        self.clear[id(unit)].set(unit.positions[task.id], np.concatenate(found))
        with self._lock:
            self.layers[task.id] = self._keep(pixels)

    def _keep(self, pixels: Pixels) -> Pixels:
        """Keep mask layers of several days in memory, or in a file if they do not fit, so that they are read once."""
        if pixels not in self._kept:
            size = sum(each.nbytes for each in pixels.arrays.values())
            if self.held_bytes + size <= stack_in_memory():
                self.held_bytes += size
                self._kept[pixels] = pixels
            else:
                in_files = {key: _in_file(each) for key, each in pixels.arrays.items()}
                self._kept[pixels] = replace(pixels, arrays=in_files)
        return self._kept[pixels]

    def needed(self) -> list[Task]:
        """Return the days that must be read next."""
        found = []
        for unit in self._units:
            is_read = np.array([each.id in self._tried for each in unit.days], bool)
            days = self.clear[id(unit)].needed(is_read, self._composer.method)
            found += [task for task, is_needed in zip(unit.tasks, days, strict=True) if is_needed]
        return found

    def update(self, tasks: Sequence[Task]) -> None:
        """Replace what masks say about days that were read by what their bands say."""
        self._tried |= {task.id for task in tasks}
        for task in tasks:
            unit = self.owners[task.id]
            clear, day = self.clear[id(unit)], unit.positions[task.id]
            if task.id not in unit.read:
                clear.set(day, np.zeros(int(np.count_nonzero(unit.area)), bool))
                continue
            observed = self._composer.is_observed(unit.stack.part([day], slice(None))[0])
            clear.set(day, observed)


def _in_file(values: np.ndarray) -> np.ndarray:
    """Move an array to a temporary file. The system removes the file with the array."""
    # A full disk is an error here. If the file grew only when it is mapped, it would end the process.
    with TemporaryFile(prefix="s2cube-") as file:
        values.tofile(file)
        file.flush()
        return np.memmap(file, values.dtype, "r", shape=values.shape)
