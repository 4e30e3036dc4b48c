"""Compute which cells of an image are valid, and the reasons why others are not: pure functions of arrays."""

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
"cloud, low probability". The last class, 11, is snow."""

_QA60_CLOUDS = 1 << 10 | 1 << 11
"""Bits of opaque cloud and cirrus in QA60. Google Earth Engine defines and computes this layer."""

_LARGER_THAN_QA = 99
"""Placeholder that is larger than any QA value, for minimum operations."""


def screen(layers: xr.Dataset, config: CubeSection, scenes_per_slice: tuple[int, ...], halo_cells: int) -> xr.Dataset:
    """Find the cells of a grid that contain only clear ground, and the reasons why other cells do not.

    Parameters
    ----------
    layers
        Layers of `config.mask`, dims (scene, y, x), on steps. The attribute `steps` is the number of steps per side of
        a cell, `step_m` the length of a step in metres. The grid has a halo of `halo_cells` cells. If the coordinate
        `nests` is False, a pixel may overlap a cell, but be read only on a step next to it. So masks are widened by one
        step.
    config
        Classes, thresholds and dilation. A masked step masks its whole cell. Dilation widens cloud and shadow: a cell
        is masked if it is closer than the dilation to a pixel of cloud or shadow.
    scenes_per_slice
        Number of scenes of each time slice, in the order of the scenes.

    Returns
    -------
    xarray.Dataset
        `reason` (scene, y, x), uint8: a value of `QA`. NO_DATA if a step of the cell has no data and no step is masked.
        `seen` (scene, y, x), float32: the share of the cell that a scene sees. 0 if any step is masked. `covered`
        (time, y, x): True if the scenes of the slice together cover the whole cell with clear data. `ground` (scene, y,
        x), uint8: the scene class of cells that contain only one, else 0. Always 0 without scene classification.
    """
    steps, step_m = layers.attrs["steps"], layers.attrs["step_m"]
    data = [layer.data for layer in layers.data_vars.values()]
    step_reasons = da.map_blocks(_step_reasons, *data, names=tuple(layers.data_vars), config=config, dtype="uint8")
    scene_slices = _scene_slices(scenes_per_slice)
    seeds = step_reasons
    if config.dilation_m:
        seeds = da.concatenate([_fill_from_others(step_reasons[each]) for each in scene_slices])
    # Round the distance in steps: a cloud exactly at this distance must be outside despite rounding errors.
    distance = round(config.dilation_m / step_m, 6)
    reach = math.ceil(distance) + 1
    dilated = step_reasons
    if config.dilation_m or not layers.nests.all():
        of_scenes = [
            da.map_overlap(
                _dilate, step_reasons[scene : scene + 1], seeds[scene : scene + 1], depth={0: 0, 1: reach, 2: reach},
                boundary=int(QA.CLEAR), dtype="uint8", reach=distance, widen=not nests,
            )
            if config.dilation_m or not nests else step_reasons[scene : scene + 1]
            for scene, nests in enumerate(layers.nests.values)
        ]  # fmt: skip
        dilated = da.concatenate(of_scenes)
    on_steps = without_halo(dilated, halo_cells * steps, step_reasons.chunks[1:])
    reason, seen = (_by_cell(each, on_steps, steps) for each in (_lowest_reason, _seen_share))
    if "scl" in layers and NO_DATA_CLASS in config.mask_classes:
        covered = _by_slice(_seen_together, scenes_per_slice, seen, on_steps, steps=steps, dtype=bool)
    else:
        # Without SCL, "not masked" can also mean "no data". So a cell is not clear if any scene masks it.
        covered = _by_slice(_all_clear, scenes_per_slice, reason, dtype=bool)
    if "scl" in layers:
        classes = without_halo(layers["scl"].data, halo_cells * steps, step_reasons.chunks[1:])
        ground = _by_cell(_single_class, classes, steps)
    else:
        ground = da.zeros_like(reason)
    return _screened(reason, seen, covered, ground)


def no_screen(scenes: int, slices: int, chunked: Chunks) -> xr.Dataset:
    """Return the result of `screen` if nothing is masked."""

    def everywhere(value: Any, count: int, dtype: str) -> da.Array:
        # A single broadcast value needs no memory.
        shape = (count, sum(chunked.rows), sum(chunked.columns))
        return da.broadcast_to(da.full((), value, dtype=dtype), shape, chunks=(1, chunked.rows, chunked.columns))

    nothing, seen = everywhere(0, scenes, "uint8"), everywhere(1, scenes, "float32")
    covered = everywhere(True, slices, "bool")
    return _screened(nothing, seen, covered, nothing)


def _screened(reason: da.Array, seen: da.Array, covered: da.Array, ground: da.Array) -> xr.Dataset:
    per_scene = {"reason": reason, "seen": seen, "ground": ground}
    dims = ("scene", "y", "x")
    return xr.Dataset(
        {name: (dims, data) for name, data in per_scene.items()} | {"covered": (("time", *dims[1:]), covered)}
    )


def _scene_slices(lengths: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum(lengths)
    return [slice(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]


def _step_reasons(*layers: np.ndarray, names: tuple[str, ...], config: CubeSection) -> np.ndarray:
    """Return the QA value of each step."""
    named = dict(zip(names, layers, strict=True))
    reason = _scl_reasons(config.mask_classes)[named["scl"]] if "scl" in named else np.zeros(layers[0].shape, "uint8")
    seen = reason != QA.NO_DATA
    if "snow" in named:
        reason = np.where((reason == QA.CLEAR) & (named["snow"] > config.max_snow_probability), QA.OTHER, reason)
    if "cloud" in named:
        reason = np.where(seen & (named["cloud"] > config.max_cloud_probability), QA.CLOUD, reason)
    if "qa60" in named:
        reason = np.where(seen & (named["qa60"] & _QA60_CLOUDS != 0), QA.CLOUD, reason)
    return reason.astype("uint8")


def _scl_reasons(masked: tuple[int, ...]) -> np.ndarray:
    """Return the QA value of each of 256 scene classes. A table is faster than one comparison per class."""
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


def _fill_from_others(step_reasons: da.Array) -> da.Array:
    """Fill steps without data with cloud and shadow of the other scenes, so that dilation crosses seams of scenes."""
    if step_reasons.shape[0] == 1:
        return step_reasons
    is_seed = (step_reasons == QA.CLOUD) | (step_reasons == QA.SHADOW)
    others = da.where(is_seed, step_reasons, _LARGER_THAN_QA).min(axis=0)
    return da.where((step_reasons == QA.NO_DATA) & (others != _LARGER_THAN_QA), others, step_reasons).astype("uint8")


def _dilate(step_reasons: np.ndarray, seeds: np.ndarray, reach: float, widen: bool) -> np.ndarray:
    """Dilate cloud and shadow by a distance in steps. If `widen`, dilate all masked steps by one more step."""
    out = step_reasons[0].copy()
    # Write the most important reason last. Steps without data keep their reason.
    for reason in (QA.OTHER, QA.SHADOW, QA.CLOUD):
        near = seeds[0] == reason
        near = within(near, reach) if reason != QA.OTHER else near
        near = ndimage.maximum_filter(near, size=3, mode="constant") if widen else near
        out[near & (step_reasons[0] != QA.NO_DATA)] = reason
    return out[np.newaxis]


def within(hit: np.ndarray, distance: float) -> np.ndarray:
    """Find the pixels whose area is closer than a distance, in pixels, to the area of a True pixel.

    The True pixels are dilated by one pixel, then by a disc, row by row. This is exact. It needs one byte per pixel,
    much less than a distance transform.
    """
    if distance <= 0 or not hit.any():
        return hit
    dilated = ndimage.maximum_filter(hit, size=3, mode="constant")
    out = dilated.copy()
    height = hit.shape[0]
    for down in range(min(math.ceil(distance), height)):
        # Strictly closer: pixels exactly at the distance are outside.
        across = max(0, math.ceil(math.sqrt(distance**2 - down**2)) - 1)
        row = ndimage.maximum_filter1d(dilated, 2 * across + 1, axis=1, mode="constant")
        out[down:] |= row[: height - down]
        out[: height - down] |= row[down:]
    return out


def without_halo(fine: da.Array, halo: int, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """Remove the halo of a grid of steps, (scene, y, x). `halo` is in steps, `chunks` are those with the halo."""
    inner = fine[:, halo : fine.shape[1] - halo, halo : fine.shape[2] - halo]
    # Dilation merges small chunks. Restore them, so that they contain whole cells and match those of the bands.
    rows, columns = (_shortened(lengths, halo) for lengths in chunks)
    return inner.rechunk((1, rows, columns))


def _shortened(lengths: tuple[int, ...], halo: int) -> tuple[int, ...]:
    if len(lengths) == 1:
        return (lengths[0] - 2 * halo,)
    return lengths[0] - halo, *lengths[1:-1], lengths[-1] - halo


def _by_cell(function: Any, fine: da.Array, steps: int) -> da.Array:
    chunks = (fine.chunks[0], *(tuple(length // steps for length in axis) for axis in fine.chunks[1:]))
    return da.map_blocks(function, fine, steps, chunks=chunks, dtype="float32" if function is _seen_share else "uint8")


def steps_of_cells(fine: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Yield the first step of every cell, then the second, and so on. This is ten times faster than reducing axes."""
    return (fine[..., row::steps, column::steps] for row in range(steps) for column in range(steps))


def _lowest_reason(fine: np.ndarray, steps: int) -> np.ndarray:
    # In uint8, 0 - 1 is 255: CLEAR becomes larger than any reason.
    lowest: np.ndarray = functools.reduce(np.minimum, (step - np.uint8(1) for step in steps_of_cells(fine, steps)))
    return lowest + np.uint8(1)


def _seen_share(fine: np.ndarray, steps: int) -> np.ndarray:
    reason = _lowest_reason(fine, steps)
    share = sum(step == QA.CLEAR for step in steps_of_cells(fine, steps)) / np.float32(steps**2)
    return np.where((reason == QA.CLEAR) | (reason == QA.NO_DATA), share, 0).astype("float32")


def _single_class(fine: np.ndarray, steps: int) -> np.ndarray:
    lowest, highest = (functools.reduce(each, steps_of_cells(fine, steps)) for each in (np.minimum, np.maximum))
    return np.where(lowest == highest, lowest, np.uint8(0))


def _by_slice(
    function: Any, scenes_per_slice: tuple[int, ...], cells: da.Array, *more: da.Array, **options: Any
) -> da.Array:
    """Call a function on the scenes of each slice, from (scene, y, x) to (1, y, x)."""
    slice_chunks = {0: scenes_per_slice}
    chunks = ((1,) * len(scenes_per_slice), *cells.chunks[1:])
    blocks = [each.rechunk(slice_chunks) for each in (cells, *more)]
    return da.map_blocks(function, *blocks, chunks=chunks, **options)


def _all_clear(reason: np.ndarray) -> np.ndarray:
    return np.asarray((reason == QA.CLEAR).all(axis=0, keepdims=True))


def _seen_together(seen: np.ndarray, on_steps: np.ndarray, steps: int) -> np.ndarray:
    """Find cells in which each step is clear in some scene. Ignore scenes that mask any step of the cell."""
    if len(seen) == 1:
        return np.asarray(seen == 1)
    usable = (seen > 0).repeat(steps, axis=1).repeat(steps, axis=2)
    clear = ((on_steps == QA.CLEAR) & usable).any(axis=0, keepdims=True)
    return np.asarray(functools.reduce(np.logical_and, steps_of_cells(clear, steps)))


def _lowest_masking(reason: np.ndarray) -> np.ndarray:
    return np.where(reason == QA.CLEAR, np.uint8(_LARGER_THAN_QA), reason).min(axis=0, keepdims=True)


def explain(screened: xr.Dataset, scenes_per_slice: tuple[int, ...]) -> da.Array:
    """Return the QA value of every cell of time slices, computed from masks only.

    Returns
    -------
    dask.array.Array
        Dims (time, y, x), uint8: values of `QA`. CLEAR if the scenes together cover the whole cell with clear data.
        Otherwise the lowest value of the scenes that is not CLEAR.
    """
    lowest = _by_slice(_lowest_masking, scenes_per_slice, screened.reason.data, dtype="uint8")
    reasons: da.Array = da.where(screened.covered.data, np.uint8(QA.CLEAR), lowest)
    return reasons


def final_qa(hole: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Correct QA values by the pixels of the image: a cell is CLEAR if and only if it is valid in every band.

    Parameters
    ----------
    hole
        True where any band is nodata.
    reasons
        Result of `explain`, clipped.

    Returns
    -------
    numpy.ndarray
        uint8: values of `QA`.
    """
    invalid = np.where(reasons == QA.CLEAR, np.uint8(QA.NO_DATA), reasons)
    return np.where(hole | (reasons == QA.OUTSIDE), invalid, np.uint8(QA.CLEAR))
