"""Compute the bands of classes of an image. A class is never averaged, scaled or masked: pure functions of arrays."""

import functools

import dask.array as da
import numpy as np
import xarray as xr

from s2cube.config.literals import Dtype
from s2cube.cube.mask import steps_of_cells, without_halo
from s2cube.cube.packing import PACKINGS
from s2cube.raster.cells import WHOLE
from s2cube.sentinel2 import NO_DATA_CLASS, SCENE_CLASSES

_STEPS_AT_ONCE = 1 << 17


def scene_classes(
    layers: xr.Dataset, screened: xr.Dataset, per_slice: tuple[int, ...], halo_cells: int
) -> xr.DataArray:
    """Find the scene class of each cell: the class with the largest area in it.

    Of classes with equal areas, the one with the lowest number is used. Parts without data do not count. Masks do not
    remove a class: otherwise no cloud could be seen.

    The class is that of the first scene that covers the whole cell with clear data, because the reflectance is of this
    scene, too. If there is no such scene, each part of the cell has the class of the first scene with data there.

    Parameters
    ----------
    layers
        From `read_layers`, with the layer `scl`.
    screened
        From `mask.screen` or `mask.no_screen`.
    per_slice
        Number of scenes of each slice.
    halo_cells
        Number of cells by which the grid of the layers is larger on every side.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, y, x), uint8: 1 to 11, or 0 if no scene has data.
    """
    steps, scl = layers.attrs["steps"], layers["scl"].data
    on_steps = without_halo(scl, halo_cells * steps, scl.chunks[1:])
    slice_chunks = {0: per_slice}
    seen = screened.seen.data.rechunk(slice_chunks)
    classes = da.map_blocks(
        _class_of_cells, on_steps.rechunk(slice_chunks), seen, steps=steps, dtype="uint8",
        chunks=((1,) * len(per_slice), *seen.chunks[1:]),
    )  # fmt: skip
    return xr.DataArray(classes, dims=("time", "y", "x"))


def as_band(classes: da.Array, dtype: Dtype, nodata: int | None = None) -> da.Array:
    """Convert classes to the dtype of a cube, from (time, y, x) to (time, 1, y, x).

    Parameters
    ----------
    nodata
        Class that becomes the nodata value of the cube; None: no class.
    """
    band: da.Array = da.map_blocks(_in_dtype, classes, dtype_=dtype, nodata=nodata, dtype=dtype)
    return band[:, np.newaxis]


def _in_dtype(classes: np.ndarray, dtype_: Dtype, nodata: int | None) -> np.ndarray:
    hole = False if nodata is None else classes == nodata
    return np.where(hole, np.array(PACKINGS[dtype_].nodata, dtype_), classes.astype(dtype_))


def _class_of_cells(on_steps: np.ndarray, seen: np.ndarray, steps: int) -> np.ndarray:
    """Choose the class of each cell, from (scene, y, x) to (1, y, x). Scenes are on steps, the result is on cells."""
    # A number that is not a class is no data, as in masks.
    on_steps = (
        on_steps
        if on_steps.max() <= max(SCENE_CLASSES)
        else np.where(on_steps <= max(SCENE_CLASSES), on_steps, np.uint8(0))
    )
    merged, complete = _merge(on_steps), np.zeros(seen.shape[1:], bool)
    chosen = _largest(merged, steps)
    if len(seen) == 1:
        return chosen[np.newaxis]
    for of_scene, share in zip(on_steps, seen, strict=True):
        # Without a mask of the scene classification, a scene counts as seen where it has no data.
        first = ~complete & (share >= WHOLE)
        for step in steps_of_cells(of_scene, steps):
            first &= step != NO_DATA_CLASS
        if first.any():
            chosen = np.where(first, _largest(of_scene, steps), chosen)
        complete |= first
    return chosen[np.newaxis]


def _merge(on_steps: np.ndarray) -> np.ndarray:
    """Return for each step the class of the first scene that has one."""
    merged = on_steps[0].copy()
    for other in on_steps[1:]:
        np.copyto(merged, other, where=merged == NO_DATA_CLASS)
    return merged


def _largest(on_steps: np.ndarray, steps: int) -> np.ndarray:
    """Return the class of most steps of each cell."""
    height, width = (length // steps for length in on_steps.shape)
    best = np.empty((height, width), "uint8")
    # Process a few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _STEPS_AT_ONCE // (width * steps**2))
    for top in range(0, height, rows):
        best[top : top + rows] = _largest_in_rows(on_steps[top * steps : (top + rows) * steps], steps)
    return best


def _largest_in_rows(on_steps: np.ndarray, steps: int) -> np.ndarray:
    parts = list(steps_of_cells(on_steps, steps))
    best, highest = (functools.reduce(each, parts) for each in (np.minimum, np.maximum))
    # Most cells have one class. Counting is slow, so count only in the others.
    is_mixed = best != highest
    of_mixed, classes = np.array([part[is_mixed] for part in parts]), np.array([*SCENE_CLASSES], "uint8")
    counts = np.array([np.count_nonzero(of_mixed == each, axis=0) for each in classes])
    # The first maximum is that of the lowest class. A mixed cell has at least one class.
    best[is_mixed] = classes[counts.argmax(axis=0)]
    return np.asarray(best)
