"""Pack the mean and the valid share of each cell into four bytes.

A cell is an unsigned integer of 32 bits, 0 where no valid pixel is in it. If valid pixels cover the cell whole, it is
the bits of their mean, a positive float32. If they cover only a part, the highest bit is set; 15 bits hold the share,
in 16380ths of the cell's area, and 16 bits the mean, rounded.
"""

import numpy as np

CELLS = np.dtype("uint32")
"""An array of this dtype holds cells; no arithmetic on it has a meaning."""

WHOLE = 0.999
"""A cell counts as covered whole from this share on, because shares are rounded."""

_PARTS = 16380
"""Below 2 to the 14th, and a multiple of 4, 5, 7 and 9: pixels of 10, 20 and 60 m are such parts of cells."""

_CUT = np.uint32(1 << 31)
_LARGEST_DN = 65535
_CELLS_AT_ONCE = 1 << 15


def pack(sums: np.ndarray) -> np.ndarray:
    """Pack sums into cells.

    Parameters
    ----------
    sums
        (rows, columns), complex64: digital numbers summed by shares of the cell's area, and, imaginary, these shares.

    Returns
    -------
    numpy.ndarray
        (rows, columns), `CELLS`.

    Raises
    ------
    ValueError
        If a mean cannot be one of 16-bit digital numbers.
    """
    cells = np.empty(sums.shape, CELLS)
    # A few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // sums.shape[1])
    for top in range(0, len(sums), rows):
        part = sums[top : top + rows]
        share = part.imag
        some, whole = share > 0, share >= WHOLE
        mean = np.where(some, part.real, np.float32(1)) / np.where(some, share, np.float32(1))
        low, high = mean.min(), mean.max()
        if not 0 < low <= high <= _LARGEST_DN:
            raise ValueError(f"it holds {low if low <= 0 else high:g}: no digital number of 16 bits")
        packed = mean.view(CELLS)
        if not whole.all():
            parts = np.clip(np.rint(share * np.float32(_PARTS)), 1, _PARTS - 1).astype(CELLS)
            cut = parts << 16 | np.rint(mean).astype(CELLS) | _CUT
            packed = np.where(whole, packed, np.where(some, cut, np.uint32(0)))
        cells[top : top + rows] = packed
    return cells


def whole_means(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the means of cells, float32, and where they hold: in cells that are covered whole. Nothing is copied."""
    return cells.view("float32"), cells.view("int32") > 0


def unpack(cells: np.ndarray) -> np.ndarray:
    """Give the sums of cells, complex64, as exactly as cells hold them."""
    means, whole = whole_means(cells)
    cut = cells >= _CUT
    share = np.where(cut, (cells >> 16 & 0x7FFF) / np.float32(_PARTS), whole.astype("float32"))
    sums = np.empty(cells.shape, "complex64")
    sums.real, sums.imag = np.where(cut, (cells & 0xFFFF).astype("float32"), means) * share, share
    return sums
