"""The grids that files are read on, cut into chunks along the files' tiles, so that none is read by two."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pystac
from odc.geo.geobox import GeoBox

from s2cube.scenes.scene import crs_code
from s2cube.scenes.time_slice import Plan

_CHUNK_CELLS = 2048
"""Bound of a chunk's side: 17 MB of a band; at 30 m 61 km, so that a granule is four chunks."""

_STEP_PIXELS = 6144
"""Bound of a chunk's side on the finer grid that masks are read on: 38 MB of scene classification."""

_TILE_LATTICE_M = 61440
"""Tiles of 1024 pixels of 10, 20 and 60 m (and of 512, and those of overviews) all have edges at multiples of it."""

_FINER_M = (30720, 20480, 10240)
"""So have some of them at these, where cells are too small for more."""


_LAYER_PIXEL_M = 20
_FINEST_STEP_M = 10


@dataclass(frozen=True)
class Chunks:
    """Lengths of the chunks of a grid, in cells."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def on_steps(plan: Plan, halo_cells: int) -> tuple[GeoBox, Chunks]:
    """Give the grid that masks are read on: the plan's with a halo, its cells cut into `steps_per_cell`; and chunks."""
    steps = steps_per_cell(plan)
    rows, columns = (length + 2 * halo_cells for length in plan.geobox.shape)
    cut = chunks(plan)
    return (
        plan.geobox.pad(halo_cells).zoom_to((rows * steps, columns * steps)),
        Chunks(*(_with_halo(lengths, halo_cells, steps) for lengths in (cut.rows, cut.columns))),
    )


def _with_halo(lengths: tuple[int, ...], halo: int, steps: int) -> tuple[int, ...]:
    first, last = 0, len(lengths) - 1
    return tuple(
        steps * (length + halo * ((position == first) + (position == last))) for position, length in enumerate(lengths)
    )


def chunks(plan: Plan) -> Chunks:
    """Cut a plan's grid into chunks.

    A grid that is small enough is one. A larger one is cut at edges of tiles of the granule that lies first in the
    grid's CRS and tells its place; where there is none, from the grid's own corner on. Masks and bands have the same.
    """
    grid = plan.geobox
    most = max(1, min(_CHUNK_CELLS, _STEP_PIXELS // steps_per_cell(plan)))
    left, top = next(_corners(plan), (grid.boundingbox.left, grid.boundingbox.top))
    cell_m = grid.resolution.x
    side_m = _side_m(cell_m, most)
    from_corner = ((grid.boundingbox.top - top) / cell_m, (left - grid.boundingbox.left) / cell_m)
    return Chunks(
        *(_cut(length, most, first, side_m / cell_m) for length, first in zip(grid.shape, from_corner, strict=True))
    )


def _side_m(cell_m: float, most: int) -> float:
    """Choose how far apart cuts are: as far as may be, at edges of tiles, if these are edges of cells, too."""
    multiples = range(int(most * cell_m / _TILE_LATTICE_M), 0, -1)
    candidates = [_TILE_LATTICE_M * multiple for multiple in multiples] + list(_FINER_M)
    fitting = [side_m for side_m in candidates if side_m <= most * cell_m]
    return next((side_m for side_m in fitting if (side_m / cell_m).is_integer()), most * cell_m)


def _cut(length: int, most: int, first: float, apart: float) -> tuple[int, ...]:
    """Cut cells [0, length) at first + n × apart, in cells; a tile that ends within a cell is read by two chunks."""
    if length <= most:
        return (length,)
    start = first % apart
    edges = {math.floor(start + apart * count + 1e-6) for count in range(math.ceil(length / apart) + 1)}
    inner = sorted(edge for edge in edges if 0 < edge < length)
    return tuple(after - before for before, after in zip([0, *inner], [*inner, length], strict=True))


def halo_cells(plan: Plan, dilation_m: float) -> int:
    """Tell how far outside the grid masks must look: clouds reach into it, and a step beside a cell may lie outside."""
    return math.ceil(dilation_m / plan.geobox.resolution.x) + (not all(nests(plan)))


def nests(plan: Plan) -> list[bool]:
    """Tell of each scene whether its 20 m pixels are made of whole steps of the grid, as `on_steps` cuts it."""
    divides = (_LAYER_PIXEL_M * steps_per_cell(plan) / plan.geobox.resolution.x).is_integer()
    return [divides and crs_code(scene) == str(plan.geobox.crs) for scene in plan.scenes]


def steps_per_cell(plan: Plan) -> int:
    """Choose into how many steps a cell's side is cut to read masks, so that no source pixel is missed."""
    resolution_m = plan.geobox.resolution.x
    fewest, most = (max(1, math.ceil(resolution_m / step_m)) for step_m in (_LAYER_PIXEL_M, _FINEST_STEP_M))
    # A step as wide as a pixel meets every pixel only where both run along.
    if any(crs_code(scene) != str(plan.geobox.crs) for scene in plan.scenes):
        return most
    for steps in range(fewest, most):
        if (_LAYER_PIXEL_M * steps / resolution_m).is_integer():
            return steps
    return most


def _corners(plan: Plan) -> Iterator[tuple[float, float]]:
    """Yield the upper left corners of scenes in the grid's CRS, as far as their items tell them."""
    for scene in plan.scenes:
        if crs_code(scene) == str(plan.geobox.crs):
            for asset in scene.assets.values():
                if place := corner(asset):
                    yield place
                    break


def corner(asset: pystac.Asset) -> tuple[float, float] | None:
    """Give the upper left corner of a file, (x, y) in its CRS, if its item tells."""
    transform: Sequence[float] = asset.extra_fields.get("proj:transform") or ()
    if len(transform) < 6 or not all(isinstance(each, int | float) and math.isfinite(each) for each in transform):
        return None
    across, _, left, _, down, top = transform[:6]
    return (left, top) if across > 0 > down else None
