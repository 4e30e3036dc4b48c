"""Compute images of time slices lazily, chunk by chunk. Each step of a chunk is one task of Dask."""

import logging
from collections.abc import Callable, Sequence
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
from s2cube.cube.tap import NOBODY, Observers, Tap
from s2cube.fetch.store import Access
from s2cube.kernels import mask
from s2cube.kernels.indices import LARGEST_INT16, BeyondInt16, beyond_int16, index_values, pack_index
from s2cube.kernels.mask import Screened
from s2cube.kernels.mosaic import means, mosaic, pack, reflectance
from s2cube.kernels.offset_check import GROUNDS, count_dark, doubtful
from s2cube.kernels.packing import PACKINGS
from s2cube.scenes.assets import bands_read, layers_read
from s2cube.sentinel2 import QA, class_band_of, reflectance_bands
from s2cube.spectral_indices import bands_of_indices

log = logging.getLogger(__name__)

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
    dn: da.Array | None, masks: da.Array, inside: da.Array, offsets: Sequence[np.ndarray], config: CubeSection,
    observers: Observers = NOBODY,
) -> da.Array:  # fmt: skip
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
    observers
        Receive the number of cells with an index that int16 cannot store, and pixels.

    Returns
    -------
    dask.array.Array
        Dims (time, band, y, x), see `mosaic`: the bands, then the indices; nodata outside the area.
    """
    parts: list[da.Array] = []
    if dn is not None:
        whole = dn.rechunk({0: tuple(map(len, offsets))})
        if not config.indices and observers.tap is None:
            of_reflectance = _by_chunk(
                _MosaicChunk(tuple(offsets), "", config.dtype), config.dtype, whole, masks, inside
            )
            if not any(map(class_band_of, config.bands)):
                return of_reflectance
        else:
            # An index and a band may need the same means, which would be computed twice without this array.
            found = means_of(dn, masks, offsets, observers.tap)
            of_reflectance = _by_chunk(partial(_pack_chunk, dtype=config.dtype), config.dtype, found, inside)
        parts = [of_reflectance.blocks[:, at] for at in range(len(reflectance_bands(config.bands)))]
    for at, name in enumerate(config.bands):
        if class_band_of(name):
            function = _MosaicChunk(tuple(offsets), name, config.dtype)
            parts.insert(at, _by_chunk(function, config.dtype, None, masks, inside))
    for name in config.indices:
        bands = bands_of_indices([name])
        needed = found.blocks[:, [bands_read(config).index(band) for band in bands]].rechunk({1: -1})
        parts.append(_by_chunk(_IndexChunk(name, bands, config.dtype, observers.beyond), config.dtype, needed, inside))
    return da.concatenate(parts, axis=1)


def means_of(dn: da.Array, masks: da.Array, offsets: Sequence[np.ndarray], tap: Tap | None = None) -> da.Array:
    """Combine the scenes of slices lazily, without packing and clipping them, see `mosaic.means`.

    Parameters
    ----------
    dn, masks, offsets
        As in `images`.
    tap
        Receives the pixels of one slice.

    Returns
    -------
    dask.array.Array
        Dims (time, band, y, x), float32.
    """
    whole = dn.rechunk({0: tuple(map(len, offsets))})
    return _by_chunk(_MeansChunk(tuple(offsets), tap), "float32", whole, masks)


def _by_chunk(function: Callable[..., np.ndarray], dtype: Dtype, *arrays: da.Array | None) -> da.Array:
    """Apply a function to each chunk of images, dims (time, band, y, x). It returns one band of one image."""
    first = next(each for each in arrays if each is not None)
    slices, bands = ((1,) * count for count in first.numblocks[:2])
    meta, chunks = np.empty((0, 0, 0, 0), dtype), (slices, bands, *first.chunks[2:])
    found: da.Array = da.map_blocks(function, *arrays, chunks=chunks, dtype=dtype, meta=meta)
    return found


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
        return _clip(values, inside, self.dtype)[np.newaxis]


@dataclass(frozen=True)
class _MeansChunk:
    """Computes a chunk of one band that indices, the image or a tap need, see `means`."""

    offsets: tuple[np.ndarray, ...]
    tap: Tap | None

    def __call__(self, dn: np.ndarray, masks: Screened, block_id: tuple[int, ...]) -> np.ndarray:
        found = means(dn, masks, self.offsets[block_id[0]])
        if self.tap is not None:
            self.tap.put(block_id, found, masks)
        return found[np.newaxis]


def _pack_chunk(found: np.ndarray, inside: np.ndarray, dtype: Dtype) -> np.ndarray:
    return _clip(pack(found, dtype), inside, dtype)


@dataclass(frozen=True)
class _IndexChunk:
    """Computes a chunk of one index.

    Parameters
    ----------
    bands
        Names of the bands of the chunk.
    beyond
        Receives the number of cells that int16 cannot store. None: it is logged.
    """

    name: str
    bands: tuple[str, ...]
    dtype: Dtype
    beyond: BeyondInt16 | None

    def __call__(self, found: np.ndarray, inside: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        values = index_values(reflectance(found[0]), self.bands, [self.name])
        cells = int(np.count_nonzero(beyond_int16(values) & inside)) if self.dtype == "int16" else 0
        if self.beyond is not None:
            self.beyond.add(self.name, block_id, cells)
        elif cells:
            log.warning("%d cells with %s beyond ±%g become nodata", cells, self.name, LARGEST_INT16)
        return _clip(pack_index(values, self.dtype), inside, self.dtype)[np.newaxis]


def _clip(values: np.ndarray, inside: np.ndarray, dtype: Dtype) -> np.ndarray:
    return np.where(inside, values, np.array(PACKINGS[dtype].nodata, dtype))


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
