"""Write rows to the table of statistics, some at a time."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from s2cube.errors import S2CubeError
from s2cube.tables.rows import Key
from s2cube.tables.table import Table

log = logging.getLogger(__name__)

_MOST_ROWS = 500_000
"""Maximum number of rows that are kept in memory until they are written."""

_MOST_S = 30
"""Time (s) after which rows are written, so that little is lost if the run is killed."""


class TableWriter:
    """Collects the rows of a run, and writes them to the files of the table.

    Parameters
    ----------
    key
        Key of the rows.
    squares
        Square of each field, by its id.
    on_write
        Is called with the ids of slices whose rows are in the table now.

    Attributes
    ----------
    rows
        Number of rows that were written.
    files
        Paths of the files that were written.
    """

    def __init__(
        self, table: Table, key: Key, squares: Mapping[str, str], on_write: Callable[[pa.ChunkedArray], None]
    ) -> None:
        self._table, self._key, self._squares, self._on_write = table, key, squares, on_write
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._written_s = time.monotonic()
        self.rows = 0
        self.files: set[str] = set()

    def add(self, rows: pa.Table | None) -> None:
        """Add rows. They are written when there are many, or after some time."""
        if rows is None:
            return
        self._waiting.append(rows)
        self._count += rows.num_rows
        if self._count > _MOST_ROWS or time.monotonic() - self._written_s > _MOST_S:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not written yet."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        squares = pa.array([self._squares[name] for name in rows["aoi"].to_pylist()], pa.string())
        months = pc.strftime(rows["date"], "%Y%m").combine_chunks()
        columns = self._table.prepare(self._key.columns)
        files = pc.binary_join_element_wise(squares, months, " ")
        for each in pc.unique(files).to_pylist():
            square, _, month = each.partition(" ")
            part = rows.filter(pc.equal(files, each))
            self.files.add(self._table.put((square, month), part, [self._key], columns))
            self.rows += part.num_rows
        self._on_write(rows["slice"])
        self._waiting, self._count, self._written_s = [], 0, time.monotonic()

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Write the rows at the end of a block, even if it raises an error. That error is raised, not a later one.

        Raises
        ------
        WriteError
            If the rows cannot be written.
        """
        try:
            yield
        except BaseException as error:
            try:
                self.flush()
            except S2CubeError as later:
                if str(later) != str(error):
                    log.warning("%s", later)
            raise
        self.flush()
