"""Remove from an output what is made only of scenes that the catalogue has withdrawn."""

import logging
from collections.abc import Set

from s2cube.inventory.catalog import write_catalog
from s2cube.storage.output import Output
from s2cube.tables.csv_file import has_csv, write_csv
from s2cube.tables.table import Table

log = logging.getLogger(__name__)


def remove_withdrawn(output: Output, withdrawn: Set[str], kept: Set[str]) -> list[str]:
    """Remove images, composites and rows of which every scene is withdrawn; return the ids of their slices.

    Images that were computed from a cube by a user are not removed.

    Parameters
    ----------
    kept
        Ids of the slices that have other scenes now.
    """
    if not withdrawn:
        return []
    gone: dict[str, str] = {}
    for item in output.read_items((aoi_id, slice_id) for aoi_id, slice_id in output.items() if slice_id not in kept):
        if item and item.scenes and not item.name and withdrawn >= {*item.scenes}:
            output.remove(item.aoi, item.slice)
            gone[item.slice] = item.aoi
    if gone:
        write_catalog(output, {*gone.values()})
    rows = Table(output).remove(withdrawn)
    if rows and has_csv(output):
        write_csv(Table(output))
    removed = sorted({*gone, *rows})
    if removed:
        output.failures.remove({*removed})
        output.rejections.remove({*removed})
        others = f" and {len(removed) - 1} others are" if removed[1:] else " is"
        log.warning("%s%s removed: the catalogue has withdrawn all scenes", removed[0], others)
    return removed
