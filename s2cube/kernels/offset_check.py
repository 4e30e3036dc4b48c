"""Check whether pixels agree with the offset in their item.

Vegetation absorbs visible light: its reflectance in blue and red is 1 to 8 %. Water absorbs infrared light: its
reflectance is below 5 %. So the darkest tenth of such clear cells has a reflectance near 0. If an offset of 0.1 was
subtracted twice, the reflectance is negative. If it was never subtracted, the reflectance is greater than 0.1. Both are
far from the true value. The check needs one comparison per cell, and no other scene.
"""

from collections.abc import Sequence

import numpy as np

from s2cube.kernels.mask import Screened
from s2cube.raster.cells import whole_means
from s2cube.sentinel2 import QA

_DARK_BANDS: dict[int | None, tuple[str, ...]] = {
    4: ("coastal", "blue", "red"),
    6: ("nir", "nir08", "nir09", "swir16", "swir22"),
}
"""Bands in which vegetation (scene class 4) and water (6) are dark."""

GROUNDS = (None, *_DARK_BANDS)
"""Types of ground that are counted: any clear cell, vegetation, water."""

_TOO_DARK_DN = -400
_DARK_DN = 900
"""Atmospheric correction does not make a tenth of a scene darker than -0.04. If the offset was not subtracted, a tenth
of dark ground cannot be below 0.09, because its true reflectance would be below -0.01."""

_DOUBTFUL_SHARE = 0.1
"""Share of cells that decides. Sensor defects affect fewer cells. The share is small, because many cells are mixed."""

_FEWEST_CELLS = 100
_UNKNOWN = -1.0


def count_dark(dn: np.ndarray, screened: Screened, offsets: np.ndarray) -> np.ndarray:
    """Count completely covered clear cells, and the dark cells among them, by type of ground.

    Parameters
    ----------
    dn
        Dims (scene, band, y, x): packed cells, see `raster.cells`.
    screened
        From `mask.screen`.
    offsets
        Offset that is added to the digital numbers of each scene.

    Returns
    -------
    numpy.ndarray
        int64, dims (scene, band, ground, count). Ground: any clear cell, vegetation, water. Count: all cells, dark
        cells.
    """
    tallies = np.empty((*dn.shape[:2], len(GROUNDS), 2), "int64")
    for scene, (cells, offset) in enumerate(zip(dn, offsets.tolist(), strict=True)):
        means, whole = whole_means(cells)
        clear = (screened.reason[scene] == QA.CLEAR.value) & whole
        for at, ground in enumerate(GROUNDS):
            seen = clear if ground is None else clear & (screened.ground[scene] == ground)
            limit_dn = _TOO_DARK_DN - offset if ground is None else _DARK_DN
            # Band by band: numpy counts along axes much more slowly.
            tallies[scene, :, at, 0] = [np.count_nonzero(band) for band in seen]
            tallies[scene, :, at, 1] = [np.count_nonzero(band) for band in seen & (means < limit_dn)]
    return tallies


def doubtful(tallies: np.ndarray, offsets: np.ndarray, bands: Sequence[str]) -> list[bool]:
    """Return which scenes have a doubtful offset.

    An added offset is doubtful if a tenth of the clear cells is darker than -0.04 in any band. An offset of 0 is
    doubtful if there are at least 100 cells of dark ground (vegetation, water), and if they are not dark in any
    band in which such ground is dark. One type of dark ground is sufficient: if the offset was not subtracted, no
    type would be dark. The other type may be misclassified, for example cloud over land as water. With fewer than
    100 cells an offset is not doubtful.

    Parameters
    ----------
    tallies
        From `count_dark`, summed over the parts of the image.
    bands
        Names of the bands in `BAND_ASSETS`.
    """
    return [
        _is_doubtful(dict(zip(bands, of_scene, strict=True)), bool(offset))
        for of_scene, offset in zip(tallies, offsets, strict=True)
    ]


def _is_doubtful(of_bands: dict[str, np.ndarray], is_added: bool) -> bool:
    if is_added:
        return any(_share(tallies[0]) >= _DOUBTFUL_SHARE for tallies in of_bands.values())
    shares = [
        _share(of_bands[band][position])
        for position, ground in enumerate(GROUNDS)
        for band in _DARK_BANDS.get(ground, ())
        if band in of_bands
    ]
    return _UNKNOWN < max(shares, default=_UNKNOWN) < _DOUBTFUL_SHARE


def _share(tally: np.ndarray) -> float:
    """Return the share of dark cells, or `_UNKNOWN` if there are too few cells."""
    seen, dark = tally.tolist()
    return dark / seen if seen >= _FEWEST_CELLS else _UNKNOWN
