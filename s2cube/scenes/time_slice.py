"""Time slices, plans and tasks: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from s2cube.area.aoi import AOI
from s2cube.errors import SliceError

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True)
class Dropped:
    """A scene that is not used, because `kept` is the same granule; `reason` says why."""

    scene: str
    kept: str
    reason: str


@dataclass(frozen=True)
class TimeSlice:
    """The scenes that become one image.

    Parameters
    ----------
    id
        ``<aoi>_<YYYYMMDD>`` (solar day) or ``<aoi>_<scene id>``.
    time, end
        Acquisition of the earliest scene and of the latest, UTC.
    scenes
        In the order in which they fill the mosaic: the first valid pixel is used.
    dropped
        Other scenes of the same granules that the search found.
    recipe
        Digest of all that decides its pixels, except the bands: AOI, grid, settings, scenes as processed.
    """

    id: str
    time: datetime
    end: datetime
    scenes: "tuple[pystac.Item, ...]"
    dropped: "tuple[Dropped, ...]"
    recipe: str


@dataclass(frozen=True)
class UnusableSlice:
    """A time slice that cannot be made: the items of its scenes show it.

    Parameters
    ----------
    id
        As that of a `TimeSlice`; ``<aoi>_<scene id>`` also if a scene does not say when it was acquired.
    scenes
        Ids of its scenes.
    time, end
        As those of a `TimeSlice`, if they are known.
    """

    id: str
    scenes: tuple[str, ...]
    error: SliceError
    time: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """The grid and the time slices of an AOI, oldest first; and those that cannot be made.

    Parameters
    ----------
    search
        Settings that decided which scenes were found, by the names of the flags; empty if there was no search.
    """

    aoi: AOI
    geobox: "GeoBox"
    slices: tuple[TimeSlice, ...]
    unusable: tuple[UnusableSlice, ...] = ()
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scenes(self) -> "list[pystac.Item]":
        """The scenes of all slices, slice by slice."""
        return [scene for time_slice in self.slices for scene in time_slice.scenes]

    def tasks(self) -> "tuple[Task, ...]":
        """Give each slice as a task of its own."""
        return tuple(Task(self.aoi, self.geobox, each, self.search) for each in self.slices)

    @property
    def scenes_per_slice(self) -> tuple[int, ...]:
        """How many of `scenes` belong to each slice."""
        return tuple(len(time_slice.scenes) for time_slice in self.slices)


@dataclass(frozen=True)
class Task:
    """What a worker makes in one go: one time slice of an AOI.

    Parameters
    ----------
    geobox
        The grid that files are read on.
    search
        As that of a `Plan`.
    """

    aoi: AOI
    geobox: "GeoBox"
    slice: TimeSlice
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Id of the slice."""
        return self.slice.id

    @property
    def scenes(self) -> "tuple[pystac.Item, ...]":
        """The scenes whose files are read."""
        return self.slice.scenes
