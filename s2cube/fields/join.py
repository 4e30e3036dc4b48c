"""Join fields to the footprints of scenes."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from s2cube.fields.fields import Fields


def join(fields: Fields, footprints: Sequence[BaseGeometry]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    from odc.geo.crs import CRS

    shapes = fields.shapes_in(CRS("EPSG:4326"))
    outlines = np.array(footprints, object)
    tree = shapely.STRtree(outlines)
    at, of = tree.query(shapes, predicate="intersects")
    touching = shapely.touches(outlines[of], shapes[at])
    return at[~touching], of[~touching]


def same_scenes(
    positions: NDArray[np.intp], scenes: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], list[tuple[int, ...]]]:
    sets: list[set[int]] = [set() for _ in range(count)]
    for at, scene in zip(positions.tolist(), scenes.tolist(), strict=True):
        sets[at].add(scene)
    keys = [tuple(sorted(each)) for each in sets]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys]), list(numbers)
