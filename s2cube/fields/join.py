"""Join fields to footprints of scenes, and group the fields that meet the same scenes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import shapely

from s2cube.area.antimeridian import split
from s2cube.fields._sedona import sedona_join
from s2cube.fields.fields import Fields

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    Pairs: TypeAlias = tuple[NDArray[np.integer], NDArray[np.integer]]

_CELL_DEG = 0.1
"""Side of the cells by which fields are grouped, degrees: 11 km, a tenth of a granule. Most cells are completely inside
a footprint or outside, so their fields need no test of their own."""

_CELLS_AROUND = round(360 / _CELL_DEG) * 2


def join(
    fields: Fields, footprints: Sequence["BaseGeometry"], engine: Literal["shapely", "sedona"] = "shapely"
) -> tuple["NDArray[np.int32]", "NDArray[np.int32]"]:
    """Find the footprints that each field intersects, and does not only touch.

    Parameters
    ----------
    footprints
        Degrees, longitude first, valid, cut at the antimeridian; see `scene.footprint`.
    engine
        ``sedona`` needs the extra ``sedona``. It has the same result. Its memory is limited: it writes to disk what
        exceeds the limit. It is never chosen by default, because it is slower: its join of 1,000,000 areas to 300
        footprints took 1.7 times the CPU time of shapely, and of 100,000 areas 4.5 times (`benchmarks/areas.py`).

    Returns
    -------
    tuple of ndarray
        Positions of fields and positions of footprints, a pair for each meeting: sorted by field, then by footprint.

    Raises
    ------
    UsageError
        If SedonaDB is chosen and not installed.

    Examples
    --------
    >>> import shapely
    >>> from s2cube.area.aoi import AOI
    >>> from s2cube.fields.fields import Fields
    >>> from s2cube.fields.join import join
    >>> fields = Fields.of_aois([AOI("west", shapely.box(10, 50, 10.1, 50.1)), AOI("far", shapely.box(20, 0, 21, 1))])
    >>> found, footprints = join(fields, [shapely.box(9, 49, 11, 51), shapely.box(10.05, 50, 12, 51)])
    >>> found.tolist(), footprints.tolist()
    ([0, 0], [0, 1])
    """
    if not len(fields) or not footprints:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    outlines = np.empty(len(footprints), object)
    outlines[:] = footprints
    shapely.prepare(outlines)
    is_cut = fields.bounds_lonlat[:, 2] > 180
    parts = [_cut_pairs(fields, np.flatnonzero(is_cut), outlines)]
    if engine == "sedona":
        parts.append(sedona_join(fields, np.flatnonzero(~is_cut), outlines))
    else:
        parts += _whole_pairs(fields, np.flatnonzero(~is_cut), outlines)
    keys = np.concatenate([found.astype(np.int64) * len(outlines) + met for found, met in parts])
    keys.sort()
    found, met = np.divmod(keys, len(outlines))
    return found.astype(np.int32), met.astype(np.int32)


def _cut_pairs(fields: Fields, positions: "NDArray[np.intp]", outlines: "NDArray[np.object_]") -> "Pairs":
    """Join the fields that cross the antimeridian. They are few."""
    shapes = [split(shape) for shape in fields.take(positions).whole_lonlat()]
    found, met = shapely.STRtree(outlines).query(np.array(shapes, object), predicate="intersects")
    beyond = ~shapely.touches(outlines[met], np.array(shapes, object)[found])
    return positions[found[beyond]], met[beyond]


def _whole_pairs(fields: Fields, positions: "NDArray[np.intp]", outlines: "NDArray[np.object_]") -> "list[Pairs]":
    """Join the other fields: first by groups, then, at the edges of footprints, one by one."""
    if not len(positions):
        return []
    bounds = fields.bounds_lonlat[positions]
    columns, rows = np.floor((bounds[:, :2] + bounds[:, 2:]) / (2 * _CELL_DEG)).astype(np.int64).T
    cells = rows * _CELLS_AROUND + columns
    order = np.argsort(cells, kind="stable")
    first = np.flatnonzero(np.diff(cells[order], prepend=cells[order[0]] - 1))
    sizes = np.diff(first, append=len(order))
    low = np.minimum.reduceat(bounds[order, :2], first)
    high = np.maximum.reduceat(bounds[order, 2:], first)
    around: NDArray[np.object_] = np.array(shapely.box(*low.T, *high.T))
    met, groups = shapely.STRtree(around).query(outlines, predicate="intersects")
    is_inside = shapely.contains(outlines[met], around[groups])

    def pairs(is_some: "NDArray[np.bool_]") -> "Pairs":
        some = groups[is_some]
        return positions[order[_ranges(first[some], sizes[some])]], np.repeat(met[is_some], sizes[some])

    return [pairs(is_inside), _tested(fields, *pairs(~is_inside), outlines)]


def _tested(
    fields: Fields, found: "NDArray[np.integer]", met: "NDArray[np.integer]", outlines: "NDArray[np.object_]"
) -> "Pairs":
    """Return those of the pairs that meet."""
    some, numbers = np.unique(found, return_inverse=True)
    boxes: NDArray[np.object_] = np.array(shapely.box(*fields.bounds_lonlat[some].T))
    is_met = shapely.contains(outlines[met], boxes[numbers])
    # Only fields over an edge are left. Only they are transformed to degrees.
    left = np.flatnonzero(~is_met)
    some, numbers = np.unique(found[left], return_inverse=True)
    shapes = fields.take(some).whole_lonlat()[numbers]
    meets = shapely.intersects(outlines[met[left]], shapes)
    meets[meets] = ~shapely.touches(outlines[met[left[meets]]], shapes[meets])
    is_met[left] = meets
    return found[is_met], met[is_met]


def same_scenes(
    fields: "NDArray[np.integer]", scenes: "NDArray[np.integer]", n_fields: int
) -> tuple["NDArray[np.int32]", list[tuple[int, ...]]]:
    """Group the fields that meet exactly the same scenes.

    Parameters
    ----------
    fields, scenes
        Positions of fields and of the scenes that they meet: pairs as `join` returns them, sorted by field and scene,
        each pair once.
    n_fields
        Number of fields, also of those that meet no scene.

    Returns
    -------
    ndarray of int32
        Dims (field,): number of the group of each field. Groups are numbered in the order of their first fields.
    list of tuple of int
        Positions of the scenes of each group, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from s2cube.fields.join import same_scenes
    >>> groups, scenes = same_scenes(np.array([0, 0, 2, 3, 3]), np.array([4, 7, 7, 4, 7]), 4)
    >>> groups.tolist(), scenes
    ([0, 1, 2, 0], [(4, 7), (), (7,)])
    """
    counts = np.bincount(fields, minlength=n_fields)
    first = np.cumsum(counts) - counts
    attempt = 0
    while True:
        groups, examples = _by_hash(scenes, counts, first, attempt)
        if _are_equal(scenes, counts, first, examples[groups]):
            break
        attempt += 1
    return groups, [tuple(scenes[first[each] : first[each] + counts[each]].tolist()) for each in examples]


def _by_hash(
    scenes: "NDArray[np.integer]", counts: "NDArray[np.intp]", first: "NDArray[np.intp]", attempt: int
) -> tuple["NDArray[np.int32]", "NDArray[np.intp]"]:
    """Group fields by a hash of their scenes: the sum of a random number of each. Return a field of each group, too."""
    numbers = np.random.default_rng(attempt).integers(0, 1 << 64, scenes.max(initial=-1) + 1, np.uint64)
    hashes = np.zeros(len(counts), np.uint64)
    some = counts > 0
    if some.any():
        hashes[some] = np.add.reduceat(numbers[scenes], first[some])
    _, examples, groups = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(examples)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return rank[groups], examples[order]


def _are_equal(
    scenes: "NDArray[np.integer]",
    counts: "NDArray[np.intp]",
    first: "NDArray[np.intp]",
    examples: "NDArray[np.intp]",
) -> bool:
    """Check that each field has exactly the scenes of its example: hashes of different scenes may be equal."""
    return bool((counts == counts[examples]).all() and (scenes == scenes[_ranges(first[examples], counts)]).all())


def _ranges(first: "NDArray[np.intp]", sizes: "NDArray[np.intp]") -> "NDArray[np.intp]":
    """Return the integers of several ranges, one range after the other."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    found: NDArray[np.intp] = np.arange(total) + np.repeat(first - (ends - sizes), sizes)
    return found
