"""The geometric median of the spectra of each cell (Roberts, Mueller and McIntyre 2017, doi:10.1109/TGRS.2017.2723896).

It is the spectrum with the least sum of distances to all observations. Newton's method finds it: first in float32, then
in float64. The sum has a kink at each observation. So the observation nearest to the estimate is tested on its own, and
the few cells that are not finished then have their kinks rounded, less and less. Each cell is computed on its own: its
result does not depend on the other cells.
"""

import numpy as np

from s2cube.products._symmetric import solve

_ERROR = {"float32": 1e-5, "float64": 1e-8}
"""A cell is finished when the error after its step is less (reflectance): the square of the length of a step of Newton,
divided by the distance to the nearest observation."""

_FEW_STEPS, _MOST_STEPS = 8, 50
"""Maximum number of steps of a chunk, and of the cells that are not finished then."""

_BLURS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Radii within which kinks are rounded, one after the other, reflectance."""

_CHUNK_CELLS, _CHUNK_VALUES = 1024, 1 << 17
"""Cells of a chunk: at least 1024, more if their values stay in the cache of a core."""

_FIRST_TEST, _TEST_EVERY = 3, 4
"""After 3 steps, and after each 4 more, test whether the nearest observation is the result."""

_SHORTER = 0.25
"""Factor of a step that does not reduce the sum of distances."""

_NEAR = 1e-6
"""Distance to an observation (reflectance) below which only this test finishes a cell."""

_TEST_TOLERANCE = 1e-5
"""Tolerance of this test, relative to the pull of one observation: more than the rounding of float32."""

_LEAST = 1e-12
"""Least divisor."""


def geomedian(spectra: np.ndarray, scale: float = 1) -> np.ndarray:
    """Return the geometric median of the spectra of each cell.

    Parameters
    ----------
    spectra
        Dims (observation, band, cell), float64. All values are valid.
    scale
        Reflectance of the value 1.

    Returns
    -------
    ndarray
        Dims (band, cell), float64, with the same scale. The mean of one or two observations: two have no median of
        their own. With one band the median: the mean of the two middle values of an even number.
    """
    count, bands, cells = spectra.shape
    if count <= 2:
        return np.asarray(spectra.mean(0))
    if bands == 1:
        ordered = np.sort(spectra, 0)
        return np.asarray((ordered[(count - 1) // 2] + ordered[count // 2]) / 2)
    found, is_done = np.empty((bands, cells)), np.zeros(cells, bool)
    size = max(_CHUNK_CELLS, _CHUNK_VALUES // (count * bands))
    for start in range(0, cells, size):
        part = slice(start, start + size)
        found[:, part], is_done[part] = _of_chunk(spectra[:, :, part], scale)
    if not is_done.all():
        rest = np.flatnonzero(~is_done)
        middle = spectra[:, :, rest].mean(0)
        x, estimate = (spectra.take(rest, 2) - middle) * scale, (found[:, rest] - middle) * scale
        for blur in _BLURS:
            search = Search(x, estimate, blur)
            search.run(_MOST_STEPS)
            estimate = search.found
        found[:, rest] = estimate / scale + middle
    return found


def _of_chunk(spectra: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the geometric medians of a chunk of cells, and which of them are finished."""
    middle = spectra.mean(0)
    # Differences from the mean are small, so float32 keeps more digits of them.
    x = (spectra - middle) * scale
    rough = Search(x.astype("float32"), np.zeros(middle.shape, "float32"))
    rough.run(_FEW_STEPS)
    found = rough.found.astype("float64")
    is_done = rough.observation >= 0
    at = np.flatnonzero(is_done)
    found[:, at] = x[rough.observation[at], :, at].T
    rest = np.flatnonzero(~is_done)
    fine = Search(x.take(rest, 2), found[:, rest])
    fine.run(_FEW_STEPS)
    found[:, rest], is_done[rest] = fine.found, fine.is_done
    return found / scale + middle, is_done


class Search:
    """The search for the geometric medians of many cells, which have the same number of observations.

    Parameters
    ----------
    x
        Dims (observation, band, cell). The dtype is that of the computation.
    start
        First estimates, dims (band, cell).
    blur
        Radius within which kinks are rounded: the distance is √(distance² + blur²).

    Attributes
    ----------
    found
        Estimates, dims (band, cell).
    observation
        Index of the observation that is the geometric median; -1 if none is.
    is_done
        Whether a cell is finished.
    """

    def __init__(self, x: np.ndarray, start: np.ndarray, blur: float = 0) -> None:
        self.found = start.copy()
        self.observation = np.full(x.shape[2], -1)
        self.is_done = np.zeros(x.shape[2], bool)
        self._x, self._y, self._base, self._blur = x, start, start, blur
        self._move, self._share = np.zeros_like(start), np.ones(x.shape[2], x.dtype)
        self._total = np.full(x.shape[2], np.inf, x.dtype)
        self._cell = np.arange(x.shape[2])
        self._apart, self._work, self._of_one = np.empty_like(x), np.empty_like(x), np.empty_like(x[:, 0])

    def run(self, most: int) -> None:
        """Move the estimates, until all cells are finished or the maximum number of steps is done."""
        for number in range(1, most + 1):
            if not self._cell.size:
                return
            is_done = self._step()
            if not self._blur and number >= _FIRST_TEST and (number - _FIRST_TEST) % _TEST_EVERY == 0:
                is_done |= self._test_nearest()
            if is_done.any():
                cells = self._cell[is_done]
                self.found[:, cells], self.is_done[cells] = self._y[:, is_done], True
                self._keep(np.flatnonzero(~is_done))
        self.found[:, self._cell] = self._base

    def _keep(self, which: np.ndarray) -> None:
        # `take` keeps the order of dimensions in memory, an index does not.
        self._x, self._y = self._x.take(which, 2), self._y[:, which]
        self._base, self._move = self._base[:, which], self._move[:, which]
        self._total, self._share, self._cell = self._total[which], self._share[which], self._cell[which]
        # New arrays for each operation would cost more time than the operation.
        shape = self._x.shape
        self._apart, self._work = (
            each.reshape(-1)[: self._x.size].reshape(shape) for each in (self._apart, self._work)
        )
        self._of_one = self._of_one.reshape(-1)[: shape[0] * shape[2]].reshape(shape[0], shape[2])

    def _step(self) -> np.ndarray:
        """Move the estimates by one step, and return which of them are finished."""
        apart, work, distance = self._apart, self._work, self._of_one
        np.subtract(self._x, self._y, out=apart)
        np.multiply(apart, apart, out=work)
        np.add.reduce(work, 1, out=distance)
        np.sqrt(np.add(distance, self._blur**2, out=distance), out=distance)
        total, nearest = distance.sum(0), distance.min(0)
        inverse = np.divide(1, np.maximum(distance, _LEAST, out=distance), out=distance)
        weight = inverse.sum(0)
        np.multiply(apart, inverse[:, None], out=apart)
        pull = apart.sum(0)
        np.multiply(apart, np.sqrt(inverse, out=inverse)[:, None], out=work)
        newton = solve(self._curvature(weight), pull)
        # The result is not farther than the sum of distances. Without curvature a step has no limit.
        newton *= np.minimum(1, total / np.maximum(np.abs(newton).max(0), _LEAST))
        squared = (newton * newton).sum(0)
        # Rounding is no reason to go back.
        is_worse = total > self._total * (1 + 4 * np.finfo(total.dtype).eps)
        self._share = np.where(is_worse, self._share * _SHORTER, 1).astype(total.dtype)
        self._base = np.where(is_worse, self._base, self._y)
        self._move = np.where(is_worse, self._move, newton)
        self._total = np.where(is_worse, self._total, total)
        self._y = self._base + self._share * self._move
        return np.asarray(
            ~is_worse & (squared < _ERROR[total.dtype.name] * nearest) & (nearest > (0 if self._blur else _NEAR))
        )

    def _curvature(self, weight: np.ndarray) -> np.ndarray:
        """Return the second derivatives of the sum of distances: the lower half of a matrix of each cell."""
        scaled, product = self._work, self._apart
        bands = scaled.shape[1]
        found = np.zeros((bands, bands, weight.size), weight.dtype)
        for i in range(bands):
            row = np.multiply(scaled[:, : i + 1], scaled[:, i, None], out=product[:, : i + 1])
            np.add.reduce(row, 0, out=found[i, : i + 1])
        np.negative(found, out=found)
        for i in range(bands):
            found[i, i] += weight
        return found

    def _test_nearest(self) -> np.ndarray:
        """Return for which cells the nearest observation is the geometric median, and move the estimate there."""
        apart = self._x - self._y
        squared = (apart * apart).sum(1)
        nearest = squared.argmin(0)
        x = np.take_along_axis(self._x, nearest[None, None], 0)[0]
        apart = self._x - x
        distance = np.sqrt((apart * apart).sum(1))
        is_equal = distance == 0
        inverse = np.where(is_equal, 0, 1 / np.where(is_equal, 1, distance))
        pull = (apart * inverse[:, None]).sum(0)
        is_median = np.sqrt((pull * pull).sum(0)) <= is_equal.sum(0) + _TEST_TOLERANCE
        self._y = np.where(is_median, x, self._y)
        self.observation[self._cell[is_median]] = nearest[is_median]
        return np.asarray(is_median)
