"""Read members of an item. A catalogue may contain invalid values.

If a member has an unexpected value, the error names the item and the member. Numbers may be written as text.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pystac

from s2cube.errors import S2CubeError, SceneError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

UNREADABLE = "s2cube:unreadable"
"""Property of an item with the original values of members that cannot be used, by the name of the member.

`from_features` writes it, and `unreadable_members` reads it.
"""

REMEDY = "Leave the scene out, or report it to the operator of the catalogue"

_LARGEST_LON, _LARGEST_LAT = 540, 91
"""Degrees. Shapes that cross the antimeridian have longitudes beyond 180. Latitudes may be rounded up."""

_Value = TypeVar("_Value")

_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?")
_SHOWN_CHARACTERS = 80
_FIRST_YEAR, _LAST_YEAR = 2015, 2100
"""Sentinel-2A was launched on 2015-06-23 (ESA). The last year keeps calculated dates within the range of `datetime`."""


def read_member(
    item: pystac.Item, fields: Mapping[str, Any], name: str, parse: Callable[[Any], _Value]
) -> _Value | None:
    """Read a member of an item; None if it is absent or null.

    Parameters
    ----------
    fields
        The properties of the item, or the fields of one of its assets or bands.
    parse
        Function that returns the value: `parse_text`, `parse_number` and so on. It raises ValueError with the expected
        type, such as "a number".

    Raises
    ------
    SceneError
        If the value of the member has another type.
    """
    value = fields.get(name)
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise SceneError(item.id, f"has {name} {short_json(value)}, which is not {error}", REMEDY) from None


def unreadable_members(item: pystac.Item) -> Mapping[str, str]:
    """Return the original values of members that could not be used when the item was created, by name.

    The name of an asset is ``assets.<key>``.
    """
    unreadable = item.properties.get(UNREADABLE) or {}
    return unreadable if isinstance(unreadable, Mapping) else {UNREADABLE: short_json(unreadable)}


def check_readable(item: pystac.Item, *members: str) -> None:
    """Check that the named members could be used when the item was created. Without names, check all except the assets.

    Raises
    ------
    SceneError
        If a member could not be used.
    """
    for name, value in unreadable_members(item).items():
        if name in members or (not members and not name.startswith("assets.")):
            raise SceneError(item.id, f"has {name} {value}, which cannot be understood", REMEDY)


@contextmanager
def as_scene_errors(item: pystac.Item) -> Iterator[None]:
    """Convert any exception while an item is read into an error that names the item.

    Raises
    ------
    SceneError
        If the code inside raises an exception that is not an error of s2cube.
    """
    try:
        yield
    except S2CubeError:
        raise
    except Exception as error:
        problem = f"cannot be understood ({type(error).__name__}: {short_json(str(error))})"
        raise SceneError(str(item.id), problem, REMEDY) from error


def parse_text(value: object) -> str:
    """Read text. Convert a number to text in Python's notation."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}"
    raise ValueError("text")


def parse_number(value: object) -> float:
    """Read a finite number. It may be written as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return float(value)
    raise ValueError("a number")


def parse_whole_number(value: object) -> int:
    """Read an integer. It may be written as text, or with decimals that are 0."""
    try:
        found = parse_number(value)
    except ValueError:
        raise ValueError("a whole number") from None
    if not found.is_integer():
        raise ValueError("a whole number")
    return int(found)


def parse_numbers(value: object) -> tuple[float, ...]:
    """Read a list of finite numbers."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers")
    return tuple(map(parse_number, value))


def parse_objects(value: object) -> list[Mapping[str, Any]]:
    """Read a list of objects. An element of another type, such as a number in old STAC, becomes an empty object."""
    if not isinstance(value, list):
        raise ValueError("a list of objects")
    return [each if isinstance(each, dict) else {} for each in value]


def parse_time(value: object) -> datetime:
    """Read a time of a Sentinel-2 scene, RFC 3339. A time without an offset is UTC."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(found, datetime) and _FIRST_YEAR <= found.year <= _LAST_YEAR:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time of a Sentinel-2 scene")


def parse_geometry(value: Any) -> "BaseGeometry":
    """Read a GeoJSON geometry in degrees that is not empty."""
    import shapely

    try:
        shape = shapely.geometry.shape(value)
    except Exception as error:
        raise ValueError("a GeoJSON geometry") from error
    if shape.is_empty:
        raise ValueError("a geometry with coordinates")
    lonlat = shapely.get_coordinates(shape)
    # Comparisons with NaN are false.
    if not (abs(lonlat) <= (_LARGEST_LON, _LARGEST_LAT)).all():
        raise ValueError("a geometry in degrees")
    return shape


def short_json(value: object) -> str:
    """Format a value of a catalogue for a message: as JSON, in ASCII, shortened."""
    try:
        text = json.dumps(value, default=repr)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def without_surrogates(value: str) -> str:
    """Replace lone surrogates by escapes, because UTF-8 files cannot contain them."""
    return value.encode("utf-8", "backslashreplace").decode()
