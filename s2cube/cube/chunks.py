"""The grid that files are read on, in chunks that end where tiles of the files end: no tile is read for two chunks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pystac
from odc.geo.geobox import GeoBox

from s2cube.raster.placement import corner
from s2cube.scenes.scene import crs_code

_CHUNK_CELLS = 2048
"""Longest side of a chunk: 17 MB of a band. At 30 m it is 61 km, so that a granule is four chunks."""

_STEP_PIXELS = 6144
"""Longest side of a chunk on the finer grid that masks are read on: 38 MB of scene classification."""

_TILE_LATTICE_M = 61440
"""Tiles of 1024 pixels of 10, 20 and 60 m have edges at multiples of it; so have tiles of 512, and of overviews."""

_FINER_M = (30720, 20480, 10240)
"""Some tiles have edges at multiples of these, too. They serve cells that are too small for the lattice above."""

_LAYER_PIXEL_M = 20
_FINEST_STEP_M = 10


@dataclass(frozen=True)
class Chunks:
    """Lengths of the chunks of a grid, in cells."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class ReadGrid:
    """The grid that the files of some scenes are read on: `read_grid` computes it once.

    Parameters
    ----------
    geobox, chunks
        Of bands.
    steps
        Masks are read on a finer grid: each side of a cell is cut into so many steps.
    nests
        Of each scene, whether its 20 m pixels consist of whole steps.
    halo_cells
        The grid of masks is larger by so many cells on every side. Clouds outside the grid reach into it by dilation,
        and a step beside a cell may lie outside.
    """

    geobox: GeoBox
    chunks: Chunks
    steps: int
    nests: tuple[bool, ...]
    halo_cells: int

    @cached_property
    def step_geobox(self) -> GeoBox:
        """The grid that masks are read on."""
        rows, columns = (self.steps * (length + 2 * self.halo_cells) for length in self.geobox.shape)
        return self.geobox.pad(self.halo_cells).zoom_to((rows, columns))

    @cached_property
    def step_chunks(self) -> Chunks:
        """Its chunks, as many as those of bands."""
        return Chunks(*(self._with_halo(lengths) for lengths in (self.chunks.rows, self.chunks.columns)))

    def _with_halo(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        first, last = 0, len(lengths) - 1
        return tuple(
            self.steps * (length + self.halo_cells * ((position == first) + (position == last)))
            for position, length in enumerate(lengths)
        )


def read_grid(geobox: GeoBox, scenes: Sequence[pystac.Item], dilation_m: float) -> ReadGrid:
    """Choose chunks and steps for the scenes of one time slice.

    Parameters
    ----------
    geobox
        Grid of the image.
    dilation_m
        Distance by which masks grow.
    """
    (grid,) = read_grids(geobox, [scenes], dilation_m)
    return grid


def read_grids(geobox: GeoBox, slices: Iterable[Sequence[pystac.Item]], dilation_m: float) -> tuple[ReadGrid, ...]:
    """Choose for the scenes of several time slices: steps for each slice alone, but the same chunks for all.

    A small grid is one chunk. A larger one is cut at edges of tiles of the first scene that is in the grid's CRS and
    whose item gives its corner. If there is none, it is cut from its own corner on.
    """
    cell_m = geobox.resolution.x
    of_slices = [(scenes, [crs_code(scene) == str(geobox.crs) for scene in scenes]) for scenes in slices]
    steps = [_steps_per_cell(cell_m, all(in_crs)) for _, in_crs in of_slices]
    aligned = [
        scene for scenes, in_crs in of_slices for scene, is_aligned in zip(scenes, in_crs, strict=True) if is_aligned
    ]
    chunks = _chunks(geobox, aligned, max(steps))
    grids = []
    for (_, in_crs), of_cell in zip(of_slices, steps, strict=True):
        divides = (_LAYER_PIXEL_M * of_cell / cell_m).is_integer()
        nests = tuple(divides and is_aligned for is_aligned in in_crs)
        halo_cells = math.ceil(dilation_m / cell_m) + (not all(nests))
        grids.append(ReadGrid(geobox, chunks, of_cell, nests, halo_cells))
    return tuple(grids)


def _steps_per_cell(cell_m: float, is_aligned: bool) -> int:
    """Choose into how many steps the side of a cell is cut, so that masks miss no pixel of a file."""
    fewest, most = (max(1, math.ceil(cell_m / step_m)) for step_m in (_LAYER_PIXEL_M, _FINEST_STEP_M))
    # A step as wide as a pixel meets every pixel only if rows and columns of both are parallel.
    if not is_aligned:
        return most
    return next((steps for steps in range(fewest, most) if (_LAYER_PIXEL_M * steps / cell_m).is_integer()), most)


def _chunks(geobox: GeoBox, aligned: Iterable[pystac.Item], steps: int) -> Chunks:
    most = max(1, min(_CHUNK_CELLS, _STEP_PIXELS // steps))
    corners = (corner(asset) for scene in aligned for asset in scene.assets.values())
    left, top = next(filter(None, corners), (geobox.boundingbox.left, geobox.boundingbox.top))
    cell_m = geobox.resolution.x
    side_m = _side_m(cell_m, most)
    from_corner = ((geobox.boundingbox.top - top) / cell_m, (left - geobox.boundingbox.left) / cell_m)
    return Chunks(
        *(_cut(length, most, first, side_m / cell_m) for length, first in zip(geobox.shape, from_corner, strict=True))
    )


def _side_m(cell_m: float, most: int) -> float:
    """Choose the distance of cuts: the longest at edges of tiles, if these are edges of cells, too."""
    multiples = range(int(most * cell_m / _TILE_LATTICE_M), 0, -1)
    candidates = [_TILE_LATTICE_M * multiple for multiple in multiples] + list(_FINER_M)
    fitting = [side_m for side_m in candidates if side_m <= most * cell_m]
    return next((side_m for side_m in fitting if (side_m / cell_m).is_integer()), most * cell_m)


def _cut(length: int, most: int, first: float, apart: float) -> tuple[int, ...]:
    """Cut cells [0, length) at first + n × apart, in cells. Two chunks read a tile that ends within a cell."""
    if length <= most:
        return (length,)
    start = first % apart
    edges = {math.floor(start + apart * count + 1e-6) for count in range(math.ceil(length / apart) + 1)}
    inner = sorted(edge for edge in edges if 0 < edge < length)
    return tuple(after - before for before, after in zip([0, *inner], [*inner, length], strict=True))
