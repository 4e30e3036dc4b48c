"""Which cells of an image are valid, and why others are not: pure functions of arrays."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import Chunks
from s2cube.sentinel2 import CLOUD_CLASSES, NO_DATA_CLASS, QA

_SHADOW_CLASS = 3
_UNSURE_CLASS = 7
_LAST_CLASS = 11
"""Scene classes of Sen2Cor (Sentinel-2 Products Specification Document). 7 is unclassified; newer products call it
"cloud, low probability". The last one, 11, is snow."""

_QA60_CLOUDS = 1 << 10 | 1 << 11
"""Opaque cloud and cirrus in QA60, as Google Earth Engine, which made this layer, defines its bits."""

_UNHIDDEN = 99
"""Placeholder that is larger than any QA value, for minimum operations."""


def screen(layers: xr.Dataset, config: CubeSection, scenes_per_slice: tuple[int, ...], halo_cells: int) -> xr.Dataset:
    """Find the cells of a grid that show only clear ground, and the reasons why others do not.

    Parameters
    ----------
    layers
        Dims (scene, y, x), the layers that `config.mask` names, on steps: each side of a cell is cut into `steps`
        (attribute) of `step_m` metres. A halo of `halo_cells` cells is around the grid. If the coordinate `nests` is
        False, a pixel may overlap a cell without being read on one of its steps. It is then read on a step beside it,
        so that clouds are widened by one step.
    config
        Classes, thresholds and dilation. A masked step masks its whole cell. Dilation grows cloud and shadow: a cell
        is masked if it is nearer than this to a masked pixel.
    scenes_per_slice
        Number of scenes of each time slice, in the order of the scenes.

    Returns
    -------
    xarray.Dataset
        `reason` (scene, y, x), uint8: a value of `QA`; NO_DATA if the scene has no data on some step of a cell and no
        step is masked. `seen` (scene, y, x), float32: the share of a cell that a scene sees; 0 if any step is masked.
        `covered` (time, y, x): whether the scenes of the slice together see a cell whole and clear. `ground` (scene, y,
        x), uint8: the scene class of cells that hold only one, else 0; all 0 without the scene classification.
    """
    steps, step_m = layers.attrs["steps"], layers.attrs["step_m"]
    data = [layer.data for layer in layers.data_vars.values()]
    hidden = da.map_blocks(_grade, *data, names=tuple(layers.data_vars), config=config, dtype="uint8")
    of_slices = _slices(scenes_per_slice)
    seeds = da.concatenate([_seen_beside(hidden[each]) for each in of_slices]) if config.dilation_m else hidden
    # Rounded: a cloud exactly at the distance counts as outside, also if a step has no finite decimal.
    distance = round(config.dilation_m / step_m, 6)
    reach = math.ceil(distance) + 1
    grown = hidden
    if config.dilation_m or not layers.nests.all():
        of_scenes = [
            da.map_overlap(
                _grow, hidden[scene : scene + 1], seeds[scene : scene + 1], depth={0: 0, 1: reach, 2: reach},
                boundary=int(QA.CLEAR), dtype="uint8", reach=distance, widen=not nests,
            )
            if config.dilation_m or not nests else hidden[scene : scene + 1]
            for scene, nests in enumerate(layers.nests.values)
        ]  # fmt: skip
        grown = da.concatenate(of_scenes)
    on_steps = _without_halo(grown, halo_cells * steps, hidden.chunks[1:])
    reason, seen = (_by_cell(each, on_steps, steps) for each in (_lowest_reason, _seen_share))
    if "scl" in layers and NO_DATA_CLASS in config.mask_classes:
        covered = _by_slice(_seen_together, scenes_per_slice, seen, on_steps, steps=steps, dtype=bool)
    else:
        # Without SCL, "not masked" can also mean "no data". So a cell that one scene masks is not clear in another.
        covered = _by_slice(_all_clear, scenes_per_slice, reason, dtype=bool)
    if "scl" in layers:
        ground = _by_cell(_only_class, _without_halo(layers["scl"].data, halo_cells * steps, hidden.chunks[1:]), steps)
    else:
        ground = da.zeros_like(reason)
    return _dataset(reason, seen, covered, ground)


def no_screen(scenes: int, slices: int, chunked: Chunks) -> xr.Dataset:
    """Give what `screen` gives if nothing is masked."""

    def everywhere(value: Any, count: int, dtype: str) -> da.Array:
        # One value, broadcast: it takes no memory.
        shape = (count, sum(chunked.rows), sum(chunked.columns))
        return da.broadcast_to(da.full((), value, dtype=dtype), shape, chunks=(1, chunked.rows, chunked.columns))

    nothing, seen = everywhere(0, scenes, "uint8"), everywhere(1, scenes, "float32")
    covered = everywhere(True, slices, "bool")
    return _dataset(nothing, seen, covered, nothing)


def _dataset(reason: da.Array, seen: da.Array, covered: da.Array, ground: da.Array) -> xr.Dataset:
    per_scene = {"reason": reason, "seen": seen, "ground": ground}
    dims = ("scene", "y", "x")
    return xr.Dataset(
        {name: (dims, data) for name, data in per_scene.items()} | {"covered": (("time", *dims[1:]), covered)}
    )


def _slices(lengths: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum(lengths)
    return [slice(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]


def _grade(*layers: np.ndarray, names: tuple[str, ...], config: CubeSection) -> np.ndarray:
    """Give the reason of each step."""
    of = dict(zip(names, layers, strict=True))
    reason = _scl_reasons(config.mask_classes)[of["scl"]] if "scl" in of else np.zeros(layers[0].shape, "uint8")
    seen = reason != QA.NO_DATA
    if "snow" in of:
        reason = np.where((reason == QA.CLEAR) & (of["snow"] > config.max_snow_probability), QA.OTHER, reason)
    if "cloud" in of:
        reason = np.where(seen & (of["cloud"] > config.max_cloud_probability), QA.CLOUD, reason)
    if "qa60" in of:
        reason = np.where(seen & (of["qa60"] & _QA60_CLOUDS != 0), QA.CLOUD, reason)
    return reason.astype("uint8")


def _scl_reasons(masked: tuple[int, ...]) -> np.ndarray:
    """Give the reason of each of 256 scene classes. A table is faster than one comparison for each class."""
    reasons = np.full(256, QA.NO_DATA, "uint8")
    reasons[: _LAST_CLASS + 1] = QA.CLEAR
    reasons[list(masked)] = QA.OTHER
    for classes, reason in (
        ((_UNSURE_CLASS, *CLOUD_CLASSES), QA.CLOUD),
        ((_SHADOW_CLASS,), QA.SHADOW),
        ((NO_DATA_CLASS,), QA.NO_DATA),
    ):
        reasons[[each for each in classes if each in masked]] = reason
    return reasons


def _seen_beside(hidden: da.Array) -> da.Array:
    """Fill the steps without data of a scene with cloud and shadow of the other scenes: dilation crosses the seam."""
    if hidden.shape[0] == 1:
        return hidden
    others = da.where((hidden == QA.CLOUD) | (hidden == QA.SHADOW), hidden, _UNHIDDEN).min(axis=0)
    return da.where((hidden == QA.NO_DATA) & (others != _UNHIDDEN), others, hidden).astype("uint8")


def _grow(hidden: np.ndarray, seeds: np.ndarray, reach: float, widen: bool) -> np.ndarray:
    """Grow cloud and shadow by a distance, in steps; all masked steps by one step more if they do not nest."""
    out = hidden[0].copy()
    # The most important reason is written last. Steps without data keep their reason.
    for reason in (QA.OTHER, QA.SHADOW, QA.CLOUD):
        near = seeds[0] == reason
        near = within(near, reach) if reason != QA.OTHER else near
        near = ndimage.maximum_filter(near, size=3, mode="constant") if widen else near
        out[near & (hidden[0] != QA.NO_DATA)] = reason
    return out[np.newaxis]


def within(hit: np.ndarray, distance: float) -> np.ndarray:
    """Find the pixels whose area is nearer than a distance, in pixels, to the area of a pixel that is hit.

    The rows of a disc are laid over the hit pixels and their neighbours. This is exact, and needs only bytes, unlike a
    distance transform.
    """
    if distance <= 0 or not hit.any():
        return hit
    grown = ndimage.maximum_filter(hit, size=3, mode="constant")
    out = grown.copy()
    height = hit.shape[0]
    for down in range(min(math.ceil(distance), height)):
        # Strictly nearer: the next pixels to the side are exactly at the distance.
        across = max(0, math.ceil(math.sqrt(distance**2 - down**2)) - 1)
        row = ndimage.maximum_filter1d(grown, 2 * across + 1, axis=1, mode="constant")
        out[down:] |= row[: height - down]
        out[: height - down] |= row[down:]
    return out


def _without_halo(fine: da.Array, halo: int, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    inner = fine[:, halo : fine.shape[1] - halo, halo : fine.shape[2] - halo]
    # Dilation joins small chunks. Restore them, so that they hold whole cells and match those of the bands.
    rows, columns = (_shortened(lengths, halo) for lengths in chunks)
    return inner.rechunk((1, rows, columns))


def _shortened(lengths: tuple[int, ...], halo: int) -> tuple[int, ...]:
    if len(lengths) == 1:
        return (lengths[0] - 2 * halo,)
    return lengths[0] - halo, *lengths[1:-1], lengths[-1] - halo


def _by_cell(function: Any, fine: da.Array, steps: int) -> da.Array:
    chunks = (fine.chunks[0], *(tuple(length // steps for length in axis) for axis in fine.chunks[1:]))
    return da.map_blocks(function, fine, steps, chunks=chunks, dtype="float32" if function is _seen_share else "uint8")


def _steps(fine: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Yield the first step of every cell, then the second, and so on: ten times faster than reducing axes of steps."""
    return (fine[:, row::steps, column::steps] for row in range(steps) for column in range(steps))


def _lowest_reason(fine: np.ndarray, steps: int) -> np.ndarray:
    # In bytes, 0 - 1 is 255: CLEAR becomes larger than any reason.
    lowest: np.ndarray = functools.reduce(np.minimum, (step - np.uint8(1) for step in _steps(fine, steps)))
    return lowest + np.uint8(1)


def _seen_share(fine: np.ndarray, steps: int) -> np.ndarray:
    reason = _lowest_reason(fine, steps)
    share = sum(step == QA.CLEAR for step in _steps(fine, steps)) / np.float32(steps**2)
    return np.where((reason == QA.CLEAR) | (reason == QA.NO_DATA), share, 0).astype("float32")


def _only_class(fine: np.ndarray, steps: int) -> np.ndarray:
    lowest, highest = (functools.reduce(each, _steps(fine, steps)) for each in (np.minimum, np.maximum))
    return np.where(lowest == highest, lowest, np.uint8(0))


def _by_slice(
    function: Any, scenes_per_slice: tuple[int, ...], cells: da.Array, *more: da.Array, **options: Any
) -> da.Array:
    """Call a function for the scenes of each slice: (scene, y, x) to (1, y, x)."""
    together = {0: scenes_per_slice}
    chunks = ((1,) * len(scenes_per_slice), *cells.chunks[1:])
    blocks = [each.rechunk(together) for each in (cells, *more)]
    return da.map_blocks(function, *blocks, chunks=chunks, **options)


def _all_clear(reason: np.ndarray) -> np.ndarray:
    return np.asarray((reason == QA.CLEAR).all(axis=0, keepdims=True))


def _seen_together(seen: np.ndarray, on_steps: np.ndarray, steps: int) -> np.ndarray:
    """Find the cells that are seen on every step by scenes in which no step of the cell is masked."""
    if len(seen) == 1:
        return np.asarray(seen == 1)
    usable = (seen > 0).repeat(steps, axis=1).repeat(steps, axis=2)
    clear = ((on_steps == QA.CLEAR) & usable).any(axis=0, keepdims=True)
    return np.asarray(functools.reduce(np.logical_and, _steps(clear, steps)))


def _lowest(reason: np.ndarray) -> np.ndarray:
    return np.where(reason == QA.CLEAR, np.uint8(_UNHIDDEN), reason).min(axis=0, keepdims=True)


def explain(screened: xr.Dataset, scenes_per_slice: tuple[int, ...]) -> da.Array:
    """Give the reason of every cell of a time slice, as far as masks show it.

    Returns
    -------
    dask.array.Array
        Dims (time, y, x), uint8: values of `QA`. If scenes have several, the lowest value that hides; CLEAR if they
        see the cell whole and clear together.
    """
    lowest = _by_slice(_lowest, scenes_per_slice, screened.reason.data, dtype="uint8")
    reasons: da.Array = da.where(screened.covered.data, np.uint8(QA.CLEAR), lowest)
    return reasons


def final_qa(hole: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Correct the reasons by the pixels of the image: a cell is clear exactly if it is valid in every band.

    Parameters
    ----------
    hole
        Whether any band has nodata.
    reasons
        Of `explain`, clipped.

    Returns
    -------
    numpy.ndarray
        uint8: values of `QA`.
    """
    of_holes = np.where(reasons == QA.CLEAR, np.uint8(QA.NO_DATA), reasons)
    return np.where(hole | (reasons == QA.OUTSIDE), of_holes, np.uint8(QA.CLEAR))
