"""Check whether pixels agree with the offset that their item gives.

Clear vegetation is dark in visible light (blue, red: 1 to 8 % of it is reflected, for its pigments absorb it), clear
water in the infrared (below 5 %: it absorbs it). So the darkest tenth of such cells has a reflectance near 0. If an
offset of 0.1 was subtracted twice, it is negative. If it was never subtracted, it is greater than 0.1. Both are far
from the true value. The check needs one comparison for each cell, and no other scene.
"""

from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr

from s2cube.raster.cells import whole_means
from s2cube.sentinel2 import QA

_DARK_BANDS: dict[int | None, tuple[str, ...]] = {
    4: ("coastal", "blue", "red"),
    6: ("nir", "nir08", "nir09", "swir16", "swir22"),
}
"""Where vegetation (scene class 4) and water (6) are dark."""

_GROUNDS = (None, *_DARK_BANDS)
"""Kinds of ground that are counted: anything clear, and each of these."""

_TOO_DARK_DN = -400
_DARK_DN = 900
"""Atmospheric correction overshoots to no less than -0.04 on a tenth of a scene. With the offset left in, no tenth of
dark ground is below 0.09: its reflectance would have to be below -0.01."""

_SHARE = 0.1
"""Share of the cells: too many for a defect of the sensor, few enough to allow mixed cells."""

_FEWEST_CELLS = 100
_UNKNOWN = -1.0


@dataclass(frozen=True)
class OffsetCheck:
    """Check whether the pixels of scenes disagree with the offset that is added to them.

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
    """

    dn: xr.DataArray
    screened: xr.Dataset
    offsets: np.ndarray
    bands: tuple[str, ...]

    def tallies(self) -> da.Array:
        """Count dark cells.

        Returns
        -------
        dask.array.Array
            Lazy, int64, dims (scene, band, chunk row, chunk column, ground, count). Ground: anything clear, vegetation,
            water. Count: all cells, dark cells.
        """
        cells = self.dn.data
        layers = [each.data[:, np.newaxis] for each in (self.screened.reason, self.screened.ground)]
        added = da.from_array(self.offsets[:, np.newaxis, np.newaxis, np.newaxis], chunks=1)
        chunks = (*((1,) * count for count in cells.numblocks), (len(_GROUNDS),), (2,))
        nothing = np.empty((0,) * 6, "int64")
        return da.map_blocks(_tally, cells, *layers, added, new_axis=(4, 5), chunks=chunks, dtype="int64", meta=nothing)

    def doubtful(self, tallies: np.ndarray) -> list[bool]:
        """Judge scenes by tallies, summed over chunks.

        An offset that is added is in doubt if a tenth of the clear cells becomes darker than -0.04 in some band. An
        offset of 0 is in doubt if dark ground (vegetation, water) of at least 100 cells is not dark in any band in
        which it must be. One kind of ground that is dark enough decides, for with the offset left in none would be so
        dark. The other kind may be misclassified, such as cloud over land that is taken for water. With fewer than 100
        cells there is no doubt.
        """
        return [
            _is_wrong(dict(zip(self.bands, of_scene, strict=True)), bool(offset))
            for of_scene, offset in zip(tallies, self.offsets, strict=True)
        ]


def _tally(dn: np.ndarray, reason: np.ndarray, ground: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Count cells that are seen whole, by ground, and the dark ones among them."""
    means, whole = whole_means(dn)
    clear = (reason == QA.CLEAR) & whole
    out = []
    for each in _GROUNDS:
        seen = clear if each is None else clear & (ground == each)
        limit_dn = _TOO_DARK_DN - offset if each is None else _DARK_DN
        out.append((np.count_nonzero(seen), np.count_nonzero(seen & (means < limit_dn))))
    return np.array(out).reshape(1, 1, 1, 1, len(out), 2)


def _is_wrong(of_bands: dict[str, np.ndarray], is_added: bool) -> bool:
    if is_added:
        return any(_share(tallies[0]) >= _SHARE for tallies in of_bands.values())
    shares = [
        _share(of_bands[band][position])
        for position, ground in enumerate(_GROUNDS)
        for band in _DARK_BANDS.get(ground, ())
        if band in of_bands
    ]
    return _UNKNOWN < max(shares, default=_UNKNOWN) < _SHARE


def _share(tally: np.ndarray) -> float:
    """Give the share of dark cells; unknown where few are seen."""
    seen, dark = tally.tolist()
    return dark / seen if seen >= _FEWEST_CELLS else _UNKNOWN
