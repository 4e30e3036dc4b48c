"""Write JSON as the files of an output hold it."""

import json
from collections.abc import Mapping
from typing import Any


def stac_json(content: Mapping[str, Any]) -> bytes:
    """Write an Item, a collection or a catalogue.

    The geometry is on one line: with a line for each number the file is three times as long.
    """
    geometry = json.dumps(content.get("geometry"), separators=(",", ":"), allow_nan=False)
    marker = "\x00geometry"
    marked = {key: marker if key == "geometry" else value for key, value in content.items()}
    text = json.dumps(marked, indent=2, ensure_ascii=False, allow_nan=False)
    return as_utf8(text.replace(json.dumps(marker), geometry, 1))


def as_utf8(json_text: str) -> bytes:
    """Encode JSON as UTF-8. A lone surrogate, which UTF-8 cannot hold, is replaced by its escape."""
    return json_text.encode(errors="backslashreplace")
