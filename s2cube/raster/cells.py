"""Pack the mean and the valid share of each cell into four bytes.

A cell is an unsigned integer of 32 bits. It is 0 if the cell has no valid pixel. If valid pixels cover the whole cell,
the integer has the bits of their mean, a positive float32. If they cover only a part, the highest bit is set. The next
15 bits are the share, in 16380ths of the cell's area. The last 16 bits are the rounded mean.
"""

import numpy as np

CELLS = np.dtype("uint32")
"""dtype of an array of packed cells. Unpack it before any arithmetic."""

WHOLE = 0.999
"""A cell with at least this share is considered completely covered, because shares are rounded."""

_SHARE_UNITS = 16380
"""Less than 2 to the power of 14. It is a multiple of 4, 5, 7 and 9, because pixels of 10, 20 and 60 m cover
such fractions of cells."""

_PARTIAL_BIT = np.uint32(1 << 31)
_LARGEST_DN = 65535
_CELLS_AT_ONCE = 1 << 15


def pack(sums: np.ndarray) -> np.ndarray:
    """Pack sums into cells.

    Parameters
    ----------
    sums
        (rows, columns), complex64, as `_resample.sum_areas` computes it. Real part: sum of digital numbers, weighted by
        the share of the cell's area. Imaginary part: sum of these shares.

    Returns
    -------
    numpy.ndarray
        (rows, columns), `CELLS`.

    Raises
    ------
    ValueError
        If a mean is outside the range of 16-bit digital numbers.
    """
    cells = np.empty(sums.shape, CELLS)
    # Process a few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // sums.shape[1])
    for top in range(0, len(sums), rows):
        _pack_rows(sums[top : top + rows], cells[top : top + rows])
    return cells


def _pack_rows(sums: np.ndarray, out: np.ndarray) -> None:
    share, mean = sums.imag, out.view("float32")
    if all_whole := share.min() >= WHOLE:
        np.divide(sums.real, share, out=mean)
    else:
        some = share > 0
        mean[:] = 1
        np.divide(sums.real, share, out=mean, where=some)
    low, high = mean.min(), mean.max()
    if not 0 < low <= high <= _LARGEST_DN:
        raise ValueError(f"it contains {low if low <= 0 else high:g}, which is not a 16-bit digital number")
    if not all_whole:
        out *= some
        cut = some & (share < WHOLE)
        units = np.clip(np.rint(share[cut] * np.float32(_SHARE_UNITS)), 1, _SHARE_UNITS - 1).astype(CELLS)
        out[cut] = units << 16 | np.rint(mean[cut]).astype(CELLS) | _PARTIAL_BIT


def whole_means(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of cells, float32, and where they are valid: in completely covered cells. Means are a view."""
    return cells.view("float32"), cells.view("int32") > 0


def unpack(cells: np.ndarray) -> np.ndarray:
    """Return the sums that `pack` has packed, complex64. They are rounded where a cell is partly covered."""
    means, whole = whole_means(cells)
    partial = cells >= _PARTIAL_BIT
    share = np.where(partial, (cells >> 16 & 0x7FFF) / np.float32(_SHARE_UNITS), whole.astype("float32"))
    sums = np.empty(cells.shape, "complex64")
    sums.real, sums.imag = np.where(partial, (cells & 0xFFFF).astype("float32"), means) * share, share
    return sums
