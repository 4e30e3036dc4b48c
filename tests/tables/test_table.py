"""Rows of the table of statistics are kept, replaced and merged; other libraries read them."""

from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2cube.errors import OutputError
from s2cube.storage.output import Output
from s2cube.tables.csv_file import write_csv
from s2cube.tables.rows import DayRows, Key, Recipe, table_of
from s2cube.tables.table import Table, squares_of
from s2cube.tables.writer import TableWriter

RED, NIR = Key(("red_mean",), "search", ("red", "scl")), Key(("nir_mean", "nir_p90"), "search", ("nir", "scl"))


def recipe(key: Key, files: str = "aa", processing: str = "e") -> Recipe:
    """A letter for each file."""
    return Recipe(processing * 16, "".join(each * 8 for each in files), "0" * 12, key.id)


def rows_of(key: Key, day: int = 1, files: str = "aa", processing: str = "e", **values: float) -> pa.Table:
    """One row for each field; the value is in every column of the key."""
    ids, time = np.array(list(values), object), datetime(2024, 5, day, 10, 20, 31, 24000, UTC)
    column = np.array(list(values.values()), np.float32)
    known = np.full(len(ids), 50.0)
    return table_of(
        [
            DayRows(
                ids, f"202405{day:02}", date(2024, 5, day), time, ("S2A", "S2B"),
                known, known, np.full(len(ids), np.nan), dict.fromkeys(key.columns, column),
                [str(recipe(key, files, processing)) for _ in ids],
            )
        ],
        key.columns,
    )  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(Output.at(tmp_path))


def content(table: Table) -> pd.DataFrame:
    found = pd.concat([part.to_pandas() for part in table.parts()]).set_index("slice")
    floats = found.select_dtypes("float32").columns
    return found.astype(dict.fromkeys(floats, float)).round(3)


def test_new_rows_replace_rows_of_their_slices_and_no_other(table: Table) -> None:
    table.put(("n475e0120", "202405"), rows_of(RED, a=0.1, b=0.2), [RED])
    table.put(("n475e0120", "202405"), rows_of(RED, files="cc", b=0.3), [RED])
    table.put(("n475e0120", "202405"), rows_of(RED, day=3, a=0.4), [RED])
    assert content(table)["red_mean"].to_dict() == {"a_20240501": 0.1, "a_20240503": 0.4, "b_20240501": 0.3}
    assert [*content(table).index] == ["a_20240501", "a_20240503", "b_20240501"]


def test_other_columns_are_kept_if_the_files_are_the_same(table: Table) -> None:
    table.put(("n475e0120", "202405"), rows_of(RED, files="ab", a=0.1, b=0.2, c=0.3), [RED])
    table.put(("n475e0120", "202405"), rows_of(NIR, files="cb", a=0.5), [NIR])
    table.put(("n475e0120", "202405"), rows_of(NIR, files="cb", processing="f", b=0.6), [NIR])
    table.put(("n475e0120", "202405"), rows_of(NIR, files="cd", c=0.7), [NIR])
    found = content(table)
    assert found.loc["a_20240501", ["red_mean", "nir_mean", "nir_p90"]].tolist() == [0.1, 0.5, 0.5]
    assert found["red_mean"].isna().to_dict() == {"a_20240501": False, "b_20240501": True, "c_20240501": True}
    stored = table.stored({"n475e0120"})
    both = Key(("red_mean", "nir_mean"), "search", ("nir", "red", "scl"))
    row = stored["a_20240501"]
    assert row.has(recipe(both, "cab"), both)
    assert row.has(recipe(RED, "ab"), RED)
    assert row.has(recipe(NIR, "cb"), NIR)
    for key, files in ((both, "cad"), (RED, "ad"), (RED, "cb"), (NIR, "ab")):
        assert not row.has(recipe(key, files), key)
    assert not row.has(recipe(RED, "ab", "f"), RED)
    other = Key(("red_p90",), "search", ("red", "scl"))
    assert not row.has(recipe(other, "ab"), other)
    assert not stored["b_20240501"].has(recipe(both, "cab", "f"), both)
    assert stored["b_20240501"].has(recipe(NIR, "cb", "f"), NIR)
    assert row.scenes == ("S2A", "S2B")


def test_columns_of_files_that_are_the_same_are_kept(table: Table) -> None:
    """A mask layer concerns all columns, and an index may need each file."""
    columns = ("red_mean", "nir_mean", "nir_p90", "NDVI_mean")
    whole = Key(columns, "search", ("nir", "red", "scl"))
    new = Key(("nir_mean",), "search", ("nir", "scl"))
    table.put(("n475e0120", "202405"), rows_of(whole, files="abc", a=0.1, b=0.2), [whole])
    table.put(("n475e0120", "202405"), rows_of(new, files="dc", a=0.5), [new])
    table.put(("n475e0120", "202405"), rows_of(new, files="ad", b=0.6), [new])
    found = content(table)[[*columns]].astype(object).where(lambda each: each.notna(), None)
    assert found.loc["a_20240501"].tolist() == [0.1, 0.5, None, None]
    assert found.loc["b_20240501"].tolist() == [None, 0.6, None, None]
    stored = table.stored({"n475e0120"})["a_20240501"]
    assert stored.has(recipe(RED, "bc"), RED)
    assert not stored.has(recipe(whole, "dbc"), whole)


def test_only_the_squares_that_are_asked_for_are_read(table: Table) -> None:
    table.put(("n475e0120", "202405"), rows_of(RED, a=0.1), [RED])
    table.put(("s475w0120", "202405"), rows_of(RED, b=0.1), [RED])
    assert table.stored({"s475w0120"}).keys() == {"b_20240501"}
    assert table.stored(set()) == {}


def test_rows_of_scenes_are_removed(table: Table) -> None:
    """The scenes of each row are S2A and S2B."""
    table.put(("n475e0120", "202405"), rows_of(RED, a=0.1, b=0.2), [RED])
    assert table.remove(set()) == table.remove({"S2A"}) == []
    assert len(content(table)) == 2
    assert sorted(table.remove({"S2A", "S2B", "other"})) == ["a_20240501", "b_20240501"]
    assert table.files() == []


def test_squares() -> None:
    boxes = [(12.1, 47.6, 12.2, 47.7), (-0.2, -0.3, -0.1, -0.2), (179.9, -17, 180.2, -16.9), (-180.1, 0, -179.7, 0.2)]
    assert squares_of(np.array(boxes)).tolist() == ["n475e0120", "s005w0005", "s170w1800", "n000w1800"]


def test_a_missing_value_is_null_for_every_library(table: Table, tmp_path: Path) -> None:
    path = table.put(("n475e0120", "202405"), rows_of(RED, a=float("nan"), b=0.2), [RED])
    assert pq.read_table(path)["red_mean"].null_count == 1
    found = duckdb.sql(f"select avg(red_mean), count(cloud_percent) from '{tmp_path}/statistics/*.parquet'").fetchall()
    assert found == [(pytest.approx(0.2), 0)]
    assert pq.read_schema(path).field("scenes").type == pa.list_(pa.string())


def test_a_file_that_is_no_table(table: Table, tmp_path: Path) -> None:
    (tmp_path / "statistics").mkdir()
    (tmp_path / "statistics" / "n475e0120_202405.parquet").write_bytes(b"no parquet")
    with pytest.raises(OutputError, match="is not a table of s2cube"):
        table.stored({"n475e0120"})
    with pytest.raises(OutputError, match=r"Remove the file, or use verify --repair: the next run"):
        table.put(("n475e0120", "202405"), rows_of(RED, a=0.1), [RED])
    assert (tmp_path / "statistics" / "n475e0120_202405.parquet").read_bytes() == b"no parquet"


def test_rows_without_keys_are_computed_again(table: Table) -> None:
    path = table.put(("n475e0120", "202405"), rows_of(RED, a=0.1), [RED])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert not table.stored({"n475e0120"})["a_20240501"].has(recipe(RED), RED)


def test_rows_of_a_field_that_moves_are_in_one_square(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all months. A run that is killed in between leaves nothing twice after the next one."""
    writer = TableWriter(table, RED, {"a": "n475e0120", "b": "n475e0120"}, [].append)
    writer.add(rows_of(RED, a=0.1, b=0.2))
    writer.flush()
    table.put(("n475e0120", "202406"), rows_of(NIR, day=2, a=0.3), [NIR])
    moved = {"a": ("n475e0120", "n480e0120")}
    before, write = content(table), Table._write

    def write_once(table: Table, name: str, rows: pa.Table, keys: dict[str, Key]) -> None:
        if "n475" in name:
            raise KeyboardInterrupt
        write(table, name, rows, keys)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_write", write_once)
        with pytest.raises(KeyboardInterrupt):
            table.move(moved)
    assert len(content(table)) == len(before) + 1
    for _ in range(2):
        table.move(moved)
        assert content(table).sort_index().equals(before.sort_index())
        assert [Path(each).name for each in table.files()] == [
            "n475e0120_202405.parquet", "n480e0120_202405.parquet", "n480e0120_202406.parquet"
        ]  # fmt: skip
    stored = table.stored({"n480e0120"})
    assert {name: row.key for name, row in stored.items()} == {"a_20240501": RED, "a_20240502": NIR}


def test_all_files_have_the_same_columns(table: Table, tmp_path: Path) -> None:
    """Readers that use the columns of the first file must not lose any."""
    squares = {"a": "n475e0120", "b": "n480e0120"}
    for key, name in ((RED, "b"), (NIR, "a")):
        writer = TableWriter(table, key, squares, [].append)
        writer.add(rows_of(key, **{name: 0.1}))
        writer.flush()
    schemas = [pq.read_schema(path).names for path in sorted((tmp_path / "statistics").iterdir())]
    assert schemas[0] == schemas[1]
    found = duckdb.sql(f"select aoi, red_mean, nir_p90 from '{tmp_path}/statistics/*.parquet' order by aoi").fetchall()
    assert found == [("a", None, pytest.approx(0.1)), ("b", pytest.approx(0.1), None)]


def test_columns_after_a_kill(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.put(("n475e0120", "202405"), rows_of(RED, a=0.1), [RED])
    with monkeypatch.context() as patch:
        patch.setattr(Table, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            table.prepare(NIR.columns)
    assert table.prepare(NIR.columns) == ["nir_mean", "nir_p90", "red_mean"]
    (path,) = (tmp_path / "statistics").iterdir()
    assert pq.read_schema(path).names[7:10] == ["nir_mean", "nir_p90", "red_mean"]


def test_csv(table: Table, tmp_path: Path) -> None:
    table.put(("n475e0120", "202405"), rows_of(RED, a=0.1, b=float("nan")), [RED])
    table.put(("n480e0120", "202405"), rows_of(NIR, c=0.3), [NIR])
    assert write_csv(table) == str(tmp_path / "statistics.csv")
    found = pd.read_csv(tmp_path / "statistics.csv")
    assert found["scenes"].tolist() == ["S2A;S2B"] * 3
    assert found["red_mean"].tolist() == [
        0.1,
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(np.nan, nan_ok=True),
    ]
    assert found["date"].tolist() == ["2024-05-01"] * 3
    assert pd.to_datetime(found["time"]).tolist() == [pd.Timestamp("2024-05-01T10:20:31.024Z")] * 3
    assert [*found.columns][:7] == ["aoi", "slice", "date", "time", "cells", "clear_percent", "cloud_percent"]
    assert [*found.columns][-2:] == ["scenes", "recipe"]
