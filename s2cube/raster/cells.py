"""Cells of a grid as readers give them: the mean of a whole one, or how much of a cut one there is, in four bytes.

A cell is a float32. It is 0 where no valid pixel is in it, and the mean of its digital numbers, 1 to 65535, where valid
pixels cover it whole. Where they cover a part it is negative, and its bits tell: 1, then fifteen for the part, in
16380ths of its area, and sixteen for the mean, rounded. Neither is ever so great that the whole is no number.
"""

import numpy as np

WHOLE = 0.999
"""Share of a cell from which on it counts as seen whole: what is less is the rounding of shares."""

_PARTS = 16380
"""Below 2 to the 14th, and a multiple of 4, 5, 7 and 9: the parts that pixels of 10, 20 and 60 m are of cells."""

_CUT = np.uint32(1 << 31)
_LARGEST_DN = 65535
_CELLS_AT_ONCE = 1 << 15


def pack(sums: np.ndarray) -> np.ndarray:
    """Make cells of sums.

    Parameters
    ----------
    sums
        (rows, columns), complex64: digital numbers summed by shares of the cell's area, and, imaginary, these shares.

    Returns
    -------
    numpy.ndarray
        (rows, columns), float32.

    Raises
    ------
    ValueError
        If a mean is none of 16-bit digital numbers.
    """
    cells = np.empty(sums.shape, "float32")
    # A few rows at a time, so that what is computed on the way stays in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // sums.shape[1])
    for top in range(0, len(sums), rows):
        part = sums[top : top + rows]
        share = part.imag
        some, whole = share > 0, share >= WHOLE
        mean = np.where(some, part.real, np.float32(1)) / np.where(some, share, np.float32(1))
        low, high = mean.min(), mean.max()
        if not 0 < low <= high <= _LARGEST_DN:
            raise ValueError(f"it holds {low if low <= 0 else high:g}: no digital number of 16 bits")
        if not whole.all():
            parts = np.clip(np.rint(share * np.float32(_PARTS)), 1, _PARTS - 1).astype("uint32")
            cut = parts << 16 | np.rint(mean).astype("uint32") | _CUT
            mean = np.where(whole, mean.view("uint32"), np.where(some, cut, np.uint32(0))).view("float32")
        cells[top : top + rows] = mean
    return cells


def unpack(cells: np.ndarray) -> np.ndarray:
    """Give the sums that cells were made of, complex64, as far as cells hold them."""
    bits = np.ascontiguousarray(cells).view("uint32")
    cut = bits >= _CUT
    share = np.where(cut, (bits >> 16 & 0x7FFF) / np.float32(_PARTS), (cells > 0).astype("float32"))
    sums = np.empty(cells.shape, "complex64")
    sums.real, sums.imag = np.where(cut, (bits & 0xFFFF).astype("float32"), cells) * share, share
    return sums
