"""Stack files as a lazy array. Only this module uses stackstac."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import dask.array as da
import stackstac
from rasterio.windows import Window

from s2cube.config.literals import Quality
from s2cube.cube.reads import Read
from s2cube.errors import SceneError
from s2cube.fetch.store import Access
from s2cube.raster.placement import Placement, placement
from s2cube.raster.reader import AssetReader, Faults


def read_bands(files: Sequence[Read], quality: Quality, access: Access) -> da.Array | None:
    """Stack the bands of reflectance of scenes on the grid of the image.

    Parameters
    ----------
    files
        From `reads`. Layers are ignored.

    Returns
    -------
    dask.array.Array or None
        None if there are no bands. Lazy, dims (scene, band, y, x): packed cells, see `raster.cells`. The order of
        scenes and bands is that of `files`. If a file cannot be read, the computation raises AssetReadError.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    bands = [each for each in files if not each.is_layer]
    return _stack(bands, partial(AssetReader, quality=quality, access=access)) if bands else None


def read_layers(files: Sequence[Read], layers: tuple[str, ...], access: Access) -> list[da.Array]:
    """Stack mask layers on a grid that is finer than the image, so that masks miss no pixel.

    A cell of the image consists of n × n steps. They are read by nearest neighbour. If scenes have the grid's CRS, a
    20 m pixel of the scene classification consists of whole steps if possible (cells of 30 m: 3 × 3 steps of 10 m).
    Then every pixel that overlaps a cell is read on at least one of its steps. Steps nest in pixels, because
    coordinates of granule edges are multiples of 60 m. In another CRS a step is 10 m or less.

    Parameters
    ----------
    files
        From `reads`. Bands are ignored.
    layers
        Keys of `LAYER_ASSETS`.

    Returns
    -------
    list of dask.array.Array
        Lazy, one array per layer, dims (scene, y, x), 0 where there is no pixel.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    reader = partial(AssetReader, access=access)
    return [_stack([each for each in files if each.name == layer], reader)[:, 0] for layer in layers]


def read_parts(
    files: Sequence[Read], quality: Quality, access: Access, parts: Mapping[str, tuple[Window, ...]], faults: Faults
) -> da.Array:
    """Stack parts of files on one grid, see `AssetReader`.

    Parameters
    ----------
    files
        From `reads`, all with the same grid and dtype.
    parts
        Windows of the grid that are read of each file, by its URL.
    faults
        Receives the errors. The computation raises none.

    Returns
    -------
    dask.array.Array
        Lazy, dims (scene, file, y, x). Only cells of parts have values.

    Raises
    ------
    SceneError
        If a scene has no geometry or two projections.
    """
    return _stack(files, _PartsReader(quality, access, parts, faults))


@dataclass(frozen=True, eq=False)
class _PartsReader:
    """Makes readers of parts of files."""

    quality: Quality
    access: Access
    parts: Mapping[str, tuple[Window, ...]]
    faults: Faults

    def __call__(self, *, url: str, **options: Any) -> AssetReader:
        options |= {"quality": self.quality, "access": self.access, "parts": self.parts[url], "faults": self.faults}
        return AssetReader(url=url, **options)

    def __dask_tokenize__(self) -> int:
        return id(self)


def _stack(files: Sequence[Read], reader: Any) -> da.Array:
    """Stack files that have the same grid and dtype, dims (scene, asset, y, x)."""
    geobox, chunks, dtype = files[0].geobox, files[0].chunks, files[0].dtype
    of_scenes = [list(group) for _, group in groupby(files, lambda each: id(each.scene))]
    # AssetReader reads the location of pixels from the file. Items often describe another grid (proj:shape of the
    # undecimated file) or use another member (proj:code). So stackstac gets the bounds of the grid for every file.
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
    stacked: da.Array = stack.data
    if all(count == 1 for count in stacked.numblocks[2:]):
        # stackstac annotates its readers, so that Dask does not fuse them with reads: several chunks share a reader.
        for layer in stacked.dask.layers.values():
            layer.annotations = None
    return stacked


def _declared(files: Sequence[Read]) -> dict[str, tuple[Placement, ...]]:
    """Collect by URL the locations of files in items. Several items may refer to one file."""
    declared: dict[str, tuple[Placement, ...]] = {}
    for scene, key, *_ in files:
        if scene.geometry is None:
            raise SceneError(scene.id, "has no geometry", "Leave it out, or report it to the operator of the catalogue")
        href = scene.assets[key].href
        declared[href] = (*declared.get(href, ()), placement(scene, key))
    return declared
