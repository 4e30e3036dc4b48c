"""Keep the pixels of an image before they are packed and clipped, while the image is computed chunk by chunk."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np

from s2cube.cube.chunks import Chunks
from s2cube.kernels.indices import BeyondInt16
from s2cube.kernels.mask import Screened, explain
from s2cube.kernels.mosaic import reflectance


@dataclass(frozen=True)
class Observers:
    """What observes the computation of images.

    Parameters
    ----------
    beyond
        Receives the number of cells with an index that int16 cannot store. None: it is logged, chunk by chunk.
    tap
        Receives the pixels of the image of one slice before they are packed and clipped, if it is not None.
    """

    beyond: BeyondInt16 | None = None
    tap: "Tap | None" = None


NOBODY = Observers()


class Tap:
    """Receives the chunks of the image of one time slice. Several threads may call it, each with other chunks.

    Attributes
    ----------
    bands
        Dims (band, y, x), float32 reflectance of all bands that are read, NaN where there is no value.
    reasons
        Dims (y, x), uint8, from `mask.explain`.
    """

    def __init__(self, bands: int, chunks: Chunks) -> None:
        shape = sum(chunks.rows), sum(chunks.columns)
        self.bands = np.full((bands, *shape), np.nan, np.float32)
        self.reasons = np.zeros(shape, np.uint8)
        self._rows, self._columns = (list(accumulate(each, initial=0)) for each in (chunks.rows, chunks.columns))

    def put(self, block_id: tuple[int, ...], means: np.ndarray, masks: Screened) -> None:
        """Keep a chunk of one band.

        Parameters
        ----------
        block_id
            Number of the chunk: dims (time, band, y, x).
        means
            From `mosaic.means`, dims (1, y, x).
        """
        _, band, row, column = block_id
        part = slice(*self._rows[row : row + 2]), slice(*self._columns[column : column + 2])
        self.bands[(band, *part)] = reflectance(means[0])
        if band == 0:
            self.reasons[part] = explain(masks)

    def __deepcopy__(self, memo: object) -> Self:
        # Dask copies what is in a graph. All copies must be this object.
        return self
