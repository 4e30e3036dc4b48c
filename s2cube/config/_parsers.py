"""Parse and check values of settings from text, TOML or Python. pydantic converts a ValueError into its own error."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from s2cube.config.paths import expand_user
from s2cube.errors import ConfigError
from s2cube.spectral_indices import canonical_indices

DEFAULT_STATISTICS = ("mean", "std", "median")

_STATISTICS = (*DEFAULT_STATISTICS, "min", "max", "count")
_PERCENTILE = re.compile(r"p([0-9]|[1-9][0-9]|100)")


def split_names(value: object) -> object:
    """Split a comma-separated text. Return any other value unchanged."""
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def parse_area(value: object) -> object:
    """Return a path or a text unchanged. Convert a box of four numbers to text."""
    if isinstance(value, str | Path):
        return value
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) == 4 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        return ",".join(map(repr, numbers))
    raise ValueError("must be a file, a box (west,south,east,north) or WKT; run takes other areas by its argument aoi")


def parse_address(value: object) -> object:
    """Convert a path to text. Return any other value unchanged."""
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("~/")):
        return str(expand_user(Path(value)))
    return value


def parse_dtype(value: object) -> object:
    """Convert a data type of numpy to its name. Return a name unchanged."""
    if value is None or isinstance(value, str):
        return value
    import numpy as np

    try:
        return np.dtype(value).name  # type: ignore[call-overload]
    except Exception as error:
        raise ValueError("is not a data type") from error


def check_crs(value: object) -> str:
    """Convert a CRS to ``EPSG:N``; return ``auto`` unchanged.

    Raises
    ------
    ValueError
        If PROJ does not know the CRS, if the CRS is not projected in metres, or if it is deprecated by EPSG.
    """
    if value == "auto":
        return "auto"
    from pyproj import CRS

    try:
        crs = CRS.from_user_input(value)
    except Exception as error:  # pyproj calls methods of the value, and they may raise anything
        raise ValueError(f"'{value}' is not a CRS that PROJ knows") from error
    epsg = crs.to_epsg()
    if epsg is None or not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
        raise ValueError(f"'{value}' is not a projected CRS in metres with an EPSG code")
    if crs.is_deprecated:
        # PROJ and GDAL interpret such codes differently: their positions in EPSG:2163 differ by 430 m.
        better = " or ".join(f"EPSG:{other.to_epsg()}" for other in crs.get_non_deprecated())
        raise ValueError(f"'{value}' is deprecated by EPSG" + (f"; use {better}" if better else ""))
    return f"EPSG:{epsg}"


def check_bands(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that band names are unique and not empty. There may be no band."""
    if "" in value:
        raise ValueError("a band name is empty")
    if len(set(value)) < len(value):
        raise ValueError("a band is named twice")
    return value


def check_indices(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of spectral indices, and return them in the spelling of the catalogue."""
    if "" in value:
        raise ValueError("the name of an index is empty")
    try:
        names = canonical_indices(value)
    except ConfigError as error:
        raise ValueError(f"{error.subject} {error.problem}", error.remedy) from None
    if len(set(names)) < len(names):
        raise ValueError("an index is named twice")
    return names


def check_statistics(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of statistics and remove duplicates. The order does not change.

    Parameters
    ----------
    value
        mean, std, median, min, max, count, or pN: the percentile N, a whole number from 0 to 100.

    Raises
    ------
    ValueError
        If there is no name, or a name is unknown.
    """
    remedy = f"Choose {', '.join(_STATISTICS)}, or p0 to p100"
    if not value:
        raise ValueError("there is no statistic", remedy)
    for name in value:
        if name not in _STATISTICS and not _PERCENTILE.fullmatch(name):
            near = difflib.get_close_matches(name.lower(), _STATISTICS)
            question = f"Do you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"'{name}' is not a statistic", question + remedy)
    return tuple(dict.fromkeys(value))


def parse_destination(value: object) -> object:
    """Return an address unchanged. Convert any other text to a path."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a folder, or an address such as s3://BUCKET/FOLDER")
    return value if re.match(r"[a-zA-Z][\w+.-]+:/", str(value)) else expand_user(Path(value))


def empty_to_none(value: object) -> object:
    """Convert an empty text to None, so that a flag can reset a value from a file."""
    return None if value == "" else value


def parse_json_table(value: object) -> object:
    """Parse a table in JSON. Return a value that is not text unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("not a JSON object") from error


def parse_none(value: object) -> object:
    """Convert ``none`` and None to an empty tuple. Return any other value unchanged."""
    is_none = value is None or (isinstance(value, list | tuple) and list(value) == ["none"])
    return () if is_none or (isinstance(value, str) and value == "none") else value


def parse_rules(value: object) -> object:
    """Parse ``PREFIX=ADDRESS`` pairs from comma-separated text or a table."""
    if isinstance(value, str):
        value = dict(part.strip().partition("=")[::2] for part in value.split(",") if part.strip())
    return tuple(value.items()) if isinstance(value, Mapping) else value


def check_rules(value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Check that prefixes and addresses are http or https addresses without credentials."""
    for url in (each for rule in value for each in rule):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}' is not an http or https address")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address must not contain a user, a password or a query: all workers receive it")
    return value
