"""The grid on which files are read. Its chunks end at tile edges, so that each tile is read for only one chunk."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

import pystac
from odc.geo.geobox import GeoBox

from s2cube.errors import ConfigError
from s2cube.kernels.mask import Steps
from s2cube.raster.placement import corner
from s2cube.scenes.scene import crs_code

if TYPE_CHECKING:
    import xarray as xr

Length: TypeAlias = int | str | tuple[int, ...] | None
Chunking: TypeAlias = Length | Mapping[str, Length]
"""Chunks as `xarray.DataArray.chunk` takes them."""

_CHUNK_CELLS = 2048
"""Maximum side of a chunk, which is 17 MB per band. At 30 m it is 61 km: a granule has four chunks."""

_STEP_PIXELS = 6144
"""Maximum side of a chunk on the finer grid of masks, which is 38 MB of scene classification."""

_TILE_LATTICE_M = 61440
"""Tiles of 1024 pixels of 10, 20 and 60 m have edges at its multiples. So do tiles of 512 pixels and of overviews."""

_FINER_M = (30720, 20480, 10240)
"""Some tiles have edges at multiples of these. They are used if cells are too small for `_TILE_LATTICE_M`."""

_LAYER_PIXEL_M = 20
_FINEST_STEP_M = 10


@dataclass(frozen=True)
class Chunks:
    """Chunk lengths of a grid, in cells."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class ReadGrid:
    """The grid on which the files of a time slice are read. `read_grid` computes it once.

    Parameters
    ----------
    geobox, chunks
        Grid of the bands.
    steps
        Number of steps per side of a cell. Masks are read on this finer grid.
    nests
        For each scene, whether its 20 m pixels consist of whole steps.
    halo_cells
        Number of cells by which the grid of masks is larger on every side. Clouds outside the grid extend into it by
        dilation, and a mask may be widened by a step from outside the grid.
    """

    geobox: GeoBox
    chunks: Chunks
    steps: int
    nests: tuple[bool, ...]
    halo_cells: int

    def mask_steps(self, nests: tuple[bool, ...] | None = None) -> Steps:
        """Return the steps of masks for the scenes of the slice, or for other scenes."""
        return Steps(self.steps, float(self.geobox.affine.a) / self.steps, nests or self.nests, self.halo_cells)

    @cached_property
    def step_geobox(self) -> GeoBox:
        """The grid on which masks are read."""
        rows, columns = (self.steps * (length + 2 * self.halo_cells) for length in self.geobox.shape)
        return self.geobox.pad(self.halo_cells).zoom_to((rows, columns))

    @cached_property
    def step_chunks(self) -> Chunks:
        """Chunks of `step_geobox`, one for each chunk of the bands."""
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
        Distance by which masks are dilated.
    """
    (grid,) = read_grids(geobox, [scenes], dilation_m)
    return grid


def small_grid(geobox: GeoBox, in_crs: tuple[bool, ...], dilation_m: float) -> ReadGrid:
    """Return the grid of an area that is read in one chunk.

    Parameters
    ----------
    in_crs
        For each scene, whether it has the CRS of the grid.
    """
    height, width = geobox.shape
    steps = _steps_per_cell(geobox.affine.a, all(in_crs))
    return _read_grid(geobox, Chunks((height,), (width,)), steps, in_crs, dilation_m)


def read_grids(geobox: GeoBox, slices: Iterable[Sequence[pystac.Item]], dilation_m: float) -> tuple[ReadGrid, ...]:
    """Choose chunks and steps for several time slices. Steps depend on the slice, chunks are the same for all.

    A small grid is one chunk. A larger grid is cut at tile edges of the first scene that has the grid's CRS and whose
    item declares its corner. If no scene has both, cuts are counted from the corner of the grid.
    """
    cell_m = geobox.affine.a
    alignments = [(scenes, [crs_code(scene) == str(geobox.crs) for scene in scenes]) for scenes in slices]
    steps = [_steps_per_cell(cell_m, all(in_crs)) for _, in_crs in alignments]
    aligned = [
        scene for scenes, in_crs in alignments for scene, is_aligned in zip(scenes, in_crs, strict=True) if is_aligned
    ]
    shortest = math.ceil(dilation_m / cell_m) + 1
    chunks = _chunks(geobox, aligned, max(steps), shortest)
    return tuple(
        _read_grid(geobox, chunks, steps_per_cell, in_crs, dilation_m)
        for (_, in_crs), steps_per_cell in zip(alignments, steps, strict=True)
    )


def _read_grid(geobox: GeoBox, chunks: Chunks, steps: int, in_crs: Sequence[bool], dilation_m: float) -> ReadGrid:
    divides = (_LAYER_PIXEL_M * steps / geobox.affine.a).is_integer()
    nests = tuple(divides and is_aligned for is_aligned in in_crs)
    return ReadGrid(geobox, chunks, steps, nests, math.ceil(dilation_m / geobox.affine.a) + (not all(nests)))


def _steps_per_cell(cell_m: float, is_aligned: bool) -> int:
    """Choose the number of steps per side of a cell, so that masks miss no pixel of a file."""
    fewest, most = (max(1, math.ceil(cell_m / step_m)) for step_m in (_LAYER_PIXEL_M, _FINEST_STEP_M))
    # Steps as wide as a pixel include every pixel only if rows and columns of both are parallel.
    if not is_aligned:
        return most
    return next((steps for steps in range(fewest, most) if (_LAYER_PIXEL_M * steps / cell_m).is_integer()), most)


def _chunks(geobox: GeoBox, aligned: Iterable[pystac.Item], steps: int, shortest: int) -> Chunks:
    longest = max(1, min(_CHUNK_CELLS, _STEP_PIXELS // steps))
    corners = (corner(asset) for scene in aligned for asset in scene.assets.values())
    left, top = next(filter(None, corners), (geobox.boundingbox.left, geobox.boundingbox.top))
    cell_m = geobox.affine.a
    side_m = _cut_distance_m(cell_m, longest)
    from_corner = ((geobox.boundingbox.top - top) / cell_m, (left - geobox.boundingbox.left) / cell_m)
    axes = zip(geobox.shape, from_corner, strict=True)
    lengths = (_chunk_lengths(length, longest, first, side_m / cell_m) for length, first in axes)
    return Chunks(*(_merged(each, shortest) for each in lengths))


def block_m(cell_m: float) -> float:
    """Return the side of a block, metres: the longest side of a chunk whose edges are edges of tiles."""
    return _cut_distance_m(cell_m, min(_CHUNK_CELLS, max(1, int(_TILE_LATTICE_M / cell_m))))


@lru_cache
def _cut_distance_m(cell_m: float, longest: int) -> float:
    """Choose the distance between cuts: the longest one at which tile edges are also cell edges."""
    multiples = range(int(longest * cell_m / _TILE_LATTICE_M), 0, -1)
    candidates = [_TILE_LATTICE_M * multiple for multiple in multiples] + list(_FINER_M)
    fitting = [side_m for side_m in candidates if side_m <= longest * cell_m]
    return next((side_m for side_m in fitting if (side_m / cell_m).is_integer()), longest * cell_m)


def _chunk_lengths(length: int, longest: int, first: float, side: float) -> tuple[int, ...]:
    """Cut cells [0, length) at first + n × side, in cells. A tile that ends inside a cell is read for two chunks."""
    if length <= longest:
        return (length,)
    start = first % side
    edges = {math.floor(start + side * count + 1e-6) for count in range(math.ceil(length / side) + 1)}
    inner = sorted(edge for edge in edges if 0 < edge < length)
    return tuple(after - before for before, after in zip([0, *inner], [*inner, length], strict=True))


def _merged(lengths: tuple[int, ...], shortest: int) -> tuple[int, ...]:
    """Merge chunks that are shorter than the halo, because the halo of a chunk must be in one neighbour."""
    merged: list[int] = []
    for length in lengths:
        if merged and min(merged[-1], length) < shortest:
            merged[-1] += length
        else:
            merged.append(length)
    return tuple(merged)


def rechunked(cube: "xr.DataArray", chunks: Chunking) -> "xr.DataArray":
    """Change the chunks of a cube and of its coordinate `qa`. Coordinates in memory remain there.

    Raises
    ------
    ConfigError
        If `chunks` is not what `xarray.DataArray.chunk` takes.
    """
    remedy = f"Give a number, 'auto', or a dict of them by dimension ({', '.join(map(str, cube.dims))})"
    by_dimension = chunks if isinstance(chunks, Mapping) else dict.fromkeys(cube.dims, chunks)
    for name, length in by_dimension.items():
        if name not in cube.dims or not _is_length(length):
            raise ConfigError("chunks", f"{name}: {length!r} is not a chunk length of a dimension", remedy)
    try:
        changed = cube.chunk(chunks)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError("chunks", f"cannot be used ({error})", remedy) from None
    return changed.assign_coords({name: each for name, each in cube.coords.items() if each.chunks is None})


def _is_length(value: object) -> bool:
    lengths = value if isinstance(value, tuple) else (value,)
    return all(
        each is None
        or isinstance(each, str)
        or (isinstance(each, int) and each is not True and (each > 0 or each == -1))
        for each in lengths
    )
