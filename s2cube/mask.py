"""What of an image is valid, and why not: pure functions of arrays."""

import math
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rasterio.features
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from odc.geo.xr import xr_coords
from scipy import ndimage

from s2cube.config import CubeSection
from s2cube.qa import QA

if TYPE_CHECKING:
    from odc.geo import Shape2d
    from odc.geo.geobox import GeoBox
    from odc.geo.geom import Geometry

_SCL_NO_DATA = 0
_SCL_SHADOW = 3
_SCL_CLOUDS = (7, 8, 9, 10)
_SCL_LAST = 11
"""Scene classes of Sen2Cor (Sentinel-2 Products Specification Document): 7 is unclassified, of late "cloud, low
probability"; 8 and 9 cloud of medium and high probability; 10 thin cirrus. There are none above 11, snow."""

_QA60_CLOUDS = 1 << 10 | 1 << 11
"""Opaque cloud and cirrus in QA60, as Google Earth Engine, which made this layer, defines its bits."""

_UNHIDDEN = 99
"""Greater than every reason."""


def screen(layers: xr.Dataset, config: CubeSection, scenes_per_slice: tuple[int, ...], halo_cells: int) -> xr.Dataset:
    """Tell which cells of a grid see nothing but clear ground, and why not.

    Parameters
    ----------
    layers
        Dims (scene, y, x), the layers that `config.mask` names, on steps: attribute `steps` each way a cell,
        `step_m` metres wide, with a halo of `halo_cells` cells around the grid. Where the coordinate `nests` is False
        a source pixel may overlap a cell without falling on one of its steps; it then falls on one beside it, so that
        clouds are taken one step wider.
    config
        Classes, thresholds and dilation. What is masked on any step masks its whole cell. Dilation grows cloud and
        shadow: a cell is masked when it comes nearer than this to a source pixel that is.
    scenes_per_slice
        How many scenes, in their order, belong to each time slice.

    Returns
    -------
    xarray.Dataset
        `reason` (scene, y, x), uint8: a value of `QA`; of NO_DATA are cells that are unseen by the scene on any
        step, and otherwise clear, so a part of them may be used. `covered` (time, y, x): whether scenes of the slice
        together see a cell whole and clear. `ground` (scene, y, x), uint8: the scene class of cells that hold only
        one, else 0; all 0 without the scene classification.
    """
    steps = layers.attrs["steps"]
    data = [layer.data for layer in layers.data_vars.values()]
    hidden = da.map_blocks(_grade, *data, names=tuple(layers.data_vars), config=config, dtype="uint8")
    reach = math.ceil(config.dilation_m / layers.attrs["step_m"]) + 1
    grown = [
        da.map_overlap(
            _grow, hidden[position : position + 1], depth={0: 0, 1: reach, 2: reach}, boundary=QA.CLEAR, dtype="uint8",
            reach_m=config.dilation_m, step_m=layers.attrs["step_m"], widen=not nests,
        )
        if config.dilation_m or not nests else hidden[position : position + 1]
        for position, nests in enumerate(layers.nests.values)
    ]  # fmt: skip
    on_steps = _without_halo(da.concatenate(grown), halo_cells * steps, hidden.chunks[1:])
    reason = _by_cell(_lowest_reason, on_steps, steps)
    covered = [_covered(on_steps[of_slice], reason[of_slice], steps) for of_slice in _slices(scenes_per_slice)]
    if "scl" in layers:
        ground = _by_cell(_only_class, _without_halo(layers["scl"].data, halo_cells * steps, hidden.chunks[1:]), steps)
    else:
        ground = da.zeros_like(reason)
    return _screen(reason, da.stack(covered), ground)


def no_screen(scenes: int, slices: int, shape: "Shape2d", chunk: int) -> xr.Dataset:
    """Give what `screen` gives where nothing is masked."""
    reason = da.zeros((scenes, *shape), dtype="uint8", chunks=(1, chunk, chunk))
    return _screen(reason, da.ones((slices, *shape), dtype=bool, chunks=(1, chunk, chunk)), reason)


def _screen(reason: da.Array, covered: da.Array, ground: da.Array) -> xr.Dataset:
    per_scene = ("scene", "y", "x")
    return xr.Dataset(
        {"reason": (per_scene, reason), "covered": (("time", "y", "x"), covered), "ground": (per_scene, ground)}
    )


def _slices(lengths: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum(lengths)
    return [slice(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]


def _grade(*layers: np.ndarray, names: tuple[str, ...], config: CubeSection) -> np.ndarray:
    """Give each step its reason."""
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
    """Give the reason of each of 256 scene classes: a table is quicker than one comparison a class."""
    reasons = np.full(256, QA.NO_DATA, "uint8")
    reasons[: _SCL_LAST + 1] = QA.CLEAR
    reasons[list(masked)] = QA.OTHER
    for classes, reason in ((_SCL_CLOUDS, QA.CLOUD), ((_SCL_SHADOW,), QA.SHADOW), ((_SCL_NO_DATA,), QA.NO_DATA)):
        reasons[[each for each in classes if each in masked]] = reason
    return reasons


def _grow(hidden: np.ndarray, reach_m: float, step_m: float, widen: bool) -> np.ndarray:
    """Grow cloud and shadow by a distance, and what is hidden at all by one step more where steps do not nest."""
    (reason,) = hidden
    out = reason.copy()
    # The more important last, over the others; where there is no data, there is none.
    for each in (QA.OTHER, QA.SHADOW, QA.CLOUD):
        near = within(reason == each, reach_m / step_m) if each != QA.OTHER else reason == each
        near = ndimage.maximum_filter(near, size=3, mode="constant") if widen else near
        out[near & (reason != QA.NO_DATA)] = each
    return out[np.newaxis]


def within(hit: np.ndarray, distance: float) -> np.ndarray:
    """Tell which pixels come nearer than a distance, in pixels, to one that is hit; areas are measured, not centres.

    The rows of a disc, laid over what is hit and its neighbours: exact, and in bytes, unlike a distance transform.
    """
    if distance <= 0 or not hit.any():
        return hit
    grown = ndimage.maximum_filter(hit, size=3, mode="constant")
    out = grown.copy()
    height = hit.shape[0]
    for down in range(min(math.ceil(distance), height)):
        # Strictly nearer: pixels that far to the side are as far as the distance.
        across = max(0, math.ceil(math.sqrt(distance**2 - down**2)) - 1)
        row = ndimage.maximum_filter1d(grown, 2 * across + 1, axis=1, mode="constant")
        out[down:] |= row[: height - down]
        out[: height - down] |= row[down:]
    return out


def _without_halo(fine: da.Array, halo: int, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    inner = fine[:, halo : fine.shape[1] - halo, halo : fine.shape[2] - halo]
    # As before the halo was cut off, so that chunks hold whole cells and lie on those of the bands.
    return inner.rechunk({0: 1, 1: chunks[0][0], 2: chunks[1][0]})


def _by_cell(function: Any, fine: da.Array, steps: int) -> da.Array:
    chunks = (fine.chunks[0], *(tuple(length // steps for length in axis) for axis in fine.chunks[1:]))
    return da.map_blocks(_reduced, fine, function=function, steps=steps, chunks=chunks, dtype="uint8")


def _reduced(fine: np.ndarray, function: Any, steps: int) -> np.ndarray:
    scenes, rows, columns = fine.shape
    blocks = fine.reshape(scenes, rows // steps, steps, columns // steps, steps)
    return np.asarray(function(blocks))


def _lowest_reason(blocks: np.ndarray) -> np.ndarray:
    lowest = np.where(blocks == QA.CLEAR, _UNHIDDEN, blocks).min(axis=(2, 4))
    return np.where(lowest == _UNHIDDEN, QA.CLEAR, lowest).astype("uint8")


def _only_class(blocks: np.ndarray) -> np.ndarray:
    lowest = blocks.min(axis=(2, 4))
    return np.where(lowest == blocks.max(axis=(2, 4)), lowest, 0).astype("uint8")


def _covered(on_steps: da.Array, reason: da.Array, steps: int) -> da.Array:
    if on_steps.shape[0] == 1:
        return reason[0] == QA.CLEAR
    together = ({0: -1}, {0: -1})
    fine, cells = (each.rechunk(whole) for each, whole in zip((on_steps, reason), together, strict=True))
    return da.map_blocks(_seen_together, fine, cells, steps=steps, chunks=cells.chunks[1:], drop_axis=0, dtype=bool)


def _seen_together(on_steps: np.ndarray, reason: np.ndarray, steps: int) -> np.ndarray:
    """Tell which cells are seen on every step by scenes that hide nothing of the cell."""
    usable = ((reason == QA.CLEAR) | (reason == QA.NO_DATA)).repeat(steps, axis=1).repeat(steps, axis=2)
    seen = ((on_steps == QA.CLEAR) & usable).any(axis=0)
    rows, columns = (length // steps for length in seen.shape)
    whole: np.ndarray = seen.reshape(rows, steps, columns, steps).all(axis=(1, 3))
    return whole


def explain(screened: xr.Dataset, scenes_per_slice: tuple[int, ...], geobox: "GeoBox") -> xr.DataArray:
    """Give the reason of every cell of a time slice, as far as masks know it.

    Returns
    -------
    xarray.DataArray
        Dims (time, y, x), uint8: values of `QA`, nodata OUTSIDE; where scenes have several, the lowest that hides.
    """
    of_slices = []
    for position, of_slice in enumerate(_slices(scenes_per_slice)):
        reason = screened.reason.data[of_slice]
        lowest = da.where(reason == QA.CLEAR, _UNHIDDEN, reason).min(axis=0)
        of_slices.append(da.where(screened.covered.data[position], QA.CLEAR, lowest).astype("uint8"))
    qa = xr.DataArray(da.stack(of_slices), dims=("time", "y", "x"), coords=xr_coords(geobox))
    return qa.rio.write_nodata(QA.OUTSIDE)


def clip(raster: xr.DataArray, geometry: "Geometry") -> xr.DataArray:
    """Set to nodata what lies outside a polygon or in its holes.

    A cell is inside when its centre is. A polygon that holds no centre at all, being smaller than a cell or narrower,
    keeps the cells it touches.

    Parameters
    ----------
    raster
        Last dims (y, x), with CRS and nodata.
    geometry
        Polygon or MultiPolygon with any CRS.
    """
    outline = geometry.to_crs(raster.rio.crs, resolution="auto").geom
    narrow = rasterio.features.geometry_mask([outline], raster.shape[-2:], raster.rio.transform()).all()
    clipped = raster.rio.clip([outline], raster.rio.crs, all_touched=bool(narrow), drop=False)
    return clipped.assign_attrs(raster.attrs)


def final_qa(image: xr.DataArray) -> xr.DataArray:
    """Explain an image by its own pixels, too: clear is what is valid in every band.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), with nodata and the coordinate `qa`.

    Returns
    -------
    xarray.DataArray
        Dims (y, x), uint8: values of `QA`.
    """
    values = image.values
    hole = np.isnan(values) if values.dtype.kind == "f" else values == image.rio.nodata
    missing = hole.any(axis=0) & (image.qa.values == QA.CLEAR)
    reasons = np.where(missing, QA.NO_DATA, image.qa.values).astype("uint8")
    return image.qa.copy(data=reasons).rio.write_nodata(QA.OUTSIDE)
