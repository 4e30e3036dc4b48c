"""Group fields that meet the same scenes."""

from typing import TYPE_CHECKING

import numpy as np

from s2cube.fields._ranges import ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    >>> from s2cube.fields.signatures import same_scenes
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
    return bool((counts == counts[examples]).all() and (scenes == scenes[ranges(first[examples], counts)]).all())
