"""Check, chunk by chunk, whether the pixels of scenes disagree with the offsets that are added to them."""

from dataclasses import dataclass

import dask.array as da
import numpy as np

from s2cube.kernels.mask import Screened
from s2cube.kernels.offset_check import GROUNDS, count_dark, doubtful


@dataclass(frozen=True, eq=False)
class OffsetCheck:
    """Check, chunk by chunk, whether the pixels of one slice disagree with the offsets that are added to them.

    Parameters
    ----------
    dn
        From `read_bands`.
    masks
        From `screened`.
    offsets
        Offset that is added to the digital numbers of each scene.
    bands
        Names of the bands in `BAND_ASSETS`.
    """

    dn: da.Array
    masks: da.Array
    offsets: np.ndarray
    bands: tuple[str, ...]

    def tallies(self) -> da.Array:
        """Count dark cells.

        Returns
        -------
        dask.array.Array
            Lazy, int64, dims (scene, band, chunk row, chunk column, ground, count), see `count_dark`.
        """
        scenes, bands, *parts = self.dn.numblocks
        chunks = ((scenes,), (1,) * bands, *((1,) * count for count in parts), (len(GROUNDS),), (2,))
        found: da.Array = da.map_blocks(
            _count_dark, self.dn.rechunk({0: scenes}), self.masks, offsets=self.offsets, new_axis=(4, 5),
            chunks=chunks, dtype="int64", meta=np.empty((0,) * 6, "int64"),
        )  # fmt: skip
        return found

    def doubtful(self, tallies: np.ndarray) -> list[bool]:
        """Return which scenes have a doubtful offset. `tallies` are summed over chunks."""
        return doubtful(tallies, self.offsets, self.bands)


def _count_dark(dn: np.ndarray, masks: Screened, offsets: np.ndarray) -> np.ndarray:
    return count_dark(dn, masks, offsets)[:, :, np.newaxis, np.newaxis]
