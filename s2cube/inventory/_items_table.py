"""All Items of an output in one Parquet file, as stac-geoparquet."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from s2cube.errors import OutputError
from s2cube.inventory._item_columns import as_table, documents_of
from s2cube.storage.layout import ITEMS
from s2cube.storage.output import Output

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_BATCH = 5000
"""Number of rows that are written at a time."""

_UNFIT = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, OverflowError)
"""Errors of Arrow (whose errors are subclasses) and of stac-geoparquet for an Item that no row can hold."""


def read_items_table(output: Output) -> list[dict[str, Any]] | None:
    """Read all Items of an output from its table, not from their own files.

    Returns
    -------
    list of dict or None
        The STAC Items as JSON, in the order of AOIs and slices. Members whose value is null are absent, except
        `datetime`. None if there is no table, or (with a warning) if it cannot be read.
    """
    import pyarrow as pa

    _, table = _read(output)
    try:
        return None if table is None else list(documents_of(table))
    except (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError) as error:
        _warn(output, error)
        return None


class ItemRows:
    """The rows of the table of an output: those of its file, and new ones in their place.

    Raises
    ------
    WriteError
        If the output cannot be read.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._content, self._table = _read(output)
        self._old = _ranges(self._table) if self._table is not None else {}
        self._new: dict[str, pa.Table] = {}
        self._waiting: dict[str, Sequence[Mapping[str, Any]]] = {}

    def has(self, aoi_id: str, slice_ids: Sequence[str]) -> bool:
        """Return whether the file has exactly these slices of an AOI."""
        if self._table is None or aoi_id not in self._old:
            return False
        ids: list[str] = self._rows(aoi_id)["id"].to_pylist()
        return ids == list(slice_ids)

    def replace(self, aoi_id: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """Replace the rows of an AOI.

        Parameters
        ----------
        documents
            Its Items as JSON.
        """
        self._waiting[aoi_id] = documents
        if sum(map(len, self._waiting.values())) >= _BATCH:
            self._convert()

    def _convert(self) -> None:
        """Convert the Items that wait: at once, because each call of the library takes longer than many Items."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            table, first = as_table([each for documents in waiting.values() for each in documents]), 0
        except _UNFIT:
            for aoi_id, documents in waiting.items():
                self._convert_area(aoi_id, documents)
            return
        for aoi_id, documents in waiting.items():
            self._new[aoi_id] = table.slice(first, len(documents))
            first += len(documents)

    def _convert_area(self, aoi_id: str, documents: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._new[aoi_id] = as_table(documents)
        except _UNFIT:
            alone = {str(each["id"]): _table_or_none(each) for each in documents}
            fitting, _ = _fitting(alone, self._output)
            self._new.pop(aoi_id, None)
            self._old.pop(aoi_id, None)
            if fitting:
                import pyarrow as pa

                self._new[aoi_id] = pa.concat_tables(fitting.values(), promote_options="permissive")

    def write(self, aoi_ids: Sequence[str]) -> None:
        """Write the rows of AOIs to the file, completely or not at all. A file that would be the same is not written.

        Raises
        ------
        BusyError
            If another run writes there now.
        WriteError
            If the file cannot be written.
        """
        if not aoi_ids:
            self._output.destination.remove(ITEMS)
            return
        self._convert()
        if not self._new and list(self._old) == list(aoi_ids):
            return
        import pyarrow as pa
        from stac_geoparquet.arrow import to_parquet

        known = self._new.keys() | self._old.keys()
        tables, schema = _fitting({each: self._rows(each) for each in aoi_ids if each in known}, self._output)
        reader = pa.RecordBatchReader.from_batches(schema, _batches(tables.values(), schema))
        with self._output.destination.staging() as folder:
            path = folder / ITEMS
            try:
                to_parquet(reader, path, compression="zstd")
            except (pa.ArrowException, *_UNFIT) as error:
                # A row that somebody has changed must not make a run fail.
                log.warning("%s/%s is not written (%s)", self._output.destination.address, ITEMS, error)
                self._output.destination.remove(ITEMS)
                return
            if path.read_bytes() != self._content:
                self._output.destination.put(ITEMS, path)

    def _rows(self, aoi_id: str) -> "pa.Table":
        if aoi_id in self._new:
            return self._new[aoi_id]
        assert self._table is not None
        return self._table.slice(*self._old[aoi_id])


def _table_or_none(document: Mapping[str, Any]) -> "pa.Table | None":
    try:
        return as_table([document])
    except _UNFIT:
        return None


def _fitting(tables: Mapping[str, "pa.Table | None"], output: Output) -> tuple[dict[str, "pa.Table"], "pa.Schema"]:
    """Return the tables whose columns have types that fit together, and their schema; warn about the others."""
    import pyarrow as pa

    fitting: dict[str, pa.Table] = {}
    schema = pa.schema([])
    for name, table in tables.items():
        try:
            if table is None:
                raise ValueError
            schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
        except (pa.ArrowException, ValueError):
            path = f"{output.destination.address}/{ITEMS}"
            log.warning("%s: %s is left out, because a member has another type than in other Items", path, name)
        else:
            fitting[name] = table
    return fitting, schema


def _warn(output: Output, error: object) -> None:
    log.warning("%s/%s cannot be read as a table of Items (%s)", output.destination.address, ITEMS, error)


def _read(output: Output) -> tuple[bytes | None, "pa.Table | None"]:
    """Return the content of the file and its table; None if there is none, or if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = None
    try:
        content = output.destination.read(ITEMS)
        if content is None:
            return None, None
        # `read_table` would load pandas, which takes half a second.
        table = pq.ParquetFile(pa.BufferReader(content)).read()
        if missing := {"id", "collection", "geometry", "assets"} - set(table.column_names):
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    except OutputError as error:
        _warn(output, error.problem)
    except (pa.ArrowException, OSError, ValueError) as error:
        _warn(output, error)
    else:
        return content, table
    return content, None


def _ranges(table: "pa.Table") -> dict[str, tuple[int, int]]:
    """Return the first row and the number of rows of each AOI; without AOIs whose rows are not together."""
    ranges: dict[str, tuple[int, int]] = {}
    first, scattered = 0, set()
    for aoi_id, rows in groupby(table["collection"].to_pylist()):
        count = sum(1 for _ in rows)
        if aoi_id in ranges:
            scattered.add(aoi_id)
        ranges[aoi_id] = first, count
        first += count
    return {aoi_id: each for aoi_id, each in ranges.items() if aoi_id not in scattered}


def _batches(tables: Iterable["pa.Table"], schema: "pa.Schema") -> Iterator["pa.RecordBatch"]:
    """Yield the rows of tables with one schema, so many at a time that a file has few row groups."""
    import pyarrow as pa

    waiting = [schema.empty_table()]

    def joined() -> Iterator["pa.RecordBatch"]:
        table = pa.concat_tables(waiting, promote_options="permissive").cast(schema).combine_chunks()
        yield from table.to_batches()
        del waiting[1:]

    for table in tables:
        waiting.append(table)
        if sum(each.num_rows for each in waiting) >= _BATCH:
            yield from joined()
    yield from joined()
