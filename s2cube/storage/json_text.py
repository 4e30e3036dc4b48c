"""Write JSON in the format of the files of an output."""

import json
from collections.abc import Mapping
from typing import Any


def stac_json(content: Mapping[str, Any], geometry: str | None = None) -> bytes:
    """Return the JSON text of an Item, a collection or a catalogue.

    The geometry is on one line. With one line per number, the file would be three times as long.

    Parameters
    ----------
    geometry
        Result of `geometry_json`, if it is known: an outline may have thousands of vertices.
    """
    geometry = geometry or geometry_json(content.get("geometry"))
    marker = "\x00geometry"
    marked = {key: marker if key == "geometry" else value for key, value in content.items()}
    text = json.dumps(marked, indent=2, ensure_ascii=False, allow_nan=False)
    return as_utf8(text.replace(json.dumps(marker), geometry, 1))


def geometry_json(geometry: Mapping[str, Any] | None) -> str:
    """Return the JSON text of a geometry, on one line."""
    return json.dumps(geometry, separators=(",", ":"), allow_nan=False)


def as_utf8(json_text: str) -> bytes:
    """Encode JSON as UTF-8. UTF-8 cannot encode a lone surrogate, so its escape is written."""
    return json_text.encode(errors="backslashreplace")
