"""Compute images of time slices lazily, chunk by chunk. Each step of a chunk is one task of Dask."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import dask.array as da
import numpy as np
from dask.base import annotate

from s2cube.config.literals import Dtype
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import ReadGrid
from s2cube.cube.reads import Read
from s2cube.cube.stack import read_layers
from s2cube.fetch.store import Access
from s2cube.kernels import mask
from s2cube.kernels.mask import Screened
from s2cube.kernels.mosaic import mosaic
from s2cube.kernels.offset_check import GROUNDS, count_dark, doubtful
from s2cube.kernels.packing import PACKINGS
from s2cube.scenes.assets import layers_read
from s2cube.sentinel2 import QA, class_band_of

_META = np.empty((0, 0, 0, 0), object)


def screened(files: Sequence[list[Read]], grids: Sequence[ReadGrid], config: CubeSection, access: Access) -> da.Array:
    """Compute the masks of slices lazily.

    Parameters
    ----------
    files
        From `reads`, for each slice.
    grids
        Grid of each slice. All have the same chunks.

    Returns
    -------
    dask.array.Array
        Dims (time, 1, y, x). A block is no array, but the `Screened` of a chunk of a slice, so only the functions of
        this wing can use it.
    """
    # Slices with equal steps and halo are read together. So the masks of a slice do not depend on other slices.
    alike: dict[tuple[int, int], list[int]] = {}
    for at, grid in enumerate(grids):
        alike.setdefault((grid.steps, grid.halo_cells), []).append(at)
    parts = {
        at: part.blocks[[position]] if len(alike) > 1 else part
        for positions in alike.values()
        for part in [_screened([files[at] for at in positions], [grids[at] for at in positions], config, access)]
        for position, at in enumerate(positions)
    }
    return parts[0] if len(alike) == 1 else da.concatenate([parts[at] for at in sorted(parts)])


def _screened(files: Sequence[list[Read]], grids: Sequence[ReadGrid], config: CubeSection, access: Access) -> da.Array:
    grid, names = grids[0], layers_read(config)
    chunks = ((1,) * len(grids), (1,), grid.chunks.rows, grid.chunks.columns)
    of_slices = tuple(each.nests for each in grids)
    if not names:
        function = partial(_unmasked, scenes=tuple(map(len, of_slices)), chunks=chunks[2:])
        return da.map_blocks(function, chunks=chunks, dtype=object, meta=_META)
    layers = read_layers([file for of_slice in files for file in of_slice], names, access)
    halo = grid.halo_cells * grid.steps
    if halo and any(count > 1 for count in layers[0].numblocks[1:]):
        depth = {0: 0, 1: halo, 2: halo}
        layers = [da.overlap.overlap(each, depth, boundary="none", allow_rechunk=False) for each in layers]
    grouped = [each.rechunk({0: tuple(map(len, of_slices))}) for each in layers]
    function = partial(_screen_chunk, names=names, grid=grid, nests=of_slices, config=config)
    # Without the annotation, Dask would repeat this task for every band.
    with annotate(fuse=False):
        return da.map_blocks(function, *grouped, new_axis=1, chunks=chunks, dtype=object, meta=_META)


def _unmasked(scenes: tuple[int, ...], chunks: tuple[tuple[int, ...], ...], block_id: tuple[int, ...]) -> Screened:
    of_slice, _, row, column = block_id
    return mask.no_screen(scenes[of_slice], (chunks[0][row], chunks[1][column]))


def _screen_chunk(
    *layers: np.ndarray, names: tuple[str, ...], grid: ReadGrid, nests: tuple[tuple[bool, ...], ...],
    config: CubeSection, block_id: tuple[int, ...],
) -> Screened:  # fmt: skip
    return mask.screen(dict(zip(names, layers, strict=True)), grid.mask_steps(nests[block_id[0]]), config)


def reasons(masks: da.Array, inside: da.Array) -> da.Array:
    """Explain lazily why cells are masked.

    Parameters
    ----------
    masks
        From `screened`.
    inside
        Cells of the area of interest, dims (y, x), from `cut.inside_chunks`.

    Returns
    -------
    dask.array.Array
        Dims (time, y, x), uint8, from `mask.explain`; `QA.OUTSIDE` outside the area.
    """
    meta = np.empty((0, 0, 0, 0), "uint8")
    found: da.Array = da.map_blocks(_explain, masks, inside, chunks=masks.chunks, dtype="uint8", meta=meta)[:, 0]
    return found


def _explain(masks: Screened, inside: np.ndarray) -> np.ndarray:
    return np.where(inside, mask.explain(masks), np.uint8(QA.OUTSIDE))[np.newaxis, np.newaxis]


def images(
    dn: da.Array | None, masks: da.Array, inside: da.Array, offsets: Sequence[np.ndarray], config: CubeSection
) -> da.Array:
    """Combine the scenes of slices lazily, and clip the images to an area of interest.

    Parameters
    ----------
    dn
        From `read_bands`; None if there are only bands of classes.
    masks
        From `screened`.
    inside
        Cells of the area of interest, dims (y, x), from `cut.inside_chunks`.
    offsets
        For each slice, the offset that is added to the digital numbers of each scene.

    Returns
    -------
    dask.array.Array
        Dims (time, band, y, x), see `mosaic`; nodata outside the area.
    """
    meta = np.empty((0, 0, 0, 0), config.dtype)
    parts: list[da.Array] = []
    if dn is not None:
        per_slice = tuple(map(len, offsets))
        of_reflectance: da.Array = da.map_blocks(
            _MosaicChunk(tuple(offsets), "", config.dtype), dn.rechunk({0: per_slice}), masks, inside,
            chunks=((1,) * len(per_slice), *dn.chunks[1:]), dtype=config.dtype, meta=meta,
        )  # fmt: skip
        if all(class_band_of(name) is None for name in config.bands):
            return of_reflectance
        parts = [of_reflectance[:, [at]] for at in range(dn.shape[1])]
    for at, name in enumerate(config.bands):
        if class_band_of(name):
            function = _MosaicChunk(tuple(offsets), name, config.dtype)
            classes = da.map_blocks(function, None, masks, inside, chunks=masks.chunks, dtype=config.dtype, meta=meta)
            parts.insert(at, classes)
    return da.concatenate(parts, axis=1)


@dataclass(frozen=True)
class _MosaicChunk:
    """Computes a chunk of one band of an image.

    Parameters
    ----------
    offsets
        For each slice, the offset that is added to the digital numbers of each scene.
    band
        Name of the band, if it is a band of classes.
    """

    offsets: tuple[np.ndarray, ...]
    band: str
    dtype: Dtype

    def __call__(
        self, dn: np.ndarray | None, masks: Screened, inside: np.ndarray, block_id: tuple[int, ...]
    ) -> np.ndarray:
        values = mosaic(dn, masks, self.offsets[block_id[0]], [self.band], self.dtype)
        return np.where(inside, values, np.array(PACKINGS[self.dtype].nodata, self.dtype))[np.newaxis]


@dataclass(frozen=True, eq=False)
class OffsetCheck:
    """Check, chunk by chunk, whether the pixels of one slice disagree with the offsets that are added to them.

    Parameters
    ----------
    dn
        From `read_bands`.
    masks
        From `screened`.
    offsets
        Offset that is added to the digital numbers of each scene.
    bands
        Names of the bands in `BAND_ASSETS`.
    """

    dn: da.Array
    masks: da.Array
    offsets: np.ndarray
    bands: tuple[str, ...]

    def tallies(self) -> da.Array:
        """Count dark cells.

        Returns
        -------
        dask.array.Array
            Lazy, int64, dims (scene, band, chunk row, chunk column, ground, count), see `count_dark`.
        """
        scenes, bands, *parts = self.dn.numblocks
        chunks = ((scenes,), (1,) * bands, *((1,) * count for count in parts), (len(GROUNDS),), (2,))
        found: da.Array = da.map_blocks(
            _count_dark, self.dn.rechunk({0: scenes}), self.masks, offsets=self.offsets, new_axis=(4, 5),
            chunks=chunks, dtype="int64", meta=np.empty((0,) * 6, "int64"),
        )  # fmt: skip
        return found

    def doubtful(self, tallies: np.ndarray) -> list[bool]:
        """Return which scenes have a doubtful offset. `tallies` are summed over chunks."""
        return doubtful(tallies, self.offsets, self.bands)


def _count_dark(dn: np.ndarray, masks: Screened, offsets: np.ndarray) -> np.ndarray:
    return count_dark(dn, masks, offsets)[:, :, np.newaxis, np.newaxis]
