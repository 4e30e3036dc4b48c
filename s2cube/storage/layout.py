"""Names of the files and folders of an output, relative to it.

::

    catalog.json items.parquet
    <aoi>/collection.json timeline.png
    <aoi>/<slice>/<slice>.tif _qa.tif .png .qml _qa.qml .json
    <aoi>/<composite>/<composite>.tif _count.tif _date.tif .png .qml .json
    statistics/*.parquet areas.parquet
    report.html failures.jsonl rejected.jsonl sync.jsonl
    .s2cube/run scenes overwrite overwrite-rows statistics-columns sync request lock parts/ areas-*.zip run.log
"""

CATALOG = "catalog.json"

ITEMS = "items.parquet"
"""All Items of the output, as stac-geoparquet."""

FAILURES = "failures.jsonl"

REJECTED = "rejected.jsonl"
"""The slices that --max-aoi-cloud rejected."""

SYNC = "sync.jsonl"
"""The passes of `sync`."""

REPORT = "report.html"
"""The page that describes the output to people."""

STATISTICS = "statistics"
"""Folder of the table of statistics."""

AREAS = "areas.parquet"
"""The fields of the table of statistics, as GeoParquet."""

STATISTICS_CSV = "statistics.csv"

OWN = ".s2cube"
"""Folder of the files that only s2cube reads."""

RUN = f"{OWN}/run"
"""The record of the run that writes to the output now, or else of the last run."""

SCENES = f"{OWN}/scenes"
"""The scenes that passes of `sync` have seen."""

OVERWRITE = f"{OWN}/overwrite"
"""The slices that a run with --overwrite has written so far."""

OVERWRITE_ROWS = f"{OWN}/overwrite-rows"
"""The rows that a run with --overwrite has written so far, as Parquet."""

STATISTICS_COLUMNS = f"{OWN}/statistics-columns"
"""Names of the columns of statistics that all files of the table have."""

SYNC_SERVICE = f"{OWN}/sync"
"""The service that makes passes of `sync` on a schedule, and the time of its next pass."""

REQUEST = f"{OWN}/request"
"""The dates and areas that the last job asked for. Areas without scenes have no other file."""

LOCK = f"{OWN}/lock"
PARTS = f"{OWN}/parts"
"""Folder of files that are being written. It is on the disk of the output, so that a file can be moved in one step."""

SENT_AREAS = f"{OWN}/areas-{{run}}.zip"
"""The files of the areas of a command that was submitted to a cluster, until it ends. The name has the run's id."""

RUN_LOG = f"{OWN}/run.log"
"""The log of a run in a separate process."""

SLICE_DEPTH = 3
"""Number of names in the path of a slice's file: AOI, slice, file."""


def collection_file(aoi_id: str) -> str:
    """Return the name of the collection of an AOI."""
    return f"{aoi_id}/collection.json"


def timeline_file(aoi_id: str) -> str:
    """Return the name of the picture of all days of an AOI."""
    return f"{aoi_id}/timeline.png"


def slice_folder(aoi_id: str, slice_id: str) -> str:
    """Return the name of the folder of a slice."""
    return f"{aoi_id}/{slice_id}"


def slice_file(aoi_id: str, slice_id: str, suffix: str = ".json") -> str:
    """Return the name of a file of a slice. The suffix is ``.json`` or one of `image_item.SUFFIXES`."""
    return f"{slice_folder(aoi_id, slice_id)}/{slice_id}{suffix}"
