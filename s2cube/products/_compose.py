"""Composites of the images of one period: pure functions of numpy arrays.

An observation of a cell is a day on which the cell is valid in every spectral band. The median and the mean of a band
use all days on which this band is valid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np

from s2cube.config.composites import DAY_METHODS, Method
from s2cube.kernels.packing import PACKINGS, Packing
from s2cube.products._geomedian import geomedian
from s2cube.products._ordered import mean, median

IndicesOf = Callable[[np.ndarray], np.ndarray]
"""Function from the spectral bands to the other bands, dims (band, y, x), both in the dtype of the cube."""

_TIE = 1e-6
"""Distances to the geometric median that differ by less are equal (reflectance)."""

_CHUNK_VALUES = 1 << 21
"""Values of the spectra that are computed at a time: 16 MB in float64."""


@dataclass(frozen=True)
class Composite:
    """One composite.

    Parameters
    ----------
    values
        Dims (band, y, x), in the dtype of the images.
    count
        Number of observations, dims (y, x), uint16.
    date
        Day of the observation in days since 1970-01-01, dims (y, x), uint16; 0 where there is none. None for methods
        that choose no day.
    """

    values: np.ndarray
    count: np.ndarray
    date: np.ndarray | None = None


@dataclass(frozen=True)
class Stack:
    """The images of one period on some cells.

    Parameters
    ----------
    values
        Dims (time, band, y, x), one image of each day: int16 or float32, packed as `kernels.packing` says.
    days
        Solar day of each image, in the order of time.
    is_spectral
        Whether a band is reflectance. Other bands, such as indices, define no observations and no distances. If no band
        is spectral, all bands define observations.
    score
        Score of each observation for the method ``best``, dims (time, y, x), with the packing of its dtype. An
        observation whose score is nodata is not chosen.
    indices_of
        Computes the bands that are not spectral from the geometric median. Other methods do not need it.
    """

    values: np.ndarray
    days: Sequence[date]
    is_spectral: Sequence[bool]
    score: np.ndarray | None = None
    indices_of: IndicesOf | None = None
    is_observed: np.ndarray = field(init=False)
    """Dims (time, cell)."""

    def __post_init__(self) -> None:
        if any(later <= earlier for earlier, later in pairwise(self.days)):
            raise ValueError("days are not in the order of time, or a day has two images")
        bands = [number for number, each in enumerate(self.is_spectral) if each or not any(self.is_spectral)]
        is_observed = np.ones((len(self.values), self.cells), bool)
        for band in bands:
            is_observed &= ~self.packing.holes(self.band(band))
        object.__setattr__(self, "is_observed", is_observed)

    @property
    def packing(self) -> Packing:
        """The packing of the dtype."""
        return PACKINGS[self.values.dtype.name]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return int(np.prod(self.values.shape[2:]))

    def band(self, number: int) -> np.ndarray:
        """Return one band, dims (time, cell)."""
        return self.values[:, number].reshape(len(self.values), self.cells)


def compose(stack: Stack, method: Method) -> Composite:
    """Compute the composite of the images of one period.

    Parameters
    ----------
    stack
        The images.
    method
        Method, score and minimum count.

    Returns
    -------
    Composite
        Nodata where there are fewer observations than the minimum count, or where no observation has a score. int16 is
        rounded to the nearest even number.

    Raises
    ------
    ValueError
        If the score is missing, or the function that computes the indices of the geometric median, or its bands.

    Examples
    --------
    >>> import numpy as np
    >>> from datetime import date
    >>> days = [date(2024, 6, 1), date(2024, 6, 11), date(2024, 6, 21)]
    >>> red = np.array([300, -9999, 500], "int16").reshape(3, 1, 1, 1)
    >>> made = compose(Stack(red, days, [True]), Method("median"))
    >>> made.values.item(), made.count.item()
    (400, 2)
    """
    shape = stack.values.shape[1:]
    count = stack.is_observed.sum(0, dtype="uint16")
    is_kept = count >= method.min_count
    if method.name not in DAY_METHODS:
        made = _geometric(stack) if method.name == "geomedian" else _by_band(stack, _OF_BAND[method.name])
        made[:, ~is_kept] = stack.packing.nodata
        return Composite(made.reshape(shape), count.reshape(shape[1:]))
    chosen, has_day = _chosen(stack, method)
    has_day &= is_kept
    made = np.stack([band[chosen, np.arange(stack.cells)] for band in map(stack.band, range(shape[0]))])
    made[:, ~has_day] = stack.packing.nodata
    numbers = np.array(stack.days, "datetime64[D]").astype("int64")
    dates = np.where(has_day, numbers[chosen], 0).astype("uint16")
    return Composite(made.reshape(shape), count.reshape(shape[1:]), dates.reshape(shape[1:]))


_OF_BAND = {"median": median, "mean": mean}


def _by_band(stack: Stack, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    made = np.empty((stack.values.shape[1], stack.cells), stack.values.dtype)
    for number in range(len(made)):
        band = stack.band(number)
        made[number] = _packed(function(band, ~stack.packing.holes(band)), stack)
    return made


def _packed(values: np.ndarray, stack: Stack) -> np.ndarray:
    """Convert computed values in units of the stack to its dtype. NaN becomes nodata."""
    if stack.values.dtype.kind == "f":
        return values.astype(stack.values.dtype)
    return np.where(np.isnan(values), stack.packing.nodata, np.rint(values)).astype(stack.values.dtype)


def _geometric(stack: Stack) -> np.ndarray:
    spectral = np.flatnonzero(stack.is_spectral)
    if not spectral.size or (spectral.size < stack.values.shape[1] and stack.indices_of is None):
        raise ValueError("a geometric median needs spectral bands, and the function that computes the other bands")
    spectra = np.full((spectral.size, stack.cells), np.nan)
    for cells, observed in _equal_counts(stack):
        spectra[:, cells] = geomedian(observed, stack.packing.scale)
    spectrum = _packed(spectra, stack)
    if stack.indices_of is None:
        return spectrum
    made = np.empty((stack.values.shape[1], stack.cells), stack.values.dtype)
    made[spectral] = spectrum
    others = stack.indices_of(spectrum.reshape(-1, *stack.values.shape[2:]))
    made[~np.asarray(stack.is_spectral, bool)] = others.reshape(-1, stack.cells)
    return made


def _equal_counts(stack: Stack) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield cells with the same number of observations, and their spectra: (observation, band, cell), float64."""
    spectral = np.flatnonzero(stack.is_spectral)
    flat = stack.values.reshape(*stack.values.shape[:2], stack.cells)
    count = stack.is_observed.sum(0)
    for number in np.unique(count[count > 0]):
        every = np.flatnonzero(count == number)
        size = max(1, _CHUNK_VALUES // int(number * spectral.size))
        for start in range(0, every.size, size):
            cells = every[start : start + size]
            time = np.nonzero(stack.is_observed[:, cells].T)[1].reshape(-1, number).T
            yield cells, flat[time[:, None], spectral[:, None], cells].astype("float64", order="C")


def _chosen(stack: Stack, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the chosen day of each cell, and whether it has one."""
    if method.name == "medoid":
        return _nearest(stack), np.asarray(stack.is_observed.any(0))
    if method.name == "first":
        order = slice(None, None, -1) if method.is_least else slice(None)
        found = stack.is_observed[order].argmax(0)
        return len(stack.values) - 1 - found if method.is_least else found, np.asarray(stack.is_observed.any(0))
    if stack.score is None:
        raise ValueError("the method best needs a score")
    score = stack.score.reshape(len(stack.values), stack.cells)
    is_candidate = stack.is_observed & ~PACKINGS[score.dtype.name].holes(score) & np.isfinite(score)
    ranked = score.astype("float32") * np.float32(-1 if method.is_least else 1)
    return np.where(is_candidate, ranked, -np.inf).argmax(0), np.asarray(is_candidate.any(0))


def _nearest(stack: Stack) -> np.ndarray:
    """Return the index of the earliest observation that is nearest to the geometric median."""
    if not any(stack.is_spectral):
        raise ValueError("a medoid needs spectral bands")
    found = np.zeros(stack.cells, int)
    for cells, observed in _equal_counts(stack):
        scale = stack.packing.scale
        distance = np.sqrt(((observed - geomedian(observed, scale)) ** 2).sum(1)) * scale
        nearest = (distance <= distance.min(0) + _TIE).argmax(0)
        # The index among the observations becomes the index among the days.
        rank = stack.is_observed[:, cells].cumsum(0) - 1
        found[cells] = ((rank == nearest) & stack.is_observed[:, cells]).argmax(0)
    return found
