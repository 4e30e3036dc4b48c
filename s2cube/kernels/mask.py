"""Compute which cells of an image are valid, and the reasons why others are not: pure functions of arrays."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from s2cube.config.sections import CubeSection
from s2cube.kernels._classes import class_of_cells, reduce_steps
from s2cube.sentinel2 import CLOUD_CLASSES, NO_DATA_CLASS, QA, canonical_bands

_SHADOW_CLASS = 3
_UNSURE_CLASS = 7
_LAST_CLASS = 11
"""Scene classes of Sen2Cor (Sentinel-2 Products Specification Document). 7 is unclassified; newer products call it
"cloud, low probability". The last class, 11, is snow."""

_QA60_CLOUDS = 1 << 10 | 1 << 11
"""Bits of opaque cloud and cirrus in QA60. Google Earth Engine defines and computes this layer."""

_LARGER_THAN_QA = 99
"""Placeholder that is larger than any QA value, for minimum operations."""

_CLASSES_AT_ONCE = 1 << 16
"""Scene classes that are looked up at a time, so that they stay in the cache of a core."""


@dataclass(frozen=True)
class Steps:
    """The steps on which the mask layers of the scenes of a slice are read. They are finer than cells.

    Parameters
    ----------
    per_cell
        Number of steps per side of a cell.
    length_m
        Length of a step, metres.
    nests
        For each scene, whether its 20 m pixels consist of whole steps. Otherwise a pixel may overlap a cell, but be
        read only on a step next to it. So masks of the scene are widened by one step.
    halo_cells
        Number of cells by which the layers extend beyond the cells on every side.
    """

    per_cell: int
    length_m: float
    nests: tuple[bool, ...]
    halo_cells: int

    @property
    def halo(self) -> int:
        """Number of steps by which the layers extend beyond the cells on every side."""
        return self.per_cell * self.halo_cells


class Screened(NamedTuple):
    """What masks say about the scenes of one time slice, on the cells of its grid or of a part of it.

    Parameters
    ----------
    reason
        Dims (scene, y, x), uint8: a value of `QA`. NO_DATA if a step of the cell has no data and no step is masked.
    seen
        Dims (scene, y, x), float32: the share of the cell that a scene sees. 0 if any step is masked.
    ground
        Dims (scene, y, x), uint8: the scene class of cells that contain only one, else 0. Always 0 without a mask of
        the scene classification.
    covered
        Dims (y, x): True if the scenes together cover the whole cell with clear data.
    classes
        Dims (y, x), uint8: the scene class of each cell, if it is a band, see `_classes.class_of_cells`.
    """

    reason: np.ndarray
    seen: np.ndarray
    ground: np.ndarray
    covered: np.ndarray
    classes: np.ndarray | None = None

    def part(self, rows: slice, columns: slice) -> "Screened":
        """Return a part of the cells."""
        cells = np.s_[..., rows, columns]
        classes = None if self.classes is None else self.classes[cells]
        return Screened(self.reason[cells], self.seen[cells], self.ground[cells], self.covered[cells], classes)


def screen(layers: Mapping[str, np.ndarray], steps: Steps, config: CubeSection) -> Screened:
    """Find the cells that contain only clear ground, and the reasons why other cells do not.

    Parameters
    ----------
    layers
        Layers of `config.mask`, and `scl` if it is a band. Dims (scene, y, x), on steps. They have a halo of
        `steps.halo_cells` cells on every side.
    steps
        Steps on which the layers are read.
    config
        Classes, thresholds and dilation. A masked step masks its whole cell. Dilation widens cloud and shadow: a cell
        is masked if it is closer than the dilation to a pixel of cloud or shadow.
    """
    halo = steps.halo
    scl = layers["scl"][:, halo : -halo or None, halo : -halo or None] if "scl" in layers else None
    if config.mask:
        screened = _masked({name: layers[name] for name in config.mask}, scl, steps, config)
    else:
        assert scl is not None
        screened = no_screen(len(scl), (scl.shape[1] // steps.per_cell, scl.shape[2] // steps.per_cell))
    if scl is None or "scl" not in canonical_bands(config.bands):
        return screened
    return screened._replace(classes=class_of_cells(scl, screened.seen, steps.per_cell))


def no_screen(scenes: int, shape: tuple[int, int]) -> Screened:
    """Return the result of `screen` if nothing is masked. A single broadcast value needs no memory."""
    nothing = np.broadcast_to(np.uint8(QA.CLEAR), (scenes, *shape))
    seen = np.broadcast_to(np.float32(1), (scenes, *shape))
    return Screened(nothing, seen, ground=nothing, covered=np.broadcast_to(np.True_, shape))


def _masked(layers: Mapping[str, np.ndarray], scl: np.ndarray | None, steps: Steps, config: CubeSection) -> Screened:
    on_steps = _dilated(_step_reasons(layers, config), steps, config)
    halo = steps.halo
    on_steps = on_steps[:, halo : -halo or None, halo : -halo or None]
    reason = _lowest_reason(on_steps, steps.per_cell)
    seen = _seen_share(on_steps, reason, steps.per_cell)
    if "scl" in config.mask and NO_DATA_CLASS in config.mask_classes:
        covered = _seen_together(seen, on_steps, steps.per_cell)
    else:
        # Without SCL, "not masked" can also mean "no data". So a cell is not clear if any scene masks it.
        covered = (reason == QA.CLEAR.value).all(axis=0)
    ground = np.zeros_like(reason) if scl is None or "scl" not in config.mask else _single_class(scl, steps.per_cell)
    return Screened(reason, seen, ground, covered)


def _dilated(step_reasons: np.ndarray, steps: Steps, config: CubeSection) -> np.ndarray:
    """Dilate cloud and shadow of scenes, and widen masks of scenes whose pixels do not consist of whole steps."""
    if not config.dilation_m and all(steps.nests):
        return step_reasons
    seeds = _fill_from_others(step_reasons) if config.dilation_m else step_reasons
    # Round the distance in steps: a cloud exactly at this distance must be outside despite rounding errors.
    distance = round(config.dilation_m / steps.length_m, 6)
    scenes = zip(step_reasons, seeds, steps.nests, strict=True)
    return np.stack([_dilate(own, seed, distance, widen=not nests) for own, seed, nests in scenes])


def _step_reasons(layers: Mapping[str, np.ndarray], config: CubeSection) -> np.ndarray:
    """Return the QA value of each step."""
    if "scl" in layers:
        reason = _looked_up(_scl_reasons(config.mask_classes), layers["scl"])
    else:
        reason = np.zeros(next(iter(layers.values())).shape, "uint8")
    seen = reason != QA.NO_DATA.value
    if "snow" in layers:
        is_snow = layers["snow"] > config.max_snow_probability
        reason = np.where((reason == QA.CLEAR.value) & is_snow, np.uint8(QA.OTHER), reason)
    if "cloud" in layers:
        reason = np.where(seen & (layers["cloud"] > config.max_cloud_probability), np.uint8(QA.CLOUD), reason)
    if "qa60" in layers:
        reason = np.where(seen & (layers["qa60"] & _QA60_CLOUDS != 0), np.uint8(QA.CLOUD), reason)
    return np.asarray(reason, "uint8")


def _looked_up(table: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the value of each class, uint8, in a table of 256 values."""
    found = np.empty(classes.shape, "uint8")
    # `take` converts classes to 64-bit integers: of a complete grid, they would be the most memory of a slice.
    flat, out = np.ascontiguousarray(classes).reshape(-1), found.reshape(-1)
    for start in range(0, flat.size, _CLASSES_AT_ONCE):
        part = slice(start, start + _CLASSES_AT_ONCE)
        # This mode takes half of the time of an index. Classes are uint8, so none is clipped.
        np.take(table, flat[part], mode="clip", out=out[part])
    return found


@functools.lru_cache(maxsize=8)
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


def _fill_from_others(step_reasons: np.ndarray) -> np.ndarray:
    """Fill steps without data with cloud and shadow of the other scenes, so that dilation crosses seams of scenes."""
    if len(step_reasons) == 1:
        return step_reasons
    is_seed = (step_reasons == QA.CLOUD.value) | (step_reasons == QA.SHADOW.value)
    others = np.where(is_seed, step_reasons, np.uint8(_LARGER_THAN_QA)).min(axis=0)
    return np.where((step_reasons == QA.NO_DATA.value) & (others != _LARGER_THAN_QA), others, step_reasons)


def _dilate(step_reasons: np.ndarray, seeds: np.ndarray, reach: float, widen: bool) -> np.ndarray:
    """Dilate cloud and shadow by a distance in steps. If `widen`, dilate all masked steps by one more step."""
    from scipy import ndimage  # its import takes half a second, and most masks are not dilated

    out = step_reasons.copy()
    # Write the most important reason last. Steps without data keep their reason.
    for reason in (QA.OTHER.value, QA.SHADOW.value, QA.CLOUD.value):
        near = seeds == reason
        near = within(near, reach) if reason != QA.OTHER.value else near
        near = ndimage.maximum_filter(near, size=3, mode="constant") if widen else near
        out[near & (step_reasons != QA.NO_DATA.value)] = reason
    return out


def within(hit: np.ndarray, distance: float) -> np.ndarray:
    """Find the pixels whose area is closer than a distance, in pixels, to the area of a True pixel.

    The True pixels are dilated by one pixel, then by a disc, row by row. This is exact. It needs one byte per pixel,
    much less than a distance transform.
    """
    if distance <= 0 or not hit.any():
        return hit
    from scipy import ndimage

    dilated = ndimage.maximum_filter(hit, size=3, mode="constant")
    out = dilated.copy()
    height = hit.shape[0]
    for down in range(min(math.ceil(distance), height)):
        # Strictly closer: pixels exactly at the distance are outside.
        across = max(0, math.ceil(math.sqrt(distance**2 - down**2)) - 1)
        row = ndimage.maximum_filter1d(dilated, 2 * across + 1, axis=1, mode="constant")
        out[down:] |= row[: height - down]
        out[: height - down] |= row[down:]
    return np.asarray(out)


def _lowest_reason(fine: np.ndarray, steps: int) -> np.ndarray:
    # In uint8, 0 - 1 is 255: CLEAR becomes larger than any reason.
    return reduce_steps(np.minimum, fine - np.uint8(1), steps) + np.uint8(1)


def _seen_share(fine: np.ndarray, reason: np.ndarray, steps: int) -> np.ndarray:
    # A view of bool needs no copy, but its sums are uint8.
    clear = (fine == QA.CLEAR.value).view("uint8")
    clear = clear if steps**2 <= np.iinfo("uint8").max else clear.astype("uint16")
    share = reduce_steps(np.add, clear, steps) / np.float32(steps**2)
    return np.where((reason == QA.CLEAR.value) | (reason == QA.NO_DATA.value), share, np.float32(0))


def _single_class(fine: np.ndarray, steps: int) -> np.ndarray:
    lowest, highest = (reduce_steps(each, fine, steps) for each in (np.minimum, np.maximum))
    return np.where(lowest == highest, lowest, np.uint8(0))


def _seen_together(seen: np.ndarray, on_steps: np.ndarray, steps: int) -> np.ndarray:
    """Find cells in which each step is clear in some scene. Ignore scenes that mask any step of the cell."""
    if len(seen) == 1:
        return np.asarray(seen[0] == 1)
    usable = (seen > 0).repeat(steps, axis=1).repeat(steps, axis=2)
    clear = ((on_steps == QA.CLEAR.value) & usable).any(axis=0)
    return reduce_steps(np.logical_and, clear, steps)


def explain(screened: Screened) -> np.ndarray:
    """Return the QA value of every cell of a time slice, computed from masks only.

    Returns
    -------
    numpy.ndarray
        Dims (y, x), uint8: values of `QA`. CLEAR if the scenes together cover the whole cell with clear data.
        Otherwise the lowest value of the scenes that is not CLEAR.
    """
    lowest = np.where(screened.reason == QA.CLEAR.value, np.uint8(_LARGER_THAN_QA), screened.reason).min(axis=0)
    return np.asarray(np.where(screened.covered, np.uint8(QA.CLEAR), lowest))


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
    invalid = np.where(reasons == QA.CLEAR.value, np.uint8(QA.NO_DATA), reasons)
    return np.where(hole | (reasons == QA.OUTSIDE.value), invalid, np.uint8(QA.CLEAR))
