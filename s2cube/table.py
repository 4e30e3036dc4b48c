"""Scenes as a table."""

from collections.abc import Callable, Iterable

import pystac
from rich.table import Table
from rich.text import Text

from s2cube.errors import SceneError
from s2cube.scene import baseline_text, tile


def table_of_scenes(scenes: Iterable[pystac.Item]) -> Table:
    """Lay out what people ask of scenes: when they were taken, of which tile, how cloudy, by which baseline."""
    table = Table("scene", "time (UTC)", "cloud %", "tile", "baseline", box=None, pad_edge=False)
    for item in scenes:
        place = _told(tile, item)
        table.add_row(
            cell(item.id),
            cell(str(item.properties.get("datetime"))[:16].replace("T", " ")),
            cell(item.properties.get("eo:cloud_cover", "")),
            cell(place and f"MGRS-{place}"),
            cell(_told(baseline_text, item)),
        )
    return table


def _told(read: Callable[[pystac.Item], str], item: pystac.Item) -> str:
    try:
        return read(item)
    except SceneError:
        return ""


def cell(value: object) -> Text:
    """Show a foreign value: square brackets are no markup, and control characters do nothing."""
    text = "" if value is None else str(value)
    return Text("".join(each if each.isprintable() else "�" for each in text))
