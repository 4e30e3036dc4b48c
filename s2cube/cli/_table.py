"""Show scenes as a table."""

from collections.abc import Callable, Iterable

import pystac
from rich.table import Table

from s2cube.cli._console import add_row
from s2cube.errors import SceneError
from s2cube.scenes.scene import baseline_text, cloud_cover, tile


def table_of_scenes(scenes: Iterable[pystac.Item]) -> Table:
    """Show the main facts about scenes: acquisition time, tile, cloud cover and baseline."""
    table = Table("scene", "time (UTC)", "cloud %", "tile", "baseline", box=None, pad_edge=False)
    for item in scenes:
        mgrs_tile = _read_or_empty(tile, item)
        add_row(
            table,
            item.id,
            str(item.properties.get("datetime"))[:16].replace("T", " "),
            "" if (cloud_percent := cloud_cover(item)) is None else round(cloud_percent, 2),
            mgrs_tile and f"MGRS-{mgrs_tile}",
            _read_or_empty(baseline_text, item),
        )
    return table


def _read_or_empty(read: Callable[[pystac.Item], str], item: pystac.Item) -> str:
    try:
        return read(item)
    except SceneError:
        return ""
