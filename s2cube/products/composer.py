"""Compose the daily images of a job: which bands are read, and how cells are composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import Self

import numpy as np

from s2cube.config.composites import Method
from s2cube.config.sections import CubeSection, JobConfig
from s2cube.kernels.indices import BeyondInt16, beyond_int16, index_values, pack_index
from s2cube.kernels.packing import PACKINGS
from s2cube.products._compose import Composite, Stack, compose
from s2cube.scenes.assets import bands_read
from s2cube.sentinel2 import NO_DATA_CLASS, canonical_bands, class_band_of


@dataclass(frozen=True)
class Composer:
    """Composes the daily images of a job.

    Parameters
    ----------
    cube
        The settings of the bands that are written.
    method
        The method.
    """

    cube: CubeSection
    method: Method

    @classmethod
    def of(cls, config: JobConfig) -> Self:
        """Return the composer of a job."""
        return cls(config.cube, config.composite.chosen)

    @cached_property
    def reading(self) -> CubeSection:
        """The settings of the daily images: the index of the score is their last band, if it is not written."""
        score = self.method.score
        if not score or score in self.cube.indices:
            return self.cube
        return self.cube.model_copy(update={"indices": (*self.cube.indices, score)})

    @cached_property
    def is_spectral(self) -> tuple[bool, ...]:
        """Whether each band that is written is reflectance."""
        of_bands = (class_band_of(name) is None for name in self.cube.bands)
        return (*of_bands, *(False for _ in self.cube.indices))

    @property
    def stops_early(self) -> bool:
        """Whether the scene classification says which cells a day will fill, so that other days are not read."""
        has_scl = "scl" in self.cube.mask and NO_DATA_CLASS in self.cube.mask_classes
        return self.method.name == "first" and has_scl and bool(bands_read(self.cube))

    def is_observed(self, values: np.ndarray) -> np.ndarray:
        """Return whether cells of a day are observed: dims (cell), of an image, dims (band, cell)."""
        written = values[: len(self.cube.image_bands)]
        found: np.ndarray = Stack(written[np.newaxis, :, np.newaxis], [date.min], self.is_spectral).is_observed[0]
        return found

    def compose(self, values: np.ndarray, days: Sequence[date], beyond: BeyondInt16, strip: int = 0) -> Composite:
        """Compose cells.

        Parameters
        ----------
        values
            Daily images, dims (day, band, cell).
        beyond, strip
            Receives the number of cells whose index of the result int16 cannot store; number of the first cell.

        Returns
        -------
        Composite
            Dims (band, 1, cell).
        """
        values, score = values[:, :, np.newaxis], None
        if self.method.score:
            score = values[:, self.reading.image_bands.index(self.method.score)]
        indices_of = None
        if self.has_own_indices:
            indices_of = partial(self._indices_of, beyond=beyond, strip=strip)
        written = values[:, : len(self.cube.image_bands)]
        return compose(Stack(written, days, self.is_spectral, score, indices_of), self.method)

    @property
    def has_own_indices(self) -> bool:
        """Whether indices are those of the result, not of days."""
        return self.method.name == "geomedian" and bool(self.cube.indices)

    def _indices_of(self, spectrum: np.ndarray, beyond: BeyondInt16, strip: int) -> np.ndarray:
        packing = PACKINGS[self.cube.dtype]
        values = spectrum.astype("float32") * np.float32(packing.scale)
        values[packing.holes(spectrum)] = np.nan
        found = index_values(values, canonical_bands(self.cube.bands), self.cube.indices)
        if self.cube.dtype == "int16":
            for name, of_index in zip(self.cube.indices, found, strict=True):
                beyond.add(name, (strip,), int(np.count_nonzero(beyond_int16(of_index))))
        return pack_index(found, self.cube.dtype)
