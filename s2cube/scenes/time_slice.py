"""Define time slices, plans and tasks: frozen dataclasses."""

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
    """A scene that is not used, because the scene `kept` is the same granule; with the reason."""

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
        Acquisition times of the earliest and the latest scene, UTC.
    scenes
        Scenes in the order of the mosaic: the first valid pixel is used.
    dropped
        Other scenes of the same granules that the search found.
    recipe
        Digest of everything that affects the pixels, except the bands: AOI, grid, settings, scenes, processing.
    processing
        Digest of the scenes and their processing.
    files
        Digests of the files of each band and layer that is read, in the order of names, see `recipe.files_digest`.
    """

    id: str
    time: datetime
    end: datetime
    scenes: "tuple[pystac.Item, ...]"
    dropped: "tuple[Dropped, ...]"
    recipe: str
    processing: str = ""
    files: str = ""


@dataclass(frozen=True)
class UnusableSlice:
    """A time slice that cannot be computed, because the item of a scene is not usable.

    Parameters
    ----------
    id
        As in `TimeSlice`; also ``<aoi>_<scene id>`` if the acquisition time of a scene is unknown.
    scenes
        Ids of its scenes.
    time, end
        As in `TimeSlice`; None if they are unknown.
    """

    id: str
    scenes: tuple[str, ...]
    error: SliceError
    time: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """The grid and the time slices of an AOI, oldest first; and time slices that cannot be computed.

    Parameters
    ----------
    search
        Settings of the search, by the names of the flags; empty if there was no search.
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
        """Return one task per slice."""
        return tuple(Task(self.aoi, self.geobox, each, self.search) for each in self.slices)


@dataclass(frozen=True)
class Task:
    """The work that a worker receives: one time slice of an AOI.

    Parameters
    ----------
    geobox
        Grid to which files are resampled.
    search
        As in `Plan`.
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
    def parts(self) -> "tuple[GeoBox, ...]":
        """Parts of the grid that are read."""
        return (self.geobox,)

    @property
    def scenes(self) -> "tuple[pystac.Item, ...]":
        """The scenes whose files are read."""
        return self.slice.scenes
