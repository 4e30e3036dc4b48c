"""Do pixels bear out what their item says of the offset?

Clear vegetation is dark in visible light (blue, red: 1 to 8 % of it is reflected, for its pigments absorb it), clear
water in the infrared (below 5 %: it absorbs it). So the darkest tenth of such cells has a reflectance near 0. An offset
of 0.1 that was taken off twice makes it negative, one that was never taken off makes it greater than 0.1: the truth
lies far from both. That is one comparison a cell, and it needs no other scene.
"""

import dask.array as da
import numpy as np
import xarray as xr

from s2cube.qa import QA

_DARK_BANDS = {4: ("coastal", "blue", "red"), 6: ("nir", "nir08", "nir09", "swir16", "swir22")}
"""Where vegetation (scene class 4) and water (6) are dark."""

_TOO_DARK_DN = -400
_DARK_DN = 900
"""Atmospheric correction overshoots to no less than -0.04 on a tenth of a scene. With the offset left in, no tenth of
dark ground is below 0.09: its reflectance would have to be below -0.01."""

_SHARE = 0.1
"""Of the cells: a tenth is enough to be no defect of the sensor, and small enough for mixed cells beside them."""

_FEWEST_CELLS = 100
_UNKNOWN = -1.0


def doubtful(dn: xr.DataArray, screened: xr.Dataset, offsets: "np.ndarray", bands: tuple[str, ...]) -> da.Array:
    """Tell of each scene whether its pixels disagree with the offset that is added to them.

    Parameters
    ----------
    dn
        From `cube.read_bands`.
    screened
        From `mask.screen`.
    offsets
        What is added to the digital numbers of each scene.
    bands
        Names of the bands in `BAND_ASSETS`.

    Returns
    -------
    dask.array.Array
        Bool, one a scene. An offset that is added is in doubt where a tenth of what is clear, whatever it is, becomes
        darker than -0.04 in a band; none that is added, where vegetation is dark in no band in which it must be, or
        water is. False also where fewer than 100 cells tell.
    """
    clear = screened.reason.data == QA.CLEAR
    verdicts = []
    for scene, offset in enumerate(offsets):
        of_bands = {band: dn.data[scene, position] for position, band in enumerate(bands)}
        if offset:
            below = [_share_below(clear[scene], cells, _TOO_DARK_DN - offset) for cells in of_bands.values()]
            verdicts.append(da.stack(below).max() >= _SHARE)
            continue
        never_dark = [da.from_array(False)]
        for ground, dark_bands in _DARK_BANDS.items():
            cells = clear[scene] & (screened.ground.data[scene] == ground)
            dark = [_share_below(cells, of_bands[band], _DARK_DN) for band in dark_bands if band in of_bands]
            darkest = da.stack([da.from_array(_UNKNOWN), *dark]).max()
            never_dark.append((darkest > _UNKNOWN) & (darkest < _SHARE))
        verdicts.append(da.stack(never_dark).any())
    return da.stack(verdicts)


def _share_below(among: da.Array, cells: da.Array, limit_dn: int) -> da.Array:
    """Give the share of cells, of those that are seen whole, whose mean is below a limit; unknown where few are."""
    seen = among & (cells > 0)
    count = seen.sum()
    below = (seen & (cells < limit_dn)).sum()
    return da.where(count >= _FEWEST_CELLS, below / da.maximum(count, 1), _UNKNOWN)
