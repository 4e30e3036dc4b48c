"""Files that only GDAL reads: JPEG 2000, internal masks, uncommon compressions, CRS without a code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from s2cube.errors import AssetReadError
from s2cube.remote import is_remote
from s2cube.resample import Block, Lattice
from s2cube.store import Access, address, failed, local_path

_BLOCK_PIXELS = 4_000_000
_REFUSED = re.compile(r"\b40[13]\b")


def _options(access: Access) -> dict[str, object]:
    return {
        # GDAL retries inside an open, and must not remember one that failed: else the next run in this process, or on
        # a standing cluster, would fail without asking.
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
        "GDAL_HTTP_MAX_RETRY": access.retries,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_LOW_SPEED_TIME": round(access.timeout_s),
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_PAM_ENABLED": "NO",
        # What fails in threads of GDAL's JPEG 2000 driver comes back as pixels, of nothing.
        "GDAL_NUM_THREADS": 1,
    }


@dataclass(frozen=True, eq=False)
class GdalRaster:
    """A level of a file, as `resample` wants it: full resolution (`overview` is None), or an overview.

    Parameters
    ----------
    nodata
        Nothing: `blocks` gives it with the mask.
    skips_zeros
        Whether its overviews average no DN 0; where a file has a mask, GDAL leaves out what this hides, and no nodata.
    version
        GDAL does not tell whether a file has changed.
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
        with rasterio.Env(**_options(self.access)), _opened(self.href, self.access, self.driver, self.overview) as file:
            masked = MaskFlags.per_dataset in file.mask_flag_enums[0]
            for top in range(window.row_off, window.row_off + window.height, rows):
                height = min(rows, window.row_off + window.height - top)
                stripe = Window(window.col_off, top, window.width, height)
                pixels = file.read(1, window=stripe)
                mask = np.ones(pixels.shape, bool) if file.nodata is None else pixels != file.nodata
                if masked:
                    mask &= file.read_masks(1, window=stripe) != 0
                yield Block(top, window.col_off, pixels, mask)


def rasters(href: str, access: Access, driver: str) -> list[GdalRaster]:
    """List full resolution and overviews of a file.

    The resolution levels of JPEG 2000 are no overviews: its wavelets blend no data into what is beside it.

    Parameters
    ----------
    driver
        GDAL's for the kind of file that it is. No other may read it: a VRT could name any file.

    Raises
    ------
    AssetReadError
        If it cannot be read, or holds something else than one band of integers on a known grid.
    """
    try:
        with rasterio.Env(**_options(access)), _opened(href, access, driver, None) as file:
            if file.count != 1:
                raise failed(href, f"has {file.count} bands, not one")
            if file.crs is None or file.transform.is_identity:
                raise failed(href, "does not say where it lies")
            if np.dtype(file.dtypes[0]).kind not in "iu":
                raise failed(href, f"holds {file.dtypes[0]}, not digital numbers or classes")
            factors = file.overviews(1) if driver == "GTiff" else []
            skips_zeros = file.nodata == 0 and MaskFlags.per_dataset not in file.mask_flag_enums[0]
            places = [Lattice(file.crs, file.transform, *file.shape)]
        for position in range(len(factors)):
            with rasterio.Env(**_options(access)), _opened(href, access, driver, position) as file:
                places.append(Lattice(file.crs, file.transform, *file.shape))
    except AssetReadError:
        raise
    except Exception as error:  # noqa: BLE001  whatever GDAL or rasterio trip over, it is this file
        raise failed(href, f"cannot be read ({cause(error)})") from None
    return [
        GdalRaster(href, access, place, driver, position - 1 if position else None, skips_zeros)
        for position, place in enumerate(places)
    ]


def cause(error: BaseException) -> BaseException:
    """Give what an error came of at first: rasterio says little, GDAL more."""
    while error.__cause__:
        error = error.__cause__
    return error


def _opened(href: str, access: Access, driver: str, overview: int | None) -> rasterio.DatasetReader:
    options = {"driver": driver, "sharing": False} | ({} if overview is None else {"overview_level": overview})
    if not is_remote(href):
        return rasterio.open(local_path(href), **options)
    place = address(href, access)
    try:
        return rasterio.open(place, **options)
    except RasterioError as error:
        another = address(href, access, place) if _REFUSED.search(f"{error} {cause(error)}") else place
        if another == place:
            raise
        return rasterio.open(another, **options)
