"""What the last job of an output asked for: dates and areas. Items do not have the areas without scenes."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from s2cube.area.aoi import AOI
from s2cube.config.sections import JobConfig
from s2cube.errors import OutputError
from s2cube.scenes.time_slice import Plan
from s2cube.storage.layout import REQUEST
from s2cube.storage.output import Output

MOST_AREAS = 20_000
"""Number of areas that the page has, and that are kept."""

_DIGITS = 5
"""Decimals of degrees: some metre."""


@dataclass(frozen=True)
class AskedArea:
    """An area of a job.

    Parameters
    ----------
    bounds_lonlat
        West, south, east and north, degrees. West is greater than east if the area crosses the antimeridian.
    slices
        Number of slices, or composites, for which there are scenes; None if only a part of the dates was searched.
    """

    bounds_lonlat: tuple[float, float, float, float]
    slices: Annotated[int, Field(ge=0)] | None

    @property
    def outline(self) -> Mapping[str, object]:
        """The bounds as GeoJSON."""
        west, south, east, north = self.bounds_lonlat
        east += 360 * (west > east)
        ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        return {"type": "Polygon", "coordinates": [ring]}


@dataclass(frozen=True)
class Request:
    """What a job asked for.

    Parameters
    ----------
    datetime
        Dates, such as ``2024-01-01/..``; empty for all dates.
    areas
        Areas by id; none if they are more than `MOST_AREAS`. Fields of a job that computes only statistics are not
        here: they are in ``areas.parquet``.
    """

    datetime: str
    areas: Mapping[str, AskedArea] = field(default_factory=dict)


def asked_areas(plans: Sequence[Plan]) -> dict[str, AskedArea]:
    """Return the areas of planned slices or composites. An area has one plan for each composite."""
    slices = Counter[str]()
    for plan in plans:
        slices[plan.aoi.id] += len(plan.slices) + len(plan.unusable)
    aois = {plan.aoi.id: plan.aoi for plan in plans}
    return {aoi_id: _asked(aoi, slices[aoi_id]) for aoi_id, aoi in aois.items()}


def areas_of_part(aois: Iterable[AOI]) -> dict[str, AskedArea]:
    """Return the areas of a job that searches only a part of its dates."""
    return {aoi.id: _asked(aoi, None) for aoi in aois}


def _asked(aoi: AOI, slices: int | None) -> AskedArea:
    west, south, east, north = (round(each, _DIGITS) for each in aoi.bounds_lonlat)
    return AskedArea((west, south, east, north), slices)


def keep_request(output: Output, config: JobConfig, areas: Mapping[str, AskedArea]) -> None:
    """Write what a job asks for to its output. This process must have the lease.

    Parameters
    ----------
    config
        Settings with all dates of the job.
    areas
        See `Request`.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    request = Request(str(config.search.datetime or ""), areas if len(areas) <= MOST_AREAS else {})
    content = json.dumps(asdict(request), separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    if output.destination.read(REQUEST) != content:
        output.destination.put(REQUEST, content)


def read_request(output: Output) -> Request | None:
    """Read what the last job asked for; None if it is not known.

    Raises
    ------
    OutputError
        If the file cannot be read, or is not valid.
    """
    content = output.destination.read(REQUEST)
    if content is None:
        return None
    try:
        return _REQUEST.validate_json(content, strict=True)
    except ValidationError:
        raise OutputError(f"{output.destination.address}/{REQUEST}", "is not valid", "Run the command again") from None


_REQUEST = TypeAdapter(Request)
