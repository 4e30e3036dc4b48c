"""Read members of an item with care: a catalogue may write anything there.

If a member cannot be understood, the error names the item and the member. Numbers that are written as text are read.
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
"""Property of an item: the original values of members that cannot be used, by name; see `items`."""

_LARGEST_LON, _LARGEST_LAT = 540, 91
"""Degrees. Longitudes beyond 180 occur in shapes across the antimeridian; latitudes may be rounded up."""

_Value = TypeVar("_Value")

_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?")
_LONGEST_SHOWN = 80
_REMEDY = "Leave the scene out, or report it to the operator of the catalogue"
_FIRST_YEAR, _LAST_YEAR = 2015, 2100
"""Sentinel-2A was launched on 2015-06-23 (ESA). The latest year keeps date arithmetic within its range."""


def read(item: pystac.Item, fields: Mapping[str, Any], name: str, kind: Callable[[Any], _Value]) -> _Value | None:
    """Read a member of an item; None if it is absent or null.

    Parameters
    ----------
    fields
        The properties of the item, or the fields of one of its assets or bands.
    kind
        Makes a value of the member, or raises ValueError with the expected kind: `text`, `number` and so on.

    Raises
    ------
    SceneError
        If the member cannot be understood.
    """
    value = fields.get(name)
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise SceneError(item.id, f"has {name} {shown(value)}, which is no {error}", _REMEDY) from None


@contextmanager
def guarded(item: pystac.Item) -> Iterator[None]:
    """Turn every error while an item is read into one that names the item.

    Raises
    ------
    SceneError
        If anything but an error of s2cube is raised inside.
    """
    try:
        yield
    except S2CubeError:
        raise
    except Exception as error:
        problem = f"cannot be understood ({type(error).__name__}: {shown(str(error))})"
        raise SceneError(str(item.id), problem, _REMEDY) from error


def text(value: object) -> str:
    """Read text; a number is taken as it is written."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}"
    raise ValueError("text")


def number(value: object) -> float:
    """Read a finite number; it may be written as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return float(value)
    raise ValueError("number")


def whole_number(value: object) -> int:
    """Read a whole number; it may be written as text, or with decimals that are 0."""
    try:
        found = number(value)
    except ValueError:
        raise ValueError("whole number") from None
    if not found.is_integer():
        raise ValueError("whole number")
    return int(found)


def numbers(value: object) -> tuple[float, ...]:
    """Read a list of finite numbers."""
    if not isinstance(value, list | tuple):
        raise ValueError("list of numbers")
    return tuple(map(number, value))


def records(value: object) -> list[Mapping[str, Any]]:
    """Read a list of objects; old STAC has numbers there, which mean nothing here."""
    if not isinstance(value, list):
        raise ValueError("list of objects")
    return [each if isinstance(each, dict) else {} for each in value]


def flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def instant(value: object) -> datetime:
    """Read a time of Sentinel-2, RFC 3339; without an offset it counts as UTC."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(found, datetime) and _FIRST_YEAR <= found.year <= _LAST_YEAR:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("time of a Sentinel-2 scene")


def shown(value: object) -> str:
    """Show a value from outside: as JSON, in ASCII, shortened."""
    try:
        whole = json.dumps(value, default=repr)
    except (ValueError, RecursionError):
        whole = f"a {type(value).__name__}"
    return whole if len(whole) <= _LONGEST_SHOWN else whole[:_LONGEST_SHOWN] + "…"


def without_surrogates(value: str) -> str:
    """Write lone surrogates as escapes: no file can hold them."""
    return value.encode("utf-8", "backslashreplace").decode()


def check_geometry(geometry: Any) -> "BaseGeometry":
    """Make a shape of a GeoJSON geometry.

    Raises
    ------
    ValueError
        If it is not a geometry, is empty, or its coordinates are not degrees.
    """
    import shapely

    try:
        shape = shapely.geometry.shape(geometry)
    except Exception as error:
        raise ValueError("not a GeoJSON geometry") from error
    if shape.is_empty:
        raise ValueError("empty geometry")
    lonlat = shapely.get_coordinates(shape)
    # Comparisons with NaN are false.
    if not (abs(lonlat) <= (_LARGEST_LON, _LARGEST_LAT)).all():
        raise ValueError("coordinates are not degrees")
    return shape
