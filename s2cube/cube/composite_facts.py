"""Metadata of a composite."""

from dataclasses import dataclass
from datetime import date, datetime

from shapely.geometry.base import BaseGeometry

from s2cube.config.composites import Method
from s2cube.config.periods import Period
from s2cube.cube.facts import Provenance


@dataclass(frozen=True)
class CompositeFacts:
    """Metadata of a composite."""

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
