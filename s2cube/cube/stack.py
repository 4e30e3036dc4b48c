"""A plan becomes a lazy cube: the only file that knows stackstac."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import stackstac
import xarray as xr
from rasterio.enums import Resampling

from s2cube.config.literals import Quality
from s2cube.cube.chunks import Chunks, chunks, nests, on_steps, steps_per_cell
from s2cube.errors import SceneError
from s2cube.fetch.store import Access
from s2cube.raster.placement import Placement, placement
from s2cube.raster.reader import AssetReader
from s2cube.scenes.assets import band_key, layer_key
from s2cube.scenes.time_slice import Plan
from s2cube.sentinel2 import canonical_bands

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_LAYER_DTYPE = {"scl": "uint8", "cloud": "uint8", "snow": "uint8", "qa60": "uint16"}


def read_bands(plan: Plan, bands: tuple[str, ...], quality: Quality, access: Access) -> xr.DataArray:
    """Stack the bands of every scene on the plan's grid.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (scene, band, y, x), float32: `cells`, as `AssetReader.read` gives them. Scenes stand in the plan's
        order.

    Raises
    ------
    ConfigError
        If a band is unknown.
    AssetMissingError
        If a scene lacks a band. (What cannot be read raises AssetReadError when it is computed.)
    SceneError
        If a scene has no geometry or two projections.
    """
    names = canonical_bands(bands)
    keys = [[band_key(scene, name) for name in names] for scene in plan.scenes]
    reader = partial(AssetReader, quality=quality, access=access)
    stack = _stack(plan, keys, (plan.geobox, chunks(plan)), (np.dtype("float32"), reader))
    return stack.assign_coords(band=list(bands))


def read_layers(plan: Plan, layers: tuple[str, ...], halo_cells: int, access: Access) -> xr.Dataset:
    """Stack what masks are made of, finer than the plan's grid so that no source pixel is missed.

    A cell of the grid is cut into n × n steps, read by nearest neighbour. In the scenes' own CRS the step divides the
    20 m of the classification where it can (30 m cells: 3 × 3 steps of 10 m): every source pixel that overlaps a cell
    then falls on one of its steps, and they nest, for granules begin at multiples of 60 m. Elsewhere a step is 10 m or
    less.

    Parameters
    ----------
    layers
        Keys of `LAYER_ASSETS`.
    halo_cells
        How many cells more than the grid to read on every side.

    Returns
    -------
    xarray.Dataset
        Lazy, a variable a layer, dims (scene, y, x), 0 where there is no pixel; the attributes `steps`, n, and
        `step_m`; the coordinate `nests` along scene, whether steps lie within source pixels, whole.

    Raises
    ------
    AssetMissingError
        If a scene has no such layer.
    SceneError
        If a scene has no geometry or two projections.
    """
    steps = steps_per_cell(plan)
    stacks = {}
    for layer in layers:
        keys = [[layer_key(scene, layer)] for scene in plan.scenes]
        kind = (np.dtype(_LAYER_DTYPE[layer]), partial(AssetReader, access=access))
        stacks[layer] = _stack(plan, keys, on_steps(plan, halo_cells), kind).isel(band=0, drop=True)
    attrs = {"steps": steps, "step_m": plan.geobox.resolution.x / steps}
    return xr.Dataset(stacks, {"nests": ("scene", nests(plan))}, attrs)


def _stack(
    plan: Plan, keys: list[list[str]], grid: tuple["GeoBox", Chunks], kind: tuple["np.dtype[Any]", Any]
) -> xr.DataArray:
    """Stack files: of classes by nearest neighbour, of digital numbers (floats) by the area-weighted mean."""
    (geobox, chunked), (dtype, reader) = grid, kind
    scenes = plan.scenes
    # Each file itself says where its pixels lie. What items say of it is often another grid (proj:shape of the
    # undecimated file) or another spelling (proj:code), so stackstac is told no more than that all may meet the grid.
    bounds = tuple(geobox.boundingbox)
    epsg = geobox.crs.epsg if geobox.crs else None
    facts = {"datetime": None, "proj:epsg": epsg, "proj:bbox": bounds}
    positions = [str(position) for position in range(len(keys[0]))]
    items: list[dict[str, Any]] = []
    declared: dict[str, tuple[Placement, ...]] = {}
    for scene, of_scene in zip(scenes, keys, strict=True):
        if scene.geometry is None:
            raise SceneError(scene.id, "has no geometry", "Leave it out, or report it to the operator of the catalogue")
        hrefs = [scene.assets[key].href for key in of_scene]
        for key, href in zip(of_scene, hrefs, strict=True):
            declared[href] = (*declared.get(href, ()), placement(scene, key))
        assets = {position: {"href": href} for position, href in zip(positions, hrefs, strict=True)}
        items.append({"id": scene.id, "properties": facts, "assets": assets})
    stack = stackstac.stack(
        items,
        assets=positions,
        epsg=epsg,
        resolution=geobox.resolution.x,
        bounds=bounds,
        snap_bounds=False,
        resampling=Resampling.average if dtype.kind == "f" else Resampling.nearest,
        chunksize=(1, 1, chunked.rows, chunked.columns),
        dtype=dtype,
        fill_value=dtype.type(0),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=partial(reader, declared=declared),
    )
    assert stack.shape == (len(scenes), len(positions), *geobox.shape), (stack.shape, geobox)
    return stack.rename(time="scene").drop_vars("scene")
