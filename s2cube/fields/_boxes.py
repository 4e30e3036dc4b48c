"""Boxes in degrees that areas must meet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""West, south, east, north, degrees. If it crosses the antimeridian, west is greater than east, or east exceeds 180."""


class Boxes:
    """Boxes in degrees, in any notation of longitudes.

    Examples
    --------
    >>> import numpy as np
    >>> from s2cube.fields._boxes import Boxes
    >>> boxes = Boxes([(179, -18, -179, -16)])
    >>> boxes.met_by(np.array([[179.9, -17, 180.1, -16.9], [-179.5, -17, -179.4, -16.9], [10, 50, 10.1, 50.1]]))
    array([ True,  True, False])
    """

    def __init__(self, boxes: Sequence[Box]) -> None:
        west, south, east, north = np.array(boxes, float).reshape(-1, 4).T
        east = np.where(east < west, east + 360, east)
        turns = [shapely.box(west + turn, south, east + turn, north) for turn in (-360, 0, 360)]
        self._tree = shapely.STRtree(np.concatenate(turns))

    def met_by(self, bounds: "NDArray[np.float64]") -> "NDArray[np.bool_]":
        """Return for each row of bounds (west, south, east, north) whether it meets one of the boxes, or touches it."""
        found = np.zeros(len(bounds), bool)
        found[self._tree.query(shapely.box(*bounds.T))[0]] = True
        return found
