"""Compute statistics of fields from the pixels of a cube, weighted by the share of each cell that is in the field."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from s2cube.products.coverage import SHARE_STEPS, Coverage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENTRIES_AT_ONCE = 1 << 16
"""Number of cells of fields that are computed together: their arrays fit into the cache of a core."""

_INVALID = np.iinfo(np.int32).max
"""Key of a value that is not valid; greater than the key of any number."""


def field_statistics(
    values: "NDArray[np.float32]", coverage: Coverage, statistics: Sequence[str]
) -> "dict[str, NDArray[np.float32]]":
    """Compute statistics of the valid cells of each field.

    The weight w of a cell is its share in the field. The mean is Σwv / Σw and the standard deviation is
    √(Σw(v - mean)² / Σw). The count is Σw. Percentiles are those of exactextract: equal values count as one value with
    the sum of their weights, and the percentile is interpolated between neighbours.

    Parameters
    ----------
    values
        Dims (band, y, x), on the grid of the coverage. NaN is not valid.
    statistics
        mean, std, median, min, max, count, or pN: the percentile N, from 0 to 100.

    Returns
    -------
    dict
        Each statistic by its name: dims (band, field). Where no cell is valid, the count is 0 and the others are NaN.

    Examples
    --------
    >>> import numpy as np, shapely
    >>> from odc.geo.geobox import GeoBox
    >>> from s2cube.products.coverage import coverage
    >>> grid = GeoBox.from_bbox((0, 0, 90, 60), "EPSG:32633", resolution=30)
    >>> fields = coverage(np.array([shapely.box(15, 0, 60, 30)]), grid)
    >>> values = np.array([[[9, 9, 9], [0.1, 0.4, np.nan]]], np.float32)
    >>> found = field_statistics(values, fields, ["mean", "count"])
    >>> round(found["mean"].item(), 3), found["count"].tolist()
    (0.3, [[1.5]])
    """
    bands = len(values)
    found = {name: np.full((bands, len(coverage)), 0 if name == "count" else np.nan, np.float32) for name in statistics}
    pixels = values.reshape(bands, -1)
    for group in _groups(coverage, _ENTRIES_AT_ONCE // max(1, bands)):
        at_once = max(1, _ENTRIES_AT_ONCE // group.cells.size)
        for of_bands in (slice(first, first + at_once) for first in range(0, bands, at_once)):
            cells = _Cells.of(pixels[of_bands], group)
            for name, numbers in _of_cells(cells, statistics).items():
                found[name][of_bands, group.fields] = numbers.reshape(-1, len(group.fields))
    return found


def weighted_share(mask: "NDArray[np.bool_]", coverage: Coverage) -> "NDArray[np.float64]":
    """Return the sum of the shares of the cells of each field where a mask is True, in cells.

    Parameters
    ----------
    mask
        Dims (y, x), on the grid of the coverage.
    """
    shares = np.where(mask.reshape(-1)[coverage.cells], coverage.shares, 0)
    found = np.zeros(len(coverage))
    has_cells = np.diff(coverage.starts) > 0
    if has_cells.any():
        found[has_cells] = np.add.reduceat(shares, coverage.starts[:-1][has_cells])
    return found


@dataclass(frozen=True, eq=False)
class _Group:
    """Fields of similar size. Their cells are rows of an array.

    Parameters
    ----------
    fields
        Dims (row): positions of the fields.
    cells
        Dims (row, entry): positions of the cells on the grid; -1 after the last cell of a field.
    shares
        Dims (row, entry): shares of the cells; not specified after the last cell of a field.
    """

    fields: "NDArray[np.intp]"
    cells: "NDArray[np.int64]"
    shares: "NDArray[np.float64]"


def _groups(coverage: Coverage, entries_at_once: int) -> Iterator[_Group]:
    """Divide fields into groups of about this number of cells. Fields without cells are in no group."""
    counts = np.diff(coverage.starts)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    done = 0
    while done < len(order):
        width = int(counts[order[done]])
        fields = order[done : done + max(1, entries_at_once // width)]
        rank = np.arange(width)
        entries = np.minimum(coverage.starts[fields, None] + rank, len(coverage.cells) - 1)
        cells = np.where(rank < counts[fields, None], coverage.cells.take(entries), -1)
        yield _Group(fields, cells, coverage.shares.take(entries))
        done += len(fields)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The values and the weights of the cells of a group, in all bands. A row is a field in a band.

    Parameters
    ----------
    values
        Dims (row, entry), NaN where it is not valid.
    weights
        Dims (row, entry), 0 where the value is not valid.
    total
        Dims (row): sum of the weights.
    """

    values: "NDArray[np.float32]"
    weights: "NDArray[np.float64]"
    total: "NDArray[np.float64]"

    @classmethod
    def of(cls, pixels: "NDArray[np.float32]", group: _Group) -> "_Cells":
        """Collect the cells of a group, dims of pixels: (band, cell)."""
        values = pixels.take(group.cells, axis=1)
        np.copyto(values, np.float32(np.nan), where=group.cells < 0)
        weights = np.where(np.isnan(values), 0, group.shares)
        width = values.shape[2]
        return cls(values.reshape(-1, width), weights.reshape(-1, width), weights.sum(axis=2).reshape(-1))


def _of_cells(cells: _Cells, statistics: Sequence[str]) -> "dict[str, NDArray[np.float64]]":
    """Compute statistics of each row, dims (row)."""
    simple: dict[str, Callable[[_Cells], NDArray[np.float64]]] = {
        "min": lambda cells: np.fmin.reduce(cells.values, axis=1),
        "max": lambda cells: np.fmax.reduce(cells.values, axis=1),
        "count": lambda cells: cells.total,
    }
    found = {name: simple[name](cells) for name in statistics if name in simple}
    if "mean" in statistics or "std" in statistics:
        found |= dict(zip(("mean", "std"), _mean_and_deviation(cells), strict=True))
    percentiles = {name: _percent(name) / 100 for name in statistics if name not in (*simple, "mean", "std")}
    if percentiles:
        found |= dict(zip(percentiles, _quantiles(cells, list(percentiles.values())), strict=True))
    return {name: found[name] for name in statistics}


def _percent(name: str) -> int:
    return 50 if name == "median" else int(name.removeprefix("p"))


def _mean_and_deviation(cells: _Cells) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    values = np.where(cells.weights > 0, cells.values, 0).astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where no cell is valid
        mean = np.einsum("ij,ij->i", cells.weights, values) / cells.total
        values -= mean[:, None]
        values *= values
        return mean, np.sqrt(np.einsum("ij,ij->i", cells.weights, values) / cells.total)


def _quantiles(cells: _Cells, probabilities: Sequence[float]) -> "NDArray[np.float64]":
    """Compute quantiles of each row, dims (quantile, row)."""
    # One number is faster to sort than two: the value, and the position of the entry, which finds its weight.
    keys = _keys(cells.values).astype(np.int64) << 32
    keys |= np.arange(keys.size).reshape(keys.shape)
    keys.sort(axis=1)
    # Shares are whole steps. Sums of integers are exact, and ten times as fast.
    sums = np.cumsum((cells.weights.take(keys & 0xFFFFFFFF) * SHARE_STEPS).astype(np.int64), axis=1)
    keys >>= 32
    # Keep the last of equal values: the sum of weights up to it includes all of them.
    is_last = keys != _INVALID
    is_last[:, :-1] &= keys[:, :-1] != keys[:, 1:]
    distinct = np.count_nonzero(is_last, axis=1)
    some = distinct > 0
    last = np.flatnonzero(is_last)
    ends = np.cumsum(distinct)[some]
    steps = _Steps(keys.reshape(-1), sums.reshape(-1), last, ends - distinct[some], ends)
    found = np.full((len(probabilities), len(distinct)), np.nan)
    found[:, some] = steps.quantiles(np.array(probabilities)[:, None])
    return found


class _Steps(NamedTuple):
    """The distinct values of rows and the sums of their weights, in ascending order.

    The n distinct values x₀ < x₁ < … of a row have weights w₀, w₁, …. Value xᵢ has the position
    sᵢ = i wᵢ + (n - 1)(w₀ + … + wᵢ₋₁). The quantile p is interpolated at the position p (n - 1) Σw
    (https://stats.stackexchange.com/a/13223, as in exactextract 0.3).
    """

    keys: "NDArray[np.int64]"  # see `_keys`
    sums: "NDArray[np.int64]"  # of the weights up to each entry of a row, in steps
    last: "NDArray[np.intp]"  # positions of the distinct values in keys and sums
    first: "NDArray[np.intp]"  # row i has the distinct values first[i] to end[i] - 1 of `last`
    end: "NDArray[np.intp]"

    def quantiles(self, probabilities: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return quantiles, dims (probability, row). Probabilities have the dims (probability, 1)."""
        totals = self.sums[self.last[self.end - 1]].astype(np.float64)
        target = probabilities * (self.end - self.first - 1) * totals
        left, right = self._neighbours(target)
        low, high = self.position(left), self.position(right)
        share = np.divide(target - low, high - low, out=np.zeros(target.shape), where=high > low)
        x0, x1 = (_values(self.keys[self.last[each]].astype(np.int32)).astype(np.float64) for each in (left, right))
        return x0 + np.clip(share, 0, 1) * (x1 - x0)

    def _neighbours(self, target: "NDArray[np.float64]") -> "tuple[NDArray[np.intp], NDArray[np.intp]]":
        """Find the last position that is not above a target, and the next one, by bisection of all rows together."""
        left, right = (np.broadcast_to(each, target.shape) for each in (self.first, self.end - 1))
        for _ in range(int((self.end - self.first).max(initial=1)).bit_length()):
            middle = (left + right + 1) // 2
            is_above = self.position(middle) > target
            left, right = np.where(is_above, left, middle), np.where(is_above, middle - 1, right)
        return left, np.minimum(left + 1, self.end - 1)

    def position(self, step: "NDArray[np.intp]") -> "NDArray[np.float64]":
        rank = step - self.first
        # Products of such integers could exceed 64 bits.
        after = self.sums[self.last[step]].astype(np.float64)
        before = np.where(rank > 0, self.sums[self.last[step - 1]], 0.0)
        return rank * (after - before) + (self.end - self.first - 1) * before


def _keys(values: "NDArray[np.float32]") -> "NDArray[np.int32]":
    """Convert numbers to integers in the same order (IEEE 754: the bits of a negative number are in reverse order)."""
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    return np.where(np.isnan(values), _INVALID, bits ^ ((bits >> 31) & 0x7FFFFFFF))


def _values(keys: "NDArray[np.int32]") -> "NDArray[np.float32]":
    return (keys ^ ((keys >> 31) & 0x7FFFFFFF)).view(np.float32)
