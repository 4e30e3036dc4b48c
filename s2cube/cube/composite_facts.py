"""Metadata of a composite."""

from dataclasses import dataclass
from datetime import date, datetime

from shapely.geometry.base import BaseGeometry

from s2cube.config.composites import Method
from s2cube.config.periods import Period
from s2cube.cube.facts import Provenance


@dataclass(frozen=True)
class CompositeFacts:
    """Metadata of one composite: its id, its period and its sources.

    Parameters
    ----------
    outline_lonlat
        The AOI as RFC 7946 requires it.
    id
        ``<aoi>_<period>_<method>``, valid as a file name.
    interval
        Acquisition times of the first and the last scene, UTC.
    scenes
        Ids of the scenes.
    days
        Solar days whose images were used.
    missing
        Ids of the slices that were left out because they could not be read.
    """

    aoi: str
    outline_lonlat: BaseGeometry
    id: str
    period: Period
    method: Method
    interval: tuple[datetime, datetime]
    scenes: tuple[str, ...]
    days: tuple[date, ...]
    missing: tuple[str, ...]
    provenance: Provenance
