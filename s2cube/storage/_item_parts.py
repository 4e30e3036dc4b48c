"""Check parts of the Item of an image: instants, bands, links, the outline."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of an Item; members that s2cube does not read are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


def _check_instant(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Instant = Annotated[str, AfterValidator(_check_instant)]


class Band(Part):
    """One band of an asset."""

    name: str
    data_type: str = ""


class RasterBand(Part):
    """One band of an asset, as STAC 1.0 describes its values."""

    data_type: str = ""


class Link(Part):
    """One link."""

    rel: str
    href: str


def _check_ring(ring: list[list[float]]) -> list[list[float]]:
    if len(ring) < 4 or {len(position) for position in ring} not in ({2}, {3}):
        raise ValueError("is not a ring of positions")
    # One degree more than the globe has, because rounding must not make an Item unreadable.
    if any(abs(lon) > 181 or abs(lat) > 91 for lon, lat, *_ in ring):
        raise ValueError("has a longitude or latitude out of range")
    return ring


_Ring = Annotated[list[list[float]], AfterValidator(_check_ring)]
_Rings = Annotated[list[_Ring], Field(min_length=1)]


class Polygon(Part):
    """One polygon: its outer ring, then its holes."""

    type: Literal["Polygon"]
    coordinates: _Rings


class MultiPolygon(Part):
    """Several polygons."""

    type: Literal["MultiPolygon"]
    coordinates: Annotated[list[_Rings], Field(min_length=1)]
