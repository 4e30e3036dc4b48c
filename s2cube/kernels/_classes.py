"""Compute the bands of classes of an image. A class is never averaged, scaled or masked: pure functions of arrays."""

import functools
from collections.abc import Iterator

import numpy as np

from s2cube.config.literals import Dtype
from s2cube.kernels.packing import PACKINGS
from s2cube.raster.cells import WHOLE
from s2cube.sentinel2 import NO_DATA_CLASS, SCENE_CLASSES

_STEPS_AT_ONCE = 1 << 17


def class_of_cells(on_steps: np.ndarray, seen: np.ndarray, steps: int) -> np.ndarray:
    """Find the scene class of each cell of a time slice: the class with the largest area in it.

    Of classes with equal areas, the one with the lowest number is used. Parts without data do not count. Masks do not
    remove a class: otherwise no cloud could be seen.

    The class is that of the first scene that covers the whole cell with clear data, because the reflectance is of this
    scene, too. If there is no such scene, each part of the cell has the class of the first scene with data there.

    Parameters
    ----------
    on_steps
        The scene classification, dims (scene, y, x), on steps.
    seen
        From `mask.screen`, dims (scene, y, x), on cells.

    Returns
    -------
    numpy.ndarray
        Dims (y, x), uint8: 1 to 11, or 0 if no scene has data.
    """
    # A number that is not a class is no data, as in masks.
    on_steps = (
        on_steps
        if on_steps.max() <= max(SCENE_CLASSES)
        else np.where(on_steps <= max(SCENE_CLASSES), on_steps, np.uint8(0))
    )
    merged, complete = _merge(on_steps), np.zeros(seen.shape[1:], bool)
    chosen = _largest(merged, steps)
    if len(seen) == 1:
        return chosen
    for of_scene, share in zip(on_steps, seen, strict=True):
        # Without a mask of the scene classification, a scene counts as seen where it has no data.
        first = ~complete & (share >= WHOLE)
        for step in steps_of_cells(of_scene, steps):
            first &= step != NO_DATA_CLASS
        if first.any():
            chosen = np.where(first, _largest(of_scene, steps), chosen)
        complete |= first
    return chosen


def in_dtype(classes: np.ndarray, dtype: Dtype, nodata: int | None = None) -> np.ndarray:
    """Convert classes to the dtype of a cube.

    Parameters
    ----------
    nodata
        Class that becomes the nodata value of the cube; None: no class.
    """
    hole = False if nodata is None else classes == nodata
    return np.asarray(np.where(hole, np.array(PACKINGS[dtype].nodata, dtype), classes.astype(dtype)))


def steps_of_cells(fine: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Yield the first step of every cell, then the second, and so on. This is ten times faster than reducing axes."""
    return (fine[..., row::steps, column::steps] for row in range(steps) for column in range(steps))


def reduce_steps(operation: np.ufunc, fine: np.ndarray, steps: int) -> np.ndarray:
    """Reduce the steps of each cell: rows first, because numpy is slow where values are not next to each other."""
    rows = functools.reduce(operation, (fine[..., row::steps, :] for row in range(steps)))
    return np.asarray(functools.reduce(operation, (rows[..., column::steps] for column in range(steps))))


def _merge(on_steps: np.ndarray) -> np.ndarray:
    """Return for each step the class of the first scene that has one."""
    merged = on_steps[0].copy()
    for other in on_steps[1:]:
        np.copyto(merged, other, where=merged == NO_DATA_CLASS)
    return np.asarray(merged)


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
    best, highest = (reduce_steps(each, on_steps, steps) for each in (np.minimum, np.maximum))
    # Most cells have one class. Counting is slow, so count only in the others.
    is_mixed = best != highest
    of_mixed, classes = np.array([part[is_mixed] for part in parts]), np.array([*SCENE_CLASSES], "uint8")
    counts = np.array([np.count_nonzero(of_mixed == each, axis=0) for each in classes])
    # The first maximum is that of the lowest class. A mixed cell has at least one class.
    best[is_mixed] = classes[counts.argmax(axis=0)]
    return np.asarray(best)
