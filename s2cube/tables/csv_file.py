"""Write the table of statistics as one CSV file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from s2cube.errors import WriteError
from s2cube.storage.layout import STATISTICS_CSV
from s2cube.storage.output import Output
from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS, schema
from s2cube.tables.table import Table

_TEXTS = {"time": pa.string(), "scenes": pa.string()}

_SEPARATOR = ";"
"""Between the ids of scenes."""


def has_csv(output: Output) -> bool:
    """Return whether an output has ``statistics.csv``. It is kept equal to the table."""
    return STATISTICS_CSV in output.destination.sizes(1)


def write_csv(table: Table) -> str:
    """Write all rows of a table as ``statistics.csv``; return its path. A null is an empty text.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    destination = table.output.destination
    with destination.staging() as folder:
        path = Path(folder) / STATISTICS_CSV
        _write(table, path)
        table.output.fence.check()
        destination.put(STATISTICS_CSV, path)
    return f"{destination.address}/{STATISTICS_CSV}"


def equals_csv(table: Table) -> bool:
    """Return whether ``statistics.csv`` has the rows of a table. Both are compared part by part.

    Raises
    ------
    OutputError
        If a file of the table cannot be read.
    WriteError
        If there is no space for a temporary file.
    """
    with TemporaryDirectory(prefix="s2cube-") as folder:
        path = Path(folder) / STATISTICS_CSV
        _write(table, path)
        with path.open("rb") as file:
            chunks = table.output.destination.chunks(STATISTICS_CSV)
            return all(file.read(len(each)) == each for each in chunks) and not file.read(1)


def _write(table: Table, path: Path) -> None:
    names = dict.fromkeys(name for each in table.schemas() for name in each.names)
    values = [name for name in names if name not in FIELD_COLUMNS and name not in SOURCE_COLUMNS]
    wanted = schema(values)
    texts = pa.schema([(each.name, _TEXTS.get(each.name, each.type)) for each in wanted])
    try:
        with csv.CSVWriter(path, texts, write_options=csv.WriteOptions(quoting_style="needed")) as writer:
            for part in table.parts():
                writer.write_table(_as_texts(part, wanted).cast(texts))
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise WriteError(str(path), problem, "Free disk space there, then run again") from None


def _as_texts(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    missing = pa.nulls(rows.num_rows, pa.float32())
    content = {name: rows[name] if name in rows.column_names else missing for name in wanted.names}
    content["time"] = pc.strftime(rows["time"], "%Y-%m-%dT%H:%M:%SZ")
    content["scenes"] = pc.binary_join(rows["scenes"], _SEPARATOR)
    return pa.table(content)
