"""Files that only GDAL reads: JPEG 2000, internal masks, uncommon compressions, CRS without a code."""

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
    # An error in a thread of GDAL's JPEG 2000 driver is lost, and the pixels are empty.
    "GDAL_NUM_THREADS": 1,
}


@dataclass(frozen=True, eq=False)
class GdalRaster:
    """A level of a file, a `Raster`: full resolution (`overview` is None), or an overview.

    Parameters
    ----------
    nodata
        Always None: `blocks` puts it into the mask.
    skips_zeros
        Whether its overviews leave DN 0 out. If a file has a mask, GDAL leaves out the pixels that the mask excludes,
        but not nodata.
    version
        Always the same, because GDAL does not show whether a file has changed.
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
        """Yield the pixels of a window in stripes of whole rows, bounded in size."""
        rows = max(1, _BLOCK_PIXELS // window.width)
        with _opened(self.href, self.access, self.driver, self.overview) as (file, check):
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
    """List full resolution and overviews of a file.

    The resolution levels of JPEG 2000 are not used as overviews: its wavelets mix no data into pixels beside it.

    Parameters
    ----------
    driver
        GDAL's driver for this kind of file. No other may read it: a VRT could name any file.

    Raises
    ------
    AssetReadError
        If it cannot be read, or does not hold one band of integers on a known grid.
    """
    try:
        with _opened(href, access, driver, None) as (file, _):
            if file.count != 1:
                raise read_error(href, f"has {file.count} bands, not one")
            if file.crs is None or file.transform.is_identity:
                raise read_error(href, "does not say where it lies")
            if np.dtype(file.dtypes[0]).kind not in "iu":
                raise read_error(href, f"holds {file.dtypes[0]}, not digital numbers or classes")
            factors = file.overviews(1) if driver == "GTiff" else []
            skips_zeros = file.nodata == 0 and MaskFlags.per_dataset not in file.mask_flag_enums[0]
            places = [Lattice(file.crs, file.transform, *file.shape)]
        for position in range(len(factors)):
            with _opened(href, access, driver, position) as (file, _):
                places.append(Lattice(file.crs, file.transform, *file.shape))
    except S2CubeError:
        raise
    except Exception as error:  # noqa: BLE001  whatever GDAL or rasterio trip over, it is this file
        raise read_error(href, f"cannot be read ({cause(error)})") from None
    return [
        GdalRaster(href, access, place, driver, position - 1 if position else None, skips_zeros)
        for position, place in enumerate(places)
    ]


def cause(error: BaseException) -> BaseException:
    """Give the first cause of an error: the errors of GDAL say more than those of rasterio."""
    while error.__cause__:
        error = error.__cause__
    return error


@contextmanager
def _opened(
    href: str, access: Access, driver: str, overview: int | None
) -> Iterator[tuple[rasterio.DatasetReader, Callable[[], None]]]:
    """Open a file; also give a function that raises the error of reading it, which GDAL replaces by its own."""
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
