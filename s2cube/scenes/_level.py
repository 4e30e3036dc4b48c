"""Check the processing level: s2cube reads Level-2A, surface reflectance.

A scene or collection with another level is refused. A scene or collection without a level is accepted.
"""

import re
from collections.abc import Mapping
from typing import Any

import pystac

from s2cube.errors import SceneError
from s2cube.stac.members import parse_text, read_member, short_json

_LEVELS = ("s2:product_type", "product:type", "productType", "processing:level")
"""Properties with the level of a product, such as S2MSI2A or L2A (extensions sentinel-2, product and processing)."""

_PRODUCT = "s2:product_uri"
"""Property with the name of ESA's product, such as S2A_MSIL2A_20240101T….SAFE."""

_LEVEL = re.compile(r"(?:S2MSI|LEVEL[-_ ]?|L)?-?([0-3])\s?[A-C]?P?")
_COLLECTION_LEVEL = re.compile(r"(?:^|[^a-z0-9])(?:l|level-?)([0-3])[a-c]?(?:[^a-z0-9]|$)")
_ID_OF_LEVEL_1 = re.compile(r"_(?:MSI)?L1[A-C](?:_|$)")
_SURFACE_REFLECTANCE = "2"


def check_level(item: pystac.Item) -> None:
    """Check that the item of a scene does not have another level than Level-2A, surface reflectance.

    Raises
    ------
    SceneError
        If the item has another level.
    """
    for name in _LEVELS:
        level = read_member(item, item.properties, name, parse_text) or ""
        if _level(level) not in ("", _SURFACE_REFLECTANCE):
            raise _other_level(item.id, f"says {name} {short_json(level)}")
    if _ID_OF_LEVEL_1.search(item.id):
        raise _other_level(item.id, "says so in its id")
    product = read_member(item, item.properties, _PRODUCT, parse_text) or ""
    if _ID_OF_LEVEL_1.search(product):
        raise _other_level(item.id, f"says {_PRODUCT} {short_json(product)}")
    if _is_other_level(item.collection_id):
        raise _other_level(item.id, f"is of collection {short_json(item.collection_id)}")


def other_level(collection: Mapping[str, Any]) -> str:
    """Return the evidence that all scenes of a collection have another level than 2; empty if there is no evidence.

    Parameters
    ----------
    collection
        STAC Collection, as the server returns it.
    """
    if _is_other_level(str(collection.get("id"))):
        return "says so in its id"
    summaries = collection.get("summaries")
    for name in _LEVELS:
        values = summaries.get(name) if isinstance(summaries, Mapping) else None
        levels = {_level(each) for each in values if isinstance(each, str)} if isinstance(values, list) else {""}
        if levels and not levels & {"", _SURFACE_REFLECTANCE}:
            return f"says {name} {short_json(values)}"
    return ""


def _level(text: str) -> str:
    """Return the digit of a level, such as 2 for S2MSI2A; empty if the text is not a level."""
    match = _LEVEL.fullmatch(text.strip().upper())
    return match[1] if match else ""


def _is_other_level(collection: str | None) -> bool:
    """Check whether the id of a collection contains another processing level than 2, such as sentinel-2-l1c."""
    levels = _COLLECTION_LEVEL.findall((collection or "").lower())
    return bool(levels) and _SURFACE_REFLECTANCE not in levels


def _other_level(subject: str, evidence: str) -> SceneError:
    return SceneError(subject, f"is not Level-2A surface reflectance: it {evidence}", "Choose a collection of Level-2A")
