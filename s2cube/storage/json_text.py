"""Write JSON in the format of the files of an output."""

import json
from collections.abc import Mapping
from typing import Any


def stac_json(content: Mapping[str, Any]) -> bytes:
    """Return the JSON text of an Item, a collection or a catalogue.

    The geometry is on one line. With one line per number, the file would be three times as long.
    """
    geometry = json.dumps(content.get("geometry"), separators=(",", ":"), allow_nan=False)
    marker = "\x00geometry"
    marked = {key: marker if key == "geometry" else value for key, value in content.items()}
    text = json.dumps(marked, indent=2, ensure_ascii=False, allow_nan=False)
    return as_utf8(text.replace(json.dumps(marker), geometry, 1))


def as_utf8(json_text: str) -> bytes:
    """Encode JSON as UTF-8. UTF-8 cannot encode a lone surrogate, so its escape is written."""
    return json_text.encode(errors="backslashreplace")
