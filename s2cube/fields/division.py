"""Divide fields into patches: fields with the same scenes on the same tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS

from s2cube.area.grid import aoi_geobox, utm_or_ups
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import block_m
from s2cube.fields.fields import Fields
from s2cube.fields.patches import Patch, cells_of, grid_of
from s2cube.raster.placement import corner
from s2cube.scenes.scene import crs_code
from s2cube.scenes.time_slice import Plan, Task

_TILE_M = 5120
"""Side of the smallest usual tile, metres: 512 pixels of 10 m. Larger tiles consist of such squares."""

_SIDES_M = (5120, 10240, 30720, 61440)
"""Sides of the squares in which parts are joined, metres: multiples of `_TILE_M`."""

_SIDE_CELLS = 1024
"""Maximum side of these squares, in cells, if there is a choice, so that the intermediate arrays of a day are small."""

_PART_CELLS = 12_000
"""Number of cells that take as long as the overhead of a patch and day. Measured: 5 ms, and 0.4 µs a cell."""

_LARGE_M = 100_000
"""Side of a grid, metres, from which the scale of a UTM zone is checked, too. It is that of a granule."""


def crs_of_fields(fields: Fields, crs: str) -> NDArray[np.object_]:
    """Return the CRS of the grid of each field, see `grid.aoi_geobox`."""
    if crs != "auto":
        return np.full(len(fields), str(CRS(crs)), object)
    ends = zip(fields.centres_lonlat.min(axis=0).tolist(), fields.centres_lonlat.max(axis=0).tolist(), strict=True)
    found = {utm_or_ups(lon, lat) for lon, lat in product(*ends)}
    if len(found) == 1:  # fields of one square: zones follow each other by longitude and latitude
        return np.full(len(fields), found.pop(), object)
    lons, lats = fields.centres_lonlat.T.tolist()
    return np.array([utm_or_ups(lon, lat) for lon, lat in zip(lons, lats, strict=True)], object)


def patches(fields: Fields, plan: Plan, config: CubeSection) -> Iterator[Patch]:
    """Divide fields that have the same scenes.

    The box of fields whose boxes meet the same squares of 5,120 m, from the corner of each granule, needs no other tile
    than the fields. So each such box is a part that is read. Parts that are near each other are one patch if computing
    their common box is shorter than computing each part.

    Parameters
    ----------
    plan
        The slices of these fields. Its grid has the CRS of the grids.

    Raises
    ------
    ConfigError
        If the CRS cuts the fields into pieces, or stretches them.
    """
    crs, size_m = plan.geobox.crs, config.resolution_m
    assert crs is not None
    projected, digests = replace(fields, shapes=fields.shapes_in(crs), crs=str(crs)), fields.digests()
    bounds = shapely.bounds(projected.shapes)
    for position in np.flatnonzero(~np.isfinite(bounds).all(axis=1))[:1].tolist():
        aoi_geobox(fields.aoi(position), config.crs, size_m)  # it raises the error
    cells = cells_of(bounds, size_m)
    for group, parts in _groups(cells, _corners(plan, str(crs)), size_m):
        boxes = tuple(grid_of(each, size_m, crs) for each in parts)
        patch = Patch(projected.take(group), digests[group], grid_of(_around(parts), size_m, crs), boxes, plan)
        if config.crs != "auto" or max(patch.geobox.shape) * size_m > _LARGE_M:
            aoi_geobox(patch.aoi, config.crs, size_m)  # it checks the CRS
        yield patch


def patch_of(plan: Plan) -> Patch:
    """Return the patch of a single area.

    The grid of its images may be smaller than the area by a hundredth of a cell. The grid of the patch is not.
    """
    crs, size_m = plan.geobox.crs, float(plan.geobox.affine.a)
    assert crs is not None
    fields = Fields.of_aois([plan.aoi])
    projected = replace(fields, shapes=fields.shapes_in(crs), crs=str(crs))
    box = grid_of(cells_of(shapely.bounds(projected.shapes), size_m)[0], size_m, crs)
    return Patch(projected, fields.digests(), box, (box,), plan)


def with_statistics(task: Task, patch: Patch, lattice: str, key: str) -> Task:
    """Return the work for the image of a slice, and for the statistics of its area.

    If the grids of the image and of the patch differ, the statistics of a large area are computed without its image.

    Parameters
    ----------
    patch
        From `patch_of`.
    lattice, key
        See `FieldTask`.
    """
    size_m = float(task.geobox.affine.a)
    if patch.geobox != task.geobox and max(patch.geobox.shape) * size_m > block_m(size_m):
        return task
    of_patch = patch.task(task.slice, np.arange(1), lattice, key)
    return replace(of_patch, aoi=task.aoi, slice=task.slice, search=task.search, image=task.geobox)


def _groups(
    cells: NDArray[np.int64], corners: Sequence[tuple[float, float]], size_m: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64]]]:
    """Group fields by the tiles that they need, and then by place if that makes the computation shorter.

    Parameters
    ----------
    cells
        See `cells_of`.
    corners
        See `_corners`.

    Yields
    ------
    numpy.ndarray
        Positions of the fields of a patch.
    numpy.ndarray
        Dims (part, 4): the parts of its grid that are read, in cells as in `cells`.
    """
    bounds = np.float64(size_m) * cells
    members = _alike(np.hstack([_ranges(bounds, corner, _TILE_M) for corner in corners]))
    parts = _arounds(cells, members)
    side_m = max(each for each in _SIDES_M if each <= max(_SIDE_CELLS * size_m, min(_SIDES_M)))
    middles = np.float64(size_m) * (parts[:, :2] + parts[:, 2:]) / 2
    for near in _alike(_ranges(np.hstack([middles, middles]), corners[0], side_m)[:, :2]):
        around, sides = _around(parts[near]), parts[near, 2:] - parts[near, :2]
        height_width = around[2:] - around[:2]
        separate = sides.prod(axis=1).sum() + _PART_CELLS * len(near)
        if height_width.prod() <= separate and height_width.max() * size_m <= block_m(size_m):
            yield np.concatenate([members[at] for at in near]), parts[near]
        else:
            yield from ((members[at], parts[[at]]) for at in near)


def _alike(keys: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Return the positions of equal rows."""
    _, numbers = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(numbers.ravel(), kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers.ravel()[order])) + 1)


def _arounds(boxes: NDArray[np.int64], groups: Sequence[NDArray[np.intp]]) -> NDArray[np.int64]:
    """Return the box around each group of boxes."""
    order, starts = np.concatenate(groups), np.cumsum([0, *map(len, groups[:-1])])
    low, high = np.minimum.reduceat(boxes[order, :2], starts), np.maximum.reduceat(boxes[order, 2:], starts)
    return np.hstack([low, high])


def _around(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.hstack([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _corners(plan: Plan, crs: str) -> list[tuple[float, float]]:
    """Return the different corners of granules on the lattice of tiles; the origin if no granule has the CRS."""
    lattice_m = max(_SIDES_M)
    found = {
        (x % lattice_m, y % lattice_m) for scene in plan.scenes if crs_code(scene) == crs for x, y in [_corner(scene)]
    }
    return sorted(found) or [(0.0, 0.0)]


def _corner(scene: pystac.Item) -> tuple[float, float]:
    return next(filter(None, map(corner, scene.assets.values())), (0.0, 0.0))


def _ranges(bounds: NDArray[np.float64], x_y: tuple[float, float], side_m: float) -> NDArray[np.int64]:
    """Return the squares that boxes meet: left, bottom, right, top."""
    low = np.floor((bounds[:, :2] - x_y) / side_m)
    high = np.ceil((bounds[:, 2:] - x_y) / side_m)
    return np.hstack([low, high]).astype(np.int64)
