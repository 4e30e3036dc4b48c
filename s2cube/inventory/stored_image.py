"""Read an image of an output. A file that is not the one that its Item describes is an error."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.windows import Window

from s2cube.errors import AssetReadError, OutputError, S2CubeError
from s2cube.fetch.addresses import is_remote
from s2cube.fetch.cache import file_cache
from s2cube.fetch.session import per_session
from s2cube.fetch.store import Access, fetch, read_error
from s2cube.fetch.traffic import Traffic
from s2cube.inventory._stored_item import StoredItem
from s2cube.kernels.packing import PACKINGS
from s2cube.raster.gdal_file import cause, opened
from s2cube.storage.image_item import DATA, QA_IMAGE, SHA2_256, SUFFIXES, checksum
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output

_WHOLE_BYTES = 64 << 20
"""A smaller file is fetched whole, and compared with its checksum. Of a larger file, only the needed tiles are fetched:
to read it whole for every chunk would cost too much."""

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

    @property
    def traffic(self) -> Traffic:
        """What reading the complete image costs. For a large file, its checksum costs the same again."""
        size = self.size or 0
        whole = Traffic(math.ceil(size / _PART_BYTES), size)
        return whole + whole if size > _WHOLE_BYTES else whole


def image_of(output: Output, item: StoredItem, access: Access, bands: tuple[str, ...]) -> StoredImage:
    """Return bands of the COG of an image.

    Raises
    ------
    OutputError
        If the Item does not have it.
    """
    positions = tuple(item.bands.index(name) + 1 for name in bands)
    return _image(output, item, access, DATA, (item.dtype, len(item.bands), positions))


def whole_images(
    output: Output, slices: Mapping[tuple[str, str], str], bands: tuple[str, ...], access: Access
) -> dict[str, StoredImage]:
    """Find images in an output that are whole, and that a run would not recompute.

    Parameters
    ----------
    slices
        Recipe of each slice, by the ids of AOI and slice.
    bands
        Bands that an image must have.

    Returns
    -------
    dict
        These bands of the images, by id of the slice.
    """
    sizes = output.sizes()
    listed = [key for key in slices if slice_file(*key) in sizes]
    found = {}
    for key, item in zip(listed, output.read_items(listed), strict=True):
        if item is None or item.recipe != slices[key] or not {*bands} <= {*item.bands} or item.flaw(sizes):
            continue
        with suppress(ValueError, OutputError):
            found[item.slice] = image_of(output, StoredItem.of(item), access, bands)
    return found


def qa_image_of(output: Output, item: StoredItem, access: Access) -> StoredImage:
    """Return the QA image of an image. Raises as `image_of`."""
    return _image(output, item, access, QA_IMAGE, ("uint8", 1, (1,)))


def _image(
    output: Output, item: StoredItem, access: Access, kind: str, form: tuple[str, int, tuple[int, ...]]
) -> StoredImage:
    name, (dtype, bands, positions) = slice_file(item.aoi, item.slice, SUFFIXES[kind]), form
    if name not in item.files:
        remedy = "Delete it, and run the job again"
        raise OutputError(output.path(item.aoi, item.slice, ".json"), f"has no asset '{kind}'", remedy)
    path = output.destination.local(name)
    return StoredImage(
        str(path) if path else quote(f"{output.destination.address}/{name}", safe=":/"),
        item.files[name], item.checksums.get(name, ""), dtype, (bands, *item.facts.shape),
        (item.facts.crs, tuple(item.facts.transform)), positions, access,
    )  # fmt: skip


def read_pixels(image: StoredImage, window: Window, dtype: str) -> np.ndarray:
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


def check_content(image: StoredImage) -> None:
    """Compare a large file with its size and checksum, once per process. `read_pixels` does it for smaller files.

    Raises
    ------
    AssetReadError
        If the file cannot be read, or is not the one that the Item describes.
    """
    if image.size and image.size > _WHOLE_BYTES and image.checksum.startswith(SHA2_256):
        _check_once(image)


@per_session(maxsize=4096)
def _check_once(image: StoredImage) -> None:
    found = hashlib.sha256()
    for part in _parts(image):
        found.update(part)
    _check_sum(image, f"{SHA2_256}{found.hexdigest()}")


def _content(image: StoredImage) -> bytes:
    """Fetch a complete file, and compare it with its size and checksum."""
    content = b"".join(_parts(image))
    if image.checksum.startswith(SHA2_256):
        _check_sum(image, checksum(content))
    return content


def _parts(image: StoredImage) -> Iterator[memoryview]:
    """Fetch a complete file, and compare it with its size."""
    at, size = 0, 1
    while at < size:
        part = fetch(image.href, at, at + _PART_BYTES, image.access)
        size = part.whole_bytes
        _check_size(image, size)
        yield part.data
        at += _PART_BYTES


def _check_sum(image: StoredImage, found: str) -> None:
    if image.checksum != found:
        raise _differs(image, "differs from the checksum in its Item")


def _with_size(content: bytes) -> tuple[bytes, int]:
    return content, len(content)


def _check_size(image: StoredImage, size: int) -> None:
    if image.size not in (None, size):
        raise _differs(image, f"has {size} bytes, not {image.size} as its Item says")


def _differs(image: StoredImage, problem: str) -> AssetReadError:
    return read_error(image.href, problem, remedy=_REMEDY)
