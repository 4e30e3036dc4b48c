"""Scenes as a table."""

from collections.abc import Iterable

import pystac
from rich.table import Table
from rich.text import Text

from s2cube.scene import baseline, tile


def table_of_scenes(scenes: Iterable[pystac.Item]) -> Table:
    """Lay out what people ask of scenes: when they were taken, of which tile, how cloudy, by which baseline."""
    table = Table("scene", "time (UTC)", "cloud %", "tile", "baseline", box=None, pad_edge=False)
    for item in scenes:
        place, processed = tile(item), baseline(item)
        table.add_row(
            cell(item.id),
            cell(str(item.properties.get("datetime"))[:16].replace("T", " ")),
            cell(item.properties.get("eo:cloud_cover", "")),
            cell(place and f"MGRS-{place}"),
            cell(processed and f"{processed[0]:02}.{processed[1]:02}"),
        )
    return table


def cell(value: object) -> Text:
    """Show a foreign value: square brackets are no markup, and control characters do nothing."""
    text = "" if value is None else str(value)
    return Text("".join(each if each.isprintable() else "�" for each in text))
