"""The median and the mean of the observations of each cell."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

_CHUNK_VALUES = 1 << 19
"""Values that are sorted at a time, so that they stay in the cache of a core."""


def median(values: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
    """Return the median of the valid values of each cell.

    A network of comparisons sorts all cells at once, because numpy's sort of short rows takes twice as long.

    Parameters
    ----------
    values
        Dims (time, cell), int16 or float32.
    is_valid
        The same dims.

    Returns
    -------
    ndarray
        Dims (cell,), float32. The mean of the two middle values of an even number; NaN where no value is valid.
    """
    found = np.empty(values.shape[1], "float32")
    size = max(1, _CHUNK_VALUES // len(values))
    for start in range(0, found.size, size):
        part = slice(start, start + size)
        found[part] = _of_chunk(values[:, part], is_valid[:, part])
    return found


def mean(values: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
    """Return the mean of the valid values of each cell, float64. NaN where no value is valid. As `median`."""
    total = np.where(is_valid, values, values.dtype.type(0)).sum(0, dtype="float64")
    count = is_valid.sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _of_chunk(values: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
    kind = values.dtype
    # Values that are not valid get the greatest value, so that they are at the end.
    greatest = np.inf if kind.kind == "f" else np.iinfo(kind).max
    rows = np.empty((len(values) + 1, values.shape[1]), kind)
    rows[:-1] = np.where(is_valid, values, kind.type(greatest))
    place, spare = list(range(len(values))), len(values)
    for low, high in _network(len(values)):
        one, other = rows[place[low]], rows[place[high]]
        np.minimum(one, other, out=rows[spare])
        np.maximum(one, other, out=other)
        place[low], spare = spare, place[low]
    count, order, cell = is_valid.sum(0), np.array(place), np.arange(values.shape[1])
    lower = rows[order[np.maximum(count - 1, 0) // 2], cell].astype("float32")
    upper = rows[order[np.minimum(count // 2, len(values) - 1)], cell].astype("float32")
    return np.where(count, (lower + upper) / np.float32(2), np.float32(np.nan))


@lru_cache(maxsize=64)
def _network(size: int) -> tuple[tuple[int, int], ...]:
    """Return the comparisons of Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2M)."""
    return tuple(_merge_exchange(size))


def _merge_exchange(size: int) -> Iterator[tuple[int, int]]:
    block = 1
    while block < size:
        step = block
        while step:
            for start in range(step % block, size - step, 2 * step):
                for low in range(start, min(start + step, size - step)):
                    if low // (2 * block) == (low + step) // (2 * block):
                        yield low, low + step
            step //= 2
        block *= 2
