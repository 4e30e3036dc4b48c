"""Show scenes as a table, and as facts for JSON."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import pystac
from rich.table import Table

from s2cube.cli._console import add_row
from s2cube.config.times import timestamp
from s2cube.errors import SceneError
from s2cube.scenes.scene import acquired, baseline_text, cloud_cover, tile

_MOST_AOIS = 3
"""Maximum number of areas in a row of the table."""


class Found(NamedTuple):
    """A scene, and the ids of the areas that it covers."""

    item: pystac.Item
    aois: list[str]


def facts_of_scene(found: Found) -> dict[str, Any]:
    """Return the main facts about a scene. A fact that the item lacks is None."""
    item, time = found.item, _time(found.item)
    return {
        "id": item.id,
        "aois": found.aois,
        "datetime": time and timestamp(time),
        "cloud_percent": cloud_cover(item),
        "tile": _read_or_empty(tile, item) or None,
        "baseline": _read_or_empty(baseline_text, item) or None,
    }


def table_of_scenes(scenes: Iterable[Found]) -> Table:
    """Show the main facts about scenes: area, acquisition time, cloud cover, tile and baseline."""
    table = Table("scene", "area", "time (UTC)", "cloud %", "tile", "baseline", box=None, pad_edge=False)
    for found in scenes:
        facts = facts_of_scene(found)
        more = len(found.aois) - _MOST_AOIS
        aois = ", ".join(found.aois[:_MOST_AOIS]) + (f" and {more} more" if more > 0 else "")
        time = str(found.item.properties.get("datetime"))[:16].replace("T", " ")
        cloud = "" if facts["cloud_percent"] is None else round(facts["cloud_percent"], 2)
        mgrs_tile = f"MGRS-{facts['tile']}" if facts["tile"] else ""
        add_row(table, facts["id"], aois, time, cloud, mgrs_tile, facts["baseline"] or "")
    return table


def _time(item: pystac.Item) -> datetime | None:
    try:
        return acquired(item)
    except SceneError:
        return None


def _read_or_empty(read: Callable[[pystac.Item], str], item: pystac.Item) -> str:
    try:
        return read(item)
    except SceneError:
        return ""
