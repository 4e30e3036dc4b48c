"""Join ranges of integers."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ranges(first: "NDArray[np.intp]", sizes: "NDArray[np.intp]") -> "NDArray[np.intp]":
    """Return the integers of several ranges, one range after the other.

    Examples
    --------
    >>> import numpy as np
    >>> from s2cube.fields._ranges import ranges
    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    found: NDArray[np.intp] = np.arange(total) + np.repeat(first - (ends - sizes), sizes)
    return found
