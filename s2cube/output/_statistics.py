"""Statistics of the bands of an image. They are summed while its chunks are written."""

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_PART_VALUES = 1 << 18
"""Number of values that are summed at a time, so that the temporary arrays are small."""

_LARGEST = 1e150
"""Values beyond this, which only float64 has, are left out like infinite ones: their squares have no number."""

_MANTISSA_BITS = 24
"""Number of significant bits of a float32."""


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of the valid values of one band, as its file stores them.

    Parameters
    ----------
    minimum, maximum, mean, stddev
        None if there is no valid value. `stddev` is that of the population.
    valid_percent
        Share of cells with a valid value, percent: of those in the area of interest, or of the raster.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    stddev: float | None
    valid_percent: float


@dataclass(frozen=True)
class _Sums:
    """Exact sums of values and of their squares, so that their order makes no difference.

    Those of integers are integers, because computing with fractions takes longer.
    """

    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction | int = 0
    squares: Fraction | int = 0

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
        )


class Tally:
    """Sums the values of an image, chunk by chunk, in any order. Any size of chunks gives the same statistics.

    Parameters
    ----------
    bands
        Number of bands.
    """

    def __init__(self, bands: int) -> None:
        self._bands = bands
        self._parts: dict[tuple[int, int, int], _Sums] = {}
        self._lock = threading.Lock()

    def add(self, values: np.ndarray, is_valid: np.ndarray, band: int, row: int, column: int) -> None:
        """Add the valid values of a chunk (band, y, x). Any thread may call this.

        A chunk that is added again, at the same place, counts once.

        Parameters
        ----------
        values
            Any integers or floats. Infinite values are left out.
        is_valid
            True where a value is valid.
        """
        for number, (each, mask) in enumerate(zip(values, is_valid, strict=True)):
            sums = _sum_exactly(each[mask])
            with self._lock:
                self._parts[band + number, row, column] = sums

    def statistics(self, cells: int) -> tuple[BandStatistics, ...]:
        """Return the statistics of each band.

        Parameters
        ----------
        cells
            Number of cells in the area of interest, or of the raster if values may be outside the area.
        """
        return tuple(_statistics(sums, cells) for sums in self._by_band())

    def gdal_tags(self, raster_cells: int) -> list[dict[str, str]]:
        """Return the statistics of each band as GDAL names them. A band without a valid value has none.

        Parameters
        ----------
        raster_cells
            Number of cells of the raster. GDAL's valid percentage is the share of them, not that of the area.
        """
        found = ((sums, _statistics(sums, raster_cells)) for sums in self._by_band())
        return [
            {
                "STATISTICS_MINIMUM": _text(each.minimum),
                "STATISTICS_MAXIMUM": _text(each.maximum),
                "STATISTICS_MEAN": _text(each.mean),
                "STATISTICS_STDDEV": _text(each.stddev),
                "STATISTICS_VALID_PERCENT": f"{each.valid_percent:.4g}",
            }
            if sums.count
            else {}
            for sums, each in found
        ]

    def _by_band(self) -> list[_Sums]:
        return [
            _add(sums for (band, *_), sums in self._parts.items() if band == wanted) for wanted in range(self._bands)
        ]

    def __dask_tokenize__(self) -> int:
        return id(self)


def _add(parts: Iterable[_Sums]) -> _Sums:
    return sum(parts, _Sums())


def _sum_exactly(values: np.ndarray) -> _Sums:
    finite = values
    if values.dtype.kind == "f":
        finite = values[np.abs(values) < (_LARGEST if values.dtype == "float64" else np.inf)]
    parts = (finite[first : first + _PART_VALUES] for first in range(0, finite.size, _PART_VALUES))
    return _add(_sum_part(part) for part in parts)


def _sum_part(values: np.ndarray) -> _Sums:
    total: Fraction | int
    squares: Fraction | int
    if values.dtype == "float32":
        total, squares = _sum_floats(values)
    elif values.dtype.kind == "f":
        total, squares = _sum_wide(values)
    else:
        total, squares = _sum_integers(values)
    # Adding 0 turns -0 into 0. Which of them is the minimum would depend on the order.
    return _Sums(values.size, float(values.min()) + 0.0, float(values.max()) + 0.0, total, squares)


def _sum_integers(values: np.ndarray) -> tuple[Fraction | int, Fraction | int]:
    if values.dtype.itemsize > 2:
        return _sum_wide(values)
    wide = values.astype("int64")
    return int(wide.sum()), int(wide @ wide)


def _sum_wide(values: np.ndarray) -> tuple[Fraction, Fraction]:
    """Sum numbers of more than 24 bits. The squares are rounded to float64, and so are integers beyond 53 bits."""
    exact = values.astype("float64")
    return Fraction(math.fsum(exact)), Fraction(math.fsum(exact**2))


def _sum_floats(values: np.ndarray) -> tuple[Fraction, Fraction]:
    """Sum float32 values and their squares without rounding.

    A value is an integer of 24 bits times a power of two. The integers of each power are summed. float64 represents
    such a sum exactly. Squares have 48 bits, so that their upper and lower halves are summed separately.
    """
    mantissas, exponents = np.frexp(values.astype("float64"))
    integers = np.ldexp(mantissas, _MANTISSA_BITS)
    upper, lower = np.divmod(integers * integers, 2.0**_MANTISSA_BITS)
    lowest = int(exponents.min())
    of_integers, of_upper, of_lower = (
        [int(each) for each in np.bincount(exponents - lowest, weights)] for weights in (integers, upper, lower)
    )
    total = sum(each << power for power, each in enumerate(of_integers))
    squares = sum(
        ((high << _MANTISSA_BITS) + low) << 2 * power
        for power, (high, low) in enumerate(zip(of_upper, of_lower, strict=True))
    )
    unit = Fraction(2) ** (lowest - _MANTISSA_BITS)
    return total * unit, squares * unit**2


def _statistics(sums: _Sums, cells: int) -> BandStatistics:
    valid_percent = 100 * sums.count / max(1, cells)
    if not sums.count:
        return BandStatistics(None, None, None, None, valid_percent)
    # Python rounds the quotient of two integers of any size, or of fractions, once.
    mean = float(sums.total / sums.count)
    variance = float((sums.squares * sums.count - sums.total**2) / sums.count**2)
    return BandStatistics(sums.minimum, sums.maximum, mean, math.sqrt(max(variance, 0.0)), valid_percent)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"
