"""Keep the images of all days of a period until they are composed: in memory, or in a file if they are large."""

import math
import os
from collections.abc import Sequence
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

import numpy as np


class DayStack:
    """The packed images of several days on the same cells. Threads may put different days at the same time.

    Each tile of an archive is read once for a chunk of the grid and all its days. If the days of a chunk are larger
    than the memory, they are in a temporary file, which is read some cells at a time.

    Parameters
    ----------
    shape
        Number of days, bands and cells.
    dtype
        int16 or float32.
    most_bytes
        A larger stack is in a file.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: str, most_bytes: int) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        is_in_memory = stack_bytes(shape, dtype) <= most_bytes
        self._array = np.empty(shape if is_in_memory else (0, 0, 0), dtype)
        self._file: IO[bytes] | None = None if is_in_memory else TemporaryFile(prefix="s2cube-")  # noqa: SIM115

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._array.nbytes

    def put(self, day: int, values: np.ndarray, first: int = 0) -> None:
        """Keep some cells of one day.

        Parameters
        ----------
        values
            Dims (band, cell).
        first
            Position of the first of these cells.
        """
        if self._file is None:
            self._array[day, :, first : first + values.shape[1]] = values
            return
        _, bands, length = self._shape
        for band, row in enumerate(np.ascontiguousarray(values, self._dtype)):
            content, at = row.data.cast("B"), ((day * bands + band) * length + first) * self._dtype.itemsize
            while content:
                written = os.pwrite(self._file.fileno(), content, at)
                content, at = content[written:], at + written

    def part(self, days: Sequence[int], cells: slice) -> np.ndarray:
        """Return some cells of some days, dims (day, band, cell)."""
        if self._file is None:
            return self._array[list(days), :, cells]
        _, bands, length = self._shape
        start, stop, _ = cells.indices(length)
        found = np.empty((len(days), bands, stop - start), self._dtype)
        for number, day in enumerate(days):
            for band in range(bands):
                at = ((day * bands + band) * length + start) * self._dtype.itemsize
                row = found[number, band].data.cast("B")
                while row:
                    count = os.preadv(self._file.fileno(), [row], at)
                    if not count:
                        raise OSError(f"a temporary file of images ends at byte {at}")
                    row, at = row[count:], at + count
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def stack_bytes(shape: tuple[int, int, int], dtype: str) -> int:
    """Return the size of a stack, bytes."""
    return math.prod(shape) * np.dtype(dtype).itemsize


NO_DAYS = DayStack((0, 0, 0), "int16", 0)
"""A stack of no days."""
