"""Read files that only GDAL supports: JPEG 2000, internal masks, uncommon compressions, CRS without a code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from s2cube.errors import S2CubeError
from s2cube.fetch.addresses import is_remote, local_path
from s2cube.fetch.store import Access, read_error
from s2cube.raster._ranged_file import GdalPath, RangedFile
from s2cube.raster.lattice import Block, Lattice

_BLOCK_PIXELS = 4_000_000
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # With several threads, GDAL's JPEG 2000 driver loses errors and returns empty pixels.
    "GDAL_NUM_THREADS": 1,
}


@dataclass(frozen=True, eq=False)
class GdalRaster:
    """A `Raster`: one level of a file, which is full resolution (`overview` is None) or an overview.

    Parameters
    ----------
    nodata
        Always None, because the mask of each block already excludes nodata.
    skips_zeros
        Whether overviews are averages without DN 0. If a file has a mask, GDAL excludes masked pixels from the
        averages, but not nodata.
    version
        Constant, because GDAL does not report whether a file has changed.
    """

    href: str
    access: Access
    lattice: Lattice
    driver: str
    overview: int | None
    skips_zeros: bool
    nodata: float | None = None
    version: str = "unknown"

    def blocks(self, window: Window) -> Iterator[Block]:
        """Yield the pixels of a window in stripes of whole rows. The size of a stripe is limited."""
        rows = max(1, _BLOCK_PIXELS // window.width)
        with opened(self.href, self.access, self.driver, self.overview) as (file, check):
            masked = MaskFlags.per_dataset in file.mask_flag_enums[0]
            for top in range(window.row_off, window.row_off + window.height, rows):
                height = min(rows, window.row_off + window.height - top)
                stripe = Window(window.col_off, top, window.width, height)
                pixels = file.read(1, window=stripe)
                mask = np.ones(pixels.shape, bool) if file.nodata is None else pixels != file.nodata
                if masked:
                    mask &= file.read_masks(1, window=stripe) != 0
                check()
                yield Block(top, window.col_off, pixels, mask)


def rasters(href: str, access: Access, driver: str) -> list[GdalRaster]:
    """List the levels of a file: full resolution, then overviews.

    The resolution levels of JPEG 2000 are not used as overviews: its wavelets mix nodata into neighbouring pixels.

    Parameters
    ----------
    driver
        GDAL's driver for this file type. Other drivers are not allowed, because a VRT can refer to any file.

    Raises
    ------
    AssetReadError
        If the file cannot be read, or is not one band of integers on a known grid.
    """
    try:
        with opened(href, access, driver, None) as (file, _):
            if file.count != 1:
                raise read_error(href, f"has {file.count} bands, not one")
            if file.crs is None or file.transform.is_identity:
                raise read_error(href, "has no georeferencing")
            if np.dtype(file.dtypes[0]).kind not in "iu":
                raise read_error(href, f"has {file.dtypes[0]} pixels, not digital numbers or classes")
            factors = file.overviews(1) if driver == "GTiff" else []
            skips_zeros = file.nodata == 0 and MaskFlags.per_dataset not in file.mask_flag_enums[0]
            lattices = [Lattice(file.crs, file.transform, *file.shape)]
        for position in range(len(factors)):
            with opened(href, access, driver, position) as (file, _):
                lattices.append(Lattice(file.crs, file.transform, *file.shape))
    except S2CubeError:
        raise
    except Exception as error:  # noqa: BLE001  this file is the reason for any error of GDAL or rasterio
        raise read_error(href, f"cannot be read ({cause(error)})") from None
    return [
        GdalRaster(href, access, lattice, driver, position - 1 if position else None, skips_zeros)
        for position, lattice in enumerate(lattices)
    ]


def cause(error: BaseException) -> BaseException:
    """Return the first cause of an error: errors of GDAL are more specific than those of rasterio."""
    while error.__cause__:
        error = error.__cause__
    return error


@contextmanager
def opened(
    href: str, access: Access, driver: str, overview: int | None
) -> Iterator[tuple[rasterio.DatasetReader, Callable[[], None]]]:
    """Open a level of a file. Yield it and a function that raises the original read error: GDAL replaces it by its own.

    Parameters
    ----------
    driver
        See `rasters`.
    overview
        Number of the overview; None for full resolution.
    """
    options = {"driver": driver, "sharing": False} | ({} if overview is None else {"overview_level": overview})
    with rasterio.Env(**_OPTIONS):
        if not is_remote(href):
            with rasterio.open(local_path(href), **options) as file:
                yield file, lambda: None
            return
        content = RangedFile(href, access)
        try:
            with GdalPath(content) as path, path.open(**options) as file:
                content.check()
                yield file, content.check
        finally:
            content.check()
