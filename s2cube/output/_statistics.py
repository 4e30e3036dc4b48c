"""Statistics of the bands of an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of the valid values of one band, as its file stores them.

    Parameters
    ----------
    minimum, maximum, mean, stddev
        None if there is no valid value. `stddev` is that of the population.
    valid_percent
        Share of valid values in the area of interest, percent.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    stddev: float | None
    valid_percent: float
