"""Build a lazy cube from COGs of an output. A file that is not the one that its Item describes is an error."""

import hashlib
from collections.abc import Callable, Sequence

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from s2cube.cube.cut import labelled
from s2cube.cube.facts import Provenance, SliceFacts, describe
from s2cube.errors import OutputError
from s2cube.fetch.store import Access
from s2cube.inventory._stored_item import StoredItem
from s2cube.inventory.stored_image import StoredImage, image_of, qa_image_of, read_pixels
from s2cube.kernels.packing import PACKINGS
from s2cube.scenes.time_slice import Dropped
from s2cube.storage.image_item import DATA
from s2cube.storage.output import Output

_CONVERSIONS = {("int16", "int16"), ("float32", "float32"), ("int16", "float32")}
"""Data types of an image and of a cube."""

_CHUNK_CELLS = 2048
"""Maximum side of a chunk: four tiles of the COGs, which have 512 cells."""


def stored_cube(
    output: Output, items: Sequence[StoredItem], wanted: tuple[str, ...], dtype: str, access: Access
) -> xr.DataArray:
    """Return the cube of images of one AOI, as `open_cube` returns it. No file is opened.

    Parameters
    ----------
    items
        Items of the images, which have the same bands, grid and dtype.
    wanted
        Names of the bands of the cube; none for all.
    dtype
        Data type of a cube of reflectance. Values that were computed from a cube keep their own data type.

    Raises
    ------
    OutputError
        If an image has no QA image, or if its values cannot become this dtype.
    """
    first = items[0]
    dtype = first.dtype if first.name else dtype
    if not first.dtype or not (first.name or (first.dtype, dtype) in _CONVERSIONS):
        problem = f"is {first.dtype or 'of an unknown type'}, not {dtype}"
        raise OutputError(output.path(first.aoi, first.slice), problem, "Choose another dtype, or open it by rasterio")
    bands = wanted or first.bands
    values = _lazy(read_pixels, [image_of(output, each, access, bands) for each in items], (len(bands),), dtype)
    reasons = _lazy(_read_reasons, [qa_image_of(output, each, access) for each in items], (), "uint8")
    geobox = GeoBox(first.facts.shape, Affine(*first.facts.transform), first.facts.crs)
    cube: xr.DataArray = labelled(values, reasons, bands, geobox, [each.time for each in items])
    cube = describe(cube, [_slice_facts(each, dtype) for each in items])
    nodata = _nodata(first) if first.name else PACKINGS[dtype].nodata
    if nodata is not None:
        cube = cube.rio.write_nodata(nodata, encoded=True)
        # For integers, rioxarray does not read nodata from the encoding.
        cube.rio.set_nodata(nodata)
    return cube


def _nodata(item: StoredItem) -> float | None:
    """Return the nodata value of an image that was computed from a cube; None if every pixel has a value."""
    if np.dtype(item.dtype).kind == "f":
        return float("nan")
    nodata = item.document["assets"][DATA]["bands"][0].get("nodata")
    return int(nodata) if isinstance(nodata, int | float) else None


def _slice_facts(item: StoredItem, dtype: str) -> SliceFacts:
    facts, recipe, settings = item.facts, item.recipe, item.facts.settings
    if dtype != item.dtype:
        # An image of these values is neither the stored one nor one that a run computes.
        recipe = hashlib.sha256(f"{recipe} as {dtype}".encode()).hexdigest()[:16]
        settings = settings | {"dtype": dtype}
    dropped = tuple(Dropped(**each.model_dump()) for each in facts.dropped)
    provenance = Provenance(
        recipe, facts.data_version, settings, facts.search, facts.ground, facts.offset_dn, dropped, item.derived_from
    )
    outline = shapely.geometry.shape(dict(item.geometry))
    interval = item.interval if item.properties["datetime"] is None else None
    time = None if interval else item.time
    return SliceFacts(item.aoi, outline, item.slice, time, item.scenes, provenance, item.name, interval)


def _lazy(
    read: Callable[[StoredImage, Window, str], np.ndarray], images: Sequence[StoredImage], bands: tuple[int, ...],
    dtype: str,
) -> da.Array:  # fmt: skip
    """Return an array, dims (time, y, x), or (time, band, y, x) if there is a number of bands. A task reads a chunk."""
    # A token of one text, because Dask takes 0.1 ms for each value of a thousand images.
    facts = "\n".join(f"{each.href} {each.size} {each.checksum} {each.positions}" for each in images)
    name = f"{read.__name__.strip('_')}-{tokenize(facts, dtype)}"
    rows, columns = (_lengths(cells) for cells in images[0].shape[1:])
    chunks = ((1,) * len(images), *((count,) for count in bands), rows, columns)
    windows = {
        (*(0 for _ in bands), down, across): Window(across * _CHUNK_CELLS, down * _CHUNK_CELLS, width, height)
        for down, height in enumerate(rows)
        for across, width in enumerate(columns)
    }
    graph = {
        (name, time, *place): (read, image, window, dtype)
        for time, image in enumerate(images)
        for place, window in windows.items()
    }
    return da.Array(graph, name, chunks, dtype=dtype)


def _lengths(cells: int) -> tuple[int, ...]:
    return tuple(min(_CHUNK_CELLS, cells - first) for first in range(0, cells, _CHUNK_CELLS))


def _read_reasons(image: StoredImage, window: Window, dtype: str) -> np.ndarray:
    return read_pixels(image, window, dtype)[:, 0]
