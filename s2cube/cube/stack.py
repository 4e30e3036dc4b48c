"""Stack files as a lazy array: the only file that knows stackstac."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import rioxarray  # noqa: F401  registers .rio
import stackstac
import xarray as xr

from s2cube.config.literals import Quality
from s2cube.cube.chunks import ReadGrid
from s2cube.cube.reads import Read
from s2cube.errors import SceneError
from s2cube.fetch.store import Access
from s2cube.raster.placement import Placement, placement
from s2cube.raster.reader import AssetReader


def read_bands(files: Sequence[Read], bands: tuple[str, ...], quality: Quality, access: Access) -> xr.DataArray:
    """Stack the bands of scenes on the grid of the image.

    Parameters
    ----------
    files
        From `reads`; layers are left out.
    bands
        Names for the coordinate `band`.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (scene, band, y, x): `cells`, as `AssetReader.read` gives them. The order of the scenes is
        that of `files`. A file that cannot be read raises AssetReadError when it is computed.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    stack = _stack([each for each in files if not each.is_layer], partial(AssetReader, quality=quality, access=access))
    return stack.assign_coords(band=list(bands))


def read_layers(files: Sequence[Read], grid: ReadGrid, layers: tuple[str, ...], access: Access) -> xr.Dataset:
    """Stack the layers that masks are computed from, on a grid that is finer than the image: no pixel is missed.

    A cell of the image is cut into n × n steps. They are read by nearest neighbour. In the scenes' own CRS the step
    divides the 20 m of the classification if possible (cells of 30 m: 3 × 3 steps of 10 m). Then every pixel that
    overlaps a cell is read on one of its steps at least, and steps nest in pixels, for granules begin at multiples of
    60 m. In another CRS a step is 10 m or less.

    Parameters
    ----------
    files
        From `reads`; bands are left out.
    grid
        That of `files`.
    layers
        Keys of `LAYER_ASSETS`.

    Returns
    -------
    xarray.Dataset
        Lazy, one variable for each layer, dims (scene, y, x), 0 where there is no pixel. Its attributes are `steps`, n,
        and `step_m`. Its coordinate `nests` along scene says whether pixels consist of whole steps.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    reader = partial(AssetReader, access=access)
    stacks = {
        layer: _stack([each for each in files if each.name == layer], reader).isel(band=0, drop=True)
        for layer in layers
    }
    attrs = {"steps": grid.steps, "step_m": grid.geobox.resolution.x / grid.steps}
    return xr.Dataset(stacks, {"nests": ("scene", list(grid.nests))}, attrs)


def _stack(files: Sequence[Read], reader: Any) -> xr.DataArray:
    """Stack files of one grid and dtype."""
    geobox, chunks, dtype = files[0].geobox, files[0].chunks, files[0].dtype
    of_scenes = [list(group) for _, group in groupby(files, lambda each: id(each.scene))]
    # Each file itself says where its pixels lie. Items often describe another grid (proj:shape of the undecimated file)
    # or use another member (proj:code). So stackstac gets the bounds of the grid for every file.
    bounds = tuple(geobox.boundingbox)
    epsg = geobox.crs.epsg if geobox.crs else None
    facts = {"datetime": None, "proj:epsg": epsg, "proj:bbox": bounds}
    positions = [str(position) for position in range(len(of_scenes[0]))]
    items: list[dict[str, Any]] = []
    for of_scene in of_scenes:
        hrefs = [each.asset.href for each in of_scene]
        assets = {position: {"href": href} for position, href in zip(positions, hrefs, strict=True)}
        items.append({"id": of_scene[0].scene.id, "properties": facts, "assets": assets})
    stack = stackstac.stack(
        items,
        assets=positions,
        epsg=epsg,
        resolution=geobox.resolution.x,
        bounds=bounds,
        snap_bounds=False,
        chunksize=(1, 1, chunks.rows, chunks.columns),
        dtype=dtype,
        fill_value=dtype.type(0),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=partial(reader, declared=_declared(files)),
    )
    assert stack.shape == (len(of_scenes), len(positions), *geobox.shape), (stack.shape, geobox)
    return stack.rename(time="scene").drop_vars("scene")


def _declared(files: Sequence[Read]) -> dict[str, tuple[Placement, ...]]:
    """Collect by URL where items say that files lie; several items may name one file."""
    declared: dict[str, tuple[Placement, ...]] = {}
    for scene, key, *_ in files:
        if scene.geometry is None:
            raise SceneError(scene.id, "has no geometry", "Leave it out, or report it to the operator of the catalogue")
        href = scene.assets[key].href
        declared[href] = (*declared.get(href, ()), placement(scene, key))
    return declared
