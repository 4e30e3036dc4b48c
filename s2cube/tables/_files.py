"""Read the Parquet files of an output, with the checksums of their pages."""

import json
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s2cube.errors import OutputError
from s2cube.storage.output import Output
from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS, Key

WRITING: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
"""Options of the files that are written."""

KEYS = b"s2cube:keys"
"""Name of the keys of the rows in the metadata of a file, see `rows.Key`."""


def opened(content: bytes) -> pq.ParquetFile:
    """Open a Parquet file. The checksum of a page is compared when the page is read."""
    return pq.ParquetFile(BytesIO(content), page_checksum_verification=True)


def open_rows(output: Output, name: str) -> pq.ParquetFile | None:
    """Open a file of the table; None if it does not exist.

    Raises
    ------
    OutputError
        If it is no table of s2cube.
    """
    content = output.destination.read(name)
    if content is None:
        return None
    try:
        file = opened(content)
        if missing := {*FIELD_COLUMNS, *SOURCE_COLUMNS} - {*file.schema_arrow.names}:
            raise pa.ArrowInvalid(f"it has no column {min(missing)}")
    except (pa.ArrowException, OSError) as error:
        raise _error(output, name, error) from None
    return file


def read_rows(output: Output, name: str, columns: list[str] | None = None) -> pa.Table | None:
    """Read a file of the table; None if it does not exist.

    Raises
    ------
    OutputError
        If it is no table of s2cube, or damaged.
    """
    file = open_rows(output, name)
    try:
        return file and file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _error(output, name, error) from None


def keys_of(rows: pa.Table) -> dict[str, Key]:
    """Return the keys in the metadata of a file."""
    try:
        content = json.loads((rows.schema.metadata or {})[KEYS])
        return {each: Key(tuple(key["columns"]), key["settings"], tuple(key["files"])) for each, key in content.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _error(output: Output, name: str, error: Exception) -> OutputError:
    problem = f"is not a table of s2cube, or it is damaged ({error})"
    remedy = "Remove the file, or use verify --repair: the next run computes its rows again"
    return OutputError(f"{output.destination.address}/{name}", problem, remedy)
