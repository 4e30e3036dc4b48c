"""Read small areas that are close to each other together, so that each tile is fetched and decoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from dask import threaded
from dask.base import compute
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from s2cube.config.literals import Quality
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import Chunks, ReadGrid
from s2cube.cube.reads import Read, reads
from s2cube.errors import SliceError
from s2cube.fetch.store import Access
from s2cube.kernels.mask import Steps
from s2cube.raster.reader import Faults
from s2cube.scenes.time_slice import Task

_File = tuple[int, str]
"""The id of a scene's object, and the name of a band or layer."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some slices of areas that are close to each other, and a grid that contains the grids of the areas.

    Parameters
    ----------
    tasks
        One task per slice. Their grids have the same CRS, lattice and number of steps per cell.
    grids
        Grid of the scenes of each slice, by its id.
    """

    tasks: tuple[Task, ...]
    grids: Mapping[str, ReadGrid]

    @cached_property
    def grid(self) -> ReadGrid:
        """Grid of all scenes. It is one chunk. Its halo is the largest one."""
        grids = [self.grids[task.id] for task in self.tasks]
        pairs = zip(self.tasks, grids, strict=True)
        nests = {id(scene): each for task, grid in pairs for scene, each in zip(task.scenes, grid.nests, strict=True)}
        whole = _union([grid.geobox for grid in grids])
        chunks = Chunks(*((length,) for length in whole.shape))
        return ReadGrid(whole, chunks, grids[0].steps, tuple(nests.values()), max(grid.halo_cells for grid in grids))

    def files(self, tasks: Sequence[Task], config: CubeSection) -> list[Read]:
        """List the files of the scenes of some slices, see `reads`."""
        scenes = {id(scene): scene for task in tasks for scene in task.scenes}
        return reads(scenes.values(), self.grid, config)

    def parts(self, tasks: Sequence[Task], files: Sequence[Read]) -> dict[str, tuple[Window, ...]]:
        """Return the windows that some slices need of each file, by its URL."""
        of_scenes: dict[int, list[Task]] = {}
        for task in tasks:
            for scene in task.scenes:
                of_scenes.setdefault(id(scene), []).append(task)
        # Slices of several days have the same parts: with many parts, their windows take long to compute.
        known: dict[tuple[int, int, bool], tuple[tuple[int, int], Window]] = {}
        parts: dict[str, dict[tuple[int, int], Window]] = {}
        for file in files:
            # Areas that have the same grid need the same window.
            windows = parts.setdefault(file.asset.href, {})
            for task in of_scenes[id(file.scene)]:
                for part in task.parts:
                    key = id(part), self.grids[task.id].halo_cells, file.is_layer
                    if key not in known:
                        window = self.window(task, file.is_layer, part)
                        known[key] = window.flatten(), window
                    place, window = known[key]
                    windows[place] = window
        return {href: tuple(windows.values()) for href, windows in parts.items()}

    def window(self, task: Task, is_layer: bool, part: GeoBox | None = None) -> Window:
        """Return the window of the area of a slice in cells, or of a layer in steps, with the halo of the slice.

        Parameters
        ----------
        part
            Part of the grid of the area; None: the complete grid.
        """
        own, whole = self.grids[task.id], self.grid
        geobox = task.geobox if part is None else part
        steps, halo, margin = (whole.steps, own.halo_cells, whole.halo_cells) if is_layer else (1, 0, 0)
        row, column = _position(geobox, whole.geobox)
        shape, around = geobox.shape, 2 * halo
        width, height = steps * (shape.x + around), steps * (shape.y + around)
        return Window(steps * (column + margin - halo), steps * (row + margin - halo), width, height)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of bands or layers of a block.

    Parameters
    ----------
    arrays
        Dims (y, x), by scene and name. Only the areas contain values.
    faults
        What could not be read.
    """

    block: Block
    files: Mapping[_File, Read]
    arrays: Mapping[_File, np.ndarray]
    faults: Mapping[bool, Faults]

    def of(self, task: Task, names: Sequence[str]) -> np.ndarray:
        """Return bands, or one layer, of the scenes of a slice, on the grid of its area.

        Returns
        -------
        numpy.ndarray
            Dims (scene, band, y, x). A layer is on steps, with the halo of the slice.

        Raises
        ------
        SliceError
            If a part of a file that the slice needs could not be read.
        """
        if error := self.error(task, names):
            raise error
        return self.cut(task, names)

    def error(self, task: Task, names: Sequence[str], part: GeoBox | None = None) -> SliceError | None:
        """Return why bands or layers of a slice could not be read; None if they were read.

        Parameters
        ----------
        part
            Part of the grid of the area that is needed; None: the complete grid.
        """
        for name in names:
            for scene in task.scenes:
                file = self.files[id(scene), name]
                window = self.block.window(task, file.is_layer, part)
                if error := self.faults[file.is_layer].find(file.asset.href, window):
                    return error
        return None

    def cut(self, task: Task, names: Sequence[str]) -> np.ndarray:
        """Return the same as `of`. Values that could not be read are not specified."""
        keys = [[(id(scene), name) for name in names] for scene in task.scenes]
        first = self.files[keys[0][0]]
        rows, columns = self.block.window(task, first.is_layer).toslices()
        height, width = rows.stop - rows.start, columns.stop - columns.start
        found = np.empty((len(keys), len(names), height, width), first.dtype)
        for at, of_scene in enumerate(keys):
            for position, key in enumerate(of_scene):
                found[at, position] = self.arrays[key][rows, columns]
        return found

    def steps(self, task: Task) -> Steps:
        """Return the steps on which the layers of a slice are read."""
        return self.block.grids[task.id].mask_steps()


def read_block(
    block: Block, tasks: Sequence[Task], files: Sequence[Read], quality: Quality, access: Access, threads: int
) -> Pixels:
    """Read files for some slices of a block.

    Parameters
    ----------
    files
        From `Block.files`.
    threads
        Number of threads that read.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    from s2cube.cube.stack import read_parts

    faults = {True: Faults(), False: Faults()}
    arrays: dict[_File, np.ndarray] = {}
    keys, lazy = [], []
    for is_layer, names in _stacks(files):
        alike = [each for each in files if each.name in names]
        parts = block.parts(tasks, alike)
        stack = read_parts(alike, quality, access, parts, faults[is_layer])
        keys += [(id(each.scene), each.name) for each in alike]
        lazy += stack.to_delayed().ravel().tolist()
    for key, chunk in zip(keys, compute(*lazy, scheduler=threaded.get, num_workers=threads), strict=True):
        arrays[key] = chunk[0, 0]
    return Pixels(block, {(id(each.scene), each.name): each for each in files}, arrays, faults)


def _stacks(files: Sequence[Read]) -> list[tuple[bool, frozenset[str]]]:
    """Group the names of files that have the same grid and dtype: all bands, and each layer."""
    layers = dict.fromkeys(each.name for each in files if each.is_layer)
    bands = frozenset(each.name for each in files if not each.is_layer)
    return [(True, frozenset({name})) for name in layers] + ([(False, bands)] if bands else [])


def _position(part: GeoBox, whole: GeoBox) -> tuple[int, int]:
    """Return the row and column at which a grid begins in another one of the same lattice."""
    own, around = part.affine, whole.affine
    return round((around.f - own.f) / around.a), round((own.c - around.c) / around.a)


def _union(grids: Sequence[GeoBox]) -> GeoBox:
    """Return the smallest grid that contains other grids of one lattice.

    `geobox_union_conservative` of odc-geo returns the same, but takes 20 times as long, which is felt with many fields.
    """
    first = grids[0]
    places = np.array([[*_position(each, first), *each.shape] for each in grids])
    top, left = places[:, :2].min(axis=0).tolist()
    bottom, right = (places[:, :2] + places[:, 2:]).max(axis=0).tolist()
    return GeoBox((bottom - top, right - left), first.affine @ Affine.translation(left, top), first.crs)
