"""The members of a collection that summarise its Items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LISTED = ("platform", "constellation", "instruments", "gsd", "proj:code", "processing:software")
"""Properties whose different values a collection lists."""

_RANGES = ("eo:cloud_cover", "s2cube:clear_percent")
"""Properties whose range a collection gives."""

_OF_ONE_IMAGE = ("href", "file:size", "file:checksum")
_OF_ONE_BAND = ("statistics",)
"""Members that differ from image to image."""


def summaries(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the properties and bands of Items, given as JSON.

    Returns
    -------
    dict
        Lists of different values, in the order in which they are found; minimum and maximum of shares; all bands.
    """
    found: dict[str, Any] = {}
    for name in _LISTED:
        values = [each["properties"][name] for each in items if name in each["properties"]]
        if values:
            found[name] = _different(each for value in values for each in _as_list(value))
    for name in _RANGES:
        numbers = [each["properties"][name] for each in items if each["properties"].get(name) is not None]
        if numbers:
            found[name] = {"minimum": min(numbers), "maximum": max(numbers)}
    bands = _different(band for asset in item_assets(items).values() for band in asset.get("bands", ()))
    return found | ({"bands": bands} if bands else {})


def item_assets(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the assets of Items, given as JSON, have in common: their members, and the bands of any of them."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        for name, asset in item["assets"].items():
            shared = {key: value for key, value in asset.items() if key not in _OF_ONE_IMAGE}
            bands = [
                {key: value for key, value in band.items() if key not in _OF_ONE_BAND}
                for band in asset.get("bands", ())
            ]
            before = found.setdefault(name, shared)
            if bands:
                before["bands"] = _different([*(before["bands"] if before is not shared else ()), *bands])
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _different(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for each in values:
        if each not in found:
            found.append(each)
    return found
