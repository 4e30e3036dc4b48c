"""The table of statistics in an output: Parquet files, one for each square of the map and each month."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from s2cube.errors import OutputError
from s2cube.storage.layout import STATISTICS, STATISTICS_COLUMNS
from s2cube.storage.output import Output
from s2cube.tables._files import KEYS, WRITING, keys_of, open_rows, read_rows
from s2cube.tables._merge import merged, statistics_in, with_columns
from s2cube.tables.rows import ORDER, Key, Recipe

log = logging.getLogger(__name__)

_SQUARE_DEG = 0.5
"""Side of a square, degrees: some 55 km, about as large as a block. It depends on nothing but the field, so that every
run finds its rows, whatever the grid."""

_DEPTH = 2
"""Number of names in the path of a file."""


@dataclass(frozen=True)
class StoredRow:
    """What a run must know of a row of an earlier run.

    Parameters
    ----------
    key
        None if it is not known what the columns are.
    """

    recipe: Recipe
    key: Key | None
    scenes: tuple[str, ...]

    def has(self, recipe: Recipe, key: Key) -> bool:
        """Return whether the row has the values of a recipe, in all columns of a key. It may have others, too."""
        if self.recipe.processing != recipe.processing or self.key is None:
            return False
        if (self.recipe.files, self.key) == (recipe.files, key):
            return True
        is_of_files = recipe.files_of(key).items() <= self.recipe.files_of(self.key).items()
        return is_of_files and {*key.columns} <= {*self.key.columns}


def squares_of(bounds_lonlat: NDArray[np.float64]) -> NDArray[np.object_]:
    """Return the square of the middle of each box, for example ``n475e0120``: 47.5 to 48 north, 12 to 12.5 east.

    Parameters
    ----------
    bounds_lonlat
        Dims (box, 4): west, south, east, north, degrees.
    """
    lons, lats = ((bounds_lonlat[:, at] + bounds_lonlat[:, at + 2]) / 2 for at in (0, 1))
    west, south = (np.floor(each / _SQUARE_DEG) * _SQUARE_DEG for each in ((lons + 180) % 360 - 180, lats))
    pairs, numbers = np.unique(np.column_stack([west, south]), axis=0, return_inverse=True)
    names = [f"{'ns'[y < 0]}{abs(y) * 10:03.0f}{'ew'[x < 0]}{abs(x) * 10:04.0f}" for x, y in pairs.tolist()]
    return np.array(names, object)[numbers.ravel()]


@dataclass(frozen=True)
class Table:
    """The table of an output."""

    output: Output

    def files(self) -> list[str]:
        """Return the names of the files, sorted."""
        return sorted(each for each in self.output.destination.sizes(_DEPTH, STATISTICS) if each.endswith(".parquet"))

    def stored(self, squares: Collection[str]) -> dict[str, StoredRow]:
        """Read what is known of the rows in some squares, by the id of the slice."""
        found: dict[str, StoredRow] = {}
        for name in self.files():
            if (
                square_and_month(name)[0] in squares
                and (rows := self._read(name, ["slice", "scenes", "recipe"])) is not None
            ):
                keys = keys_of(rows)
                recipes = map(Recipe.parse, rows["recipe"].to_pylist())
                columns = (rows["slice"].to_pylist(), recipes, rows["scenes"].to_pylist())
                found |= {
                    slice_id: StoredRow(recipe, keys.get(recipe.key), tuple(scenes or ()))
                    for slice_id, recipe, scenes in zip(*columns, strict=True)
                }
        return found

    def prepare(self, columns: Sequence[str]) -> list[str]:
        """Give all files the same columns of statistics; return their names.

        Many readers of a folder use the columns of its first file, and say nothing of the others.

        Parameters
        ----------
        columns
            Names of the columns of new rows.
        """
        before, is_complete = self._read_columns()
        names = list(dict.fromkeys([*before, *columns]))
        if names == before and is_complete:
            return names
        # A run that is killed meanwhile leaves a record that is not complete.
        self._write_columns(names, is_complete=False)
        found = {name: statistics_in(rows) for name, rows in self.readable()}
        names = list(dict.fromkeys([*names, *(each for of_file in found.values() for each in of_file)]))
        for name, of_file in found.items():
            if of_file != names and (rows := self._read(name)) is not None:
                self._write(name, with_columns(rows, names), keys_of(rows))
        self._write_columns(names, is_complete=len(found) == len(self.files()))
        return names

    def readable(self, report: Callable[[str], object] = log.warning) -> Iterator[tuple[str, pa.Table]]:
        """Read the files: their names and rows. A damaged file may be of another place: it is reported."""
        for name in self.files():
            try:
                rows = self._read(name)
            except OutputError as error:
                report(str(error))
                continue
            if rows is not None:
                yield name, rows

    @property
    def columns(self) -> list[str] | None:
        """Columns of statistics of all files; None if they are not the same, because a run was killed."""
        names, is_complete = self._read_columns()
        return names if is_complete else None

    def _read_columns(self) -> tuple[list[str], bool]:
        """Return the names in the record, and whether all files have these columns."""
        try:
            known = json.loads(self.output.destination.read(STATISTICS_COLUMNS) or b"{}")
            return [str(name) for name in known["columns"]], known["is_complete"] is True
        except (ValueError, KeyError, TypeError):
            return [], False

    def _write_columns(self, names: list[str], is_complete: bool) -> None:
        self.output.fence.check()
        record = json.dumps({"columns": names, "is_complete": is_complete})
        self.output.destination.put(STATISTICS_COLUMNS, record.encode())

    def put(self, place: tuple[str, str], rows: pa.Table, keys: Iterable[Key], columns: Sequence[str] = ()) -> str:
        """Add rows to a file; return its path. Rows of the same slices are replaced.

        Values of an old row in other columns are kept if it is computed from the same scenes with the same settings.

        Parameters
        ----------
        place
            Square, and month of the solar days, ``YYYYMM``.
        keys
            Keys of the new rows.
        columns
            From `prepare`: the file gets these columns, too.

        Raises
        ------
        OutputError
            If the existing file is no table of s2cube.
        WriteError
            If the file cannot be written.
        """
        name = _name(*place)
        old = self._read(name)
        known = ({} if old is None else keys_of(old)) | {key.id: key for key in keys}
        content, known = (rows, known) if old is None else merged(old, rows, known)
        names = list(dict.fromkeys([*columns, *statistics_in(content)]))
        self._write(name, with_columns(content, names), known)
        return f"{self.output.destination.address}/{name}"

    def remove(self, scenes: Set[str]) -> list[str]:
        """Remove the rows that are computed only from some scenes; return the ids of their slices."""
        gone: list[str] = []
        for name in self.files() if scenes else ():
            rows = self._read(name)
            if rows is None:
                continue
            is_gone = np.array([bool(each) and scenes >= {*each} for each in rows["scenes"].to_pylist()], bool)
            if is_gone.any():
                gone += rows["slice"].filter(pa.array(is_gone)).to_pylist()
                self._write(name, rows.filter(pa.array(~is_gone)), keys_of(rows))
        return gone

    def move(self, squares: Mapping[str, tuple[str, str]]) -> None:
        """Move rows of fields to other squares. If it is interrupted and called again, the result is the same.

        Parameters
        ----------
        squares
            Old and new square of each field, by its id.
        """
        old_squares = {old for old, _ in squares.values()}
        for name in self.files() if squares else ():
            square, month = square_and_month(name)
            if square not in old_squares or (rows := self._read(name)) is None:
                continue
            places = [squares.get(each, ("", "")) for each in rows["aoi"].to_pylist()]
            targets = np.array([new if old == square else "" for old, new in places], object)
            for target in sorted({*targets} - {""}):
                self.put((target, month), rows.filter(pa.array(targets == target)), keys_of(rows).values())
            if (targets != "").any():
                self._write(name, rows.filter(pa.array(targets == "")), keys_of(rows))

    def parts(self) -> Iterator[pa.Table]:
        """Read the table, file by file."""
        yield from (rows for name in self.files() if (rows := self._read(name)) is not None)

    def schemas(self) -> Iterator[pa.Schema]:
        """Read the schema of each file."""
        yield from (file.schema_arrow for name in self.files() if (file := open_rows(self.output, name)) is not None)

    def _read(self, name: str, columns: list[str] | None = None) -> pa.Table | None:
        return read_rows(self.output, name, columns)

    def _write(self, name: str, rows: pa.Table, keys: Mapping[str, Key]) -> None:
        self.output.fence.check()
        if not rows.num_rows:
            self.output.destination.remove(name)
            return
        used = set(pc.unique(pc.utf8_slice_codeunits(rows["recipe"], -Key.LENGTH)).to_pylist())
        metadata = {
            KEYS: json.dumps({each: asdict(key) for each, key in sorted(keys.items()) if each in used}).encode()
        }
        ordered = rows.sort_by(ORDER)
        content = BytesIO()
        pq.write_table(ordered.replace_schema_metadata(metadata), content, **WRITING)
        self.output.destination.put(name, content.getvalue())


def _name(square: str, month: str) -> str:
    return f"{STATISTICS}/{square}_{month}.parquet"


def square_and_month(name: str) -> tuple[str, str]:
    """Return the place of a file, see `Table.put`."""
    square, _, month = name.removeprefix(f"{STATISTICS}/").removesuffix(".parquet").partition("_")
    return square, month
