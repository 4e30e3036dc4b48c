"""Build a lazy cube from COGs of an output. A file that is not the one that its Item describes is an error."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import quote

import dask.array as da
import numpy as np
import rasterio
import shapely
import xarray as xr
from affine import Affine
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.windows import Window

from s2cube.cube.cut import labelled
from s2cube.cube.facts import Provenance, SliceFacts, describe
from s2cube.errors import AssetReadError, OutputError, S2CubeError
from s2cube.fetch.addresses import is_remote
from s2cube.fetch.cache import file_cache
from s2cube.fetch.store import Access, fetch, read_error
from s2cube.inventory._stored_item import StoredItem
from s2cube.kernels.packing import PACKINGS
from s2cube.raster.gdal_file import cause, opened
from s2cube.scenes.time_slice import Dropped
from s2cube.storage.image_item import DATA, QA_IMAGE, SHA2_256, SUFFIXES, checksum
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output

_WHOLE_BYTES = 64 << 20
"""A smaller file is fetched whole, and compared with its checksum. Of a larger file, only the needed tiles are fetched:
to read it whole for every chunk would cost too much."""

_CONVERSIONS = {("int16", "int16"), ("float32", "float32"), ("int16", "float32")}
"""Data types of an image and of a cube."""

_CHUNK_CELLS = 2048
"""Maximum side of a chunk: four tiles of the COGs, which have 512 cells."""

_PART_BYTES = 8 << 20
"""Size of a request. A request for more could exceed the time limit."""

_REMEDY = (
    "If a run has replaced it, open the output again. Otherwise run `s2cube verify --repair` and then the job, which "
    "recomputes it"
)


@dataclass(frozen=True)
class StoredImage:
    """A COG of an output, as its Item describes it.

    Parameters
    ----------
    href
        Address that `fetch` reads.
    size
        Bytes; None if the Item does not contain it.
    checksum
        Multihash, hexadecimal; empty if the Item does not contain it.
    dtype
        Data type of the pixels.
    shape
        Bands, rows, columns.
    grid
        CRS and affine transformation.
    positions
        Positions of the bands to read, from 1.
    """

    href: str
    size: int | None
    checksum: str
    dtype: str
    shape: tuple[int, int, int]
    grid: tuple[str, tuple[float, ...]]
    positions: tuple[int, ...]
    access: Access


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
    source = _Source(output, access)
    values = _lazy(_read_pixels, [source.pixels(each, bands) for each in items], (len(bands),), dtype)
    reasons = _lazy(_read_reasons, [source.reasons(each) for each in items], (), "uint8")
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


@dataclass(frozen=True)
class _Source:
    """An output from which images are read."""

    output: Output
    access: Access

    def pixels(self, item: StoredItem, bands: tuple[str, ...]) -> StoredImage:
        """Return the COG of an image."""
        positions = tuple(item.bands.index(name) + 1 for name in bands)
        return self._image(item, DATA, item.dtype, len(item.bands), positions)

    def reasons(self, item: StoredItem) -> StoredImage:
        """Return the QA image of an image."""
        return self._image(item, QA_IMAGE, "uint8", 1, (1,))

    def _image(self, item: StoredItem, kind: str, dtype: str, bands: int, positions: tuple[int, ...]) -> StoredImage:
        name = slice_file(item.aoi, item.slice, SUFFIXES[kind])
        if name not in item.files:
            remedy = "Delete it, and run the job again"
            raise OutputError(self.output.path(item.aoi, item.slice, ".json"), f"has no asset '{kind}'", remedy)
        path = self.output.destination.local(name)
        return StoredImage(
            str(path) if path else quote(f"{self.output.destination.address}/{name}", safe=":/"),
            item.files[name], item.checksums.get(name, ""), dtype, (bands, *item.facts.shape),
            (item.facts.crs, tuple(item.facts.transform)), positions, self.access,
        )  # fmt: skip


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
    return _read_pixels(image, window, dtype)[:, 0]


def _read_pixels(image: StoredImage, window: Window, dtype: str) -> np.ndarray:
    """Read a part of an image. int16 reflectance may become float32, with nodata NaN.

    Raises
    ------
    AssetReadError
        If the file cannot be read, or is not the one that the Item describes.
    """
    try:
        with _opened(image, window) as file:
            crs, transform = image.grid
            same_grid = file.crs == CRS.from_string(crs) and file.transform.almost_equals(Affine(*transform))
            if not same_grid or ((file.count, *file.shape), {*file.dtypes}) != (image.shape, {image.dtype}):
                raise _differs(image, "has another grid, or other bands, than its Item says")
            pixels = file.read(list(image.positions), window=window)
            # Bands of classes have no scale.
            scales = np.array([file.scales[position - 1] for position in image.positions], "float32")
    except AssetReadError as error:
        # A file on this machine is not there, or is damaged. The errors of servers have their own remedies.
        raise error if is_remote(image.href) else replace(error, remedy=_REMEDY) from None
    except S2CubeError:
        raise
    except Exception as error:  # noqa: BLE001  this file is the reason for any error of GDAL or rasterio
        raise _differs(image, f"cannot be read ({cause(error)})") from None
    return _converted(pixels, dtype, scales)[np.newaxis]


def _converted(pixels: np.ndarray, dtype: str, scales: np.ndarray) -> np.ndarray:
    if pixels.dtype == dtype:
        return pixels
    values: np.ndarray = pixels * scales[:, np.newaxis, np.newaxis]
    values[PACKINGS[pixels.dtype.name].holes(pixels)] = PACKINGS[dtype].nodata
    return values


@contextmanager
def _opened(image: StoredImage, window: Window) -> Iterator[rasterio.DatasetReader]:
    """Open a file. At the end, raise the error of a request that failed meanwhile."""
    if image.size and image.size > _WHOLE_BYTES:
        _check_size(image, fetch(image.href, 0, 1, image.access).whole_bytes)
        with opened(image.href, image.access, "GTiff", None) as (file, _):
            yield file
        return
    if (window.height, window.width) == image.shape[1:]:
        content = _content(image)
    else:  # other chunks of the image need it soon
        content = file_cache().get(image, lambda: _with_size(_content(image)))
    with MemoryFile(content) as memory, memory.open(driver="GTiff", sharing=False) as file:
        yield file


def _content(image: StoredImage) -> bytes:
    """Fetch a complete file, and compare it with its size and checksum."""
    parts, size = list[memoryview](), 1
    while len(parts) * _PART_BYTES < size:
        part = fetch(image.href, len(parts) * _PART_BYTES, (len(parts) + 1) * _PART_BYTES, image.access)
        size = part.whole_bytes
        _check_size(image, size)
        parts.append(part.data)
    content = b"".join(parts)
    if image.checksum.startswith(SHA2_256) and image.checksum != checksum(content):
        raise _differs(image, "differs from the checksum in its Item")
    return content


def _with_size(content: bytes) -> tuple[bytes, int]:
    return content, len(content)


def _check_size(image: StoredImage, size: int) -> None:
    if image.size not in (None, size):
        raise _differs(image, f"has {size} bytes, not {image.size} as its Item says")


def _differs(image: StoredImage, problem: str) -> AssetReadError:
    return read_error(image.href, problem, remedy=_REMEDY)
