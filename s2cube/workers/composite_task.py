"""Define the work for one composite."""

from dataclasses import dataclass, field

from s2cube.config.periods import Period
from s2cube.scenes.time_slice import Task, TimeSlice, UnusableSlice


@dataclass(frozen=True)
class CompositeTask(Task):
    """The work for the composite of one area and one period. Its slice has the scenes of all days.

    Parameters
    ----------
    days
        The time slices of the period, oldest first: one per solar day.
    unusable
        Days that cannot be computed, because the item of a scene is not usable. The composite lacks them.
    """

    period: Period = field(kw_only=True)
    days: tuple[TimeSlice, ...] = field(kw_only=True)
    unusable: tuple[UnusableSlice, ...] = ()

    def label(self, slice_id: str) -> str:
        """Return the last part of the id of a day: its date, YYYYMMDD."""
        return slice_id.removeprefix(f"{self.aoi.id}_")
