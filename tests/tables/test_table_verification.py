"""What lies in a table of statistics is what was written: `verify` finds damage, and the next run repairs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2cube.demo.archive import Archive
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.tables.verification import verify
from support.runs import CommandLine
from support.tables import Stats, files_of, stats_of

FILES = 7
"""A file for each month, and the areas."""

pytestmark = pytest.mark.usefixtures("new_session")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def stats(s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> Stats:
    return stats_of(s2cube_command, archive, tmp_path, "red,nir")


@pytest.fixture
def out(stats: Stats, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of an output that is computed once."""
    if not made:
        assert stats().status == 0
        made["out"] = Path(shutil.copytree("out", tmp_path_factory.mktemp("made") / "out"))
        shutil.rmtree("out")
    return Path(shutil.copytree(made["out"], "out"))


def first(out: Path) -> Path:
    return min((out / "statistics").glob("*.parquet"))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write other rows, as a program would that is not s2cube. Their pages are whole."""
    pq.write_table(change(pq.read_table(path)), path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a-bit": (flip, "is not a table of s2cube, or it is damaged"),
    "an-end": (cut, "is not a table of s2cube, or it is damaged"),
    "all": (empty, "is not a table of s2cube, or it is damaged"),
    "order": (lambda path: rewrite(path, lambda rows: rows.take([1, 0, *range(2, 9)])), "is not sorted"),
    "twice": (lambda path: rewrite(path, lambda rows: rows.take([0, *range(9)])), "has a slice twice"),
    "column": (lambda path: rewrite(path, lambda rows: rows.drop_columns(["nir_mean"])), "has other columns"),
    "type": (
        lambda path: rewrite(path, lambda rows: rows.set_column(4, "cells", rows["cells"].cast("float32"))),
        "has other columns",
    ),
    "recipe": (
        lambda path: rewrite(path, lambda rows: rows.set_column(len(rows.schema) - 1, "recipe", rows["slice"])),
        "has rows whose recipe is damaged",
    ),
    "keys": (
        lambda path: rewrite(path, lambda rows: rows.replace_schema_metadata(None)), "has rows whose recipe is damaged"
    ),
    "month": (lambda path: shutil.copy(max(path.parent.glob("*.parquet")), path), "has rows of another month"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_repaired(stats: Stats, s2cube_command: CommandLine, out: Path, damage: str) -> None:
    whole, path = files_of(out), first(out)
    change, why = DAMAGE[damage]
    change(path)
    name = f"statistics/{path.name}"
    found = s2cube_command("verify", "out", "--json")
    assert found.status == 3
    assert found.json == {"checked": FILES, "missing": [], "broken": [name], "unverified": []}
    assert f"error: {name} {why}" in found.err
    repaired = s2cube_command("verify", "out", "--json", "--repair")
    assert (repaired.status, repaired.json, path.exists()) == (3, found.json, False)
    assert f"{name} was deleted; the next run computes its rows again" in repaired.err
    assert s2cube_command("verify", "out").status == 0
    again = stats()
    assert (again.status, again.json["rows"], len(again.json["skipped"])) == (0, 9, 45)
    assert files_of(out) == whole


def test_every_byte_of_the_pages_counts(out: Path) -> None:
    """Of the rest of the file, the names and recipes are compared. What readers skip may differ: they read the same."""
    path, output = first(out), Output.at(out)
    whole = path.read_bytes()
    rows, end = pq.read_table(path), len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    assert verify(output).is_whole
    for at in range(4, end, 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not verify(output).is_whole or pq.read_table(path).equals(rows), at


def test_a_run_does_not_merge_damaged_rows(stats: Stats, out: Path) -> None:
    """Otherwise the damage would get a new checksum."""
    flip(first(out))
    refused = stats("--statistics", "max")
    assert refused.status == 2
    assert "or it is damaged" in refused.err
    assert "verify --repair" in refused.err


def test_areas(stats: Stats, s2cube_command: CommandLine, out: Path) -> None:
    areas = out / "areas.parquet"
    whole = areas.read_bytes()
    flip(areas)
    found = s2cube_command("verify", "out", "--json", "--repair")
    assert (found.status, found.json["broken"], found.json["checked"]) == (3, ["areas.parquet"], FILES)
    assert "areas.parquet was deleted; the next run writes its areas" in found.err
    assert s2cube_command("verify", "out", "--json").json["missing"] == ["areas.parquet"]
    assert stats().status == 0
    assert areas.read_bytes() == whole
    rewrite(areas, lambda rows: rows.take([0, 0, 1]))
    assert "areas.parquet has an area twice" in s2cube_command("verify", "out").err
    flip(areas)
    assert stats().status == 2


def test_other_files_are_left_alone(s2cube_command: CommandLine, out: Path) -> None:
    mine = out / "statistics" / "mine.parquet"
    mine.write_bytes(b"x")
    found = s2cube_command("verify", "out", "--json", "--repair", "-v")
    assert (found.status, found.json["unverified"], mine.exists()) == (0, ["statistics/mine.parquet"], True)
    assert "statistics/mine.parquet is no file of the table" in found.err


def test_a_run_that_was_killed_while_it_added_columns(s2cube_command: CommandLine, out: Path) -> None:
    """The next run gives all files the same columns. Their rows are whole."""
    record = out / ".s2cube/statistics-columns"
    columns = json.loads(record.read_text())["columns"]
    record.write_text(json.dumps({"columns": [*columns, "red_max"], "is_complete": True}))
    assert len(s2cube_command("verify", "out", "--json").json["broken"]) == FILES - 1
    record.write_text(json.dumps({"columns": [*columns, "red_max"], "is_complete": False}))
    assert s2cube_command("verify", "out", "--json").json["broken"] == []


def test_repair_waits_for_a_run(s2cube_command: CommandLine, out: Path) -> None:
    flip(first(out))
    with held(Output.at(out)):
        assert s2cube_command("verify", "out").status == 3
        assert s2cube_command("verify", "out", "--repair").status == 1
    assert first(out).exists()


def no_row(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def other_number(path: Path) -> None:
    text = path.read_text()
    at = next(at for at in range(len(text) - 1, 0, -1) if text[at] in "12345678")
    path.write_text(f"{text[:at]}{int(text[at]) + 1}{text[at + 1 :]}")


def more(path: Path) -> None:
    path.write_text(path.read_text() + "more\n")


@pytest.mark.parametrize("change", [cut, empty, no_row, other_number, more])
def test_a_csv_file_that_differs_from_the_table(
    stats: Stats, s2cube_command: CommandLine, out: Path, change: Callable[[Path], None]
) -> None:
    assert stats("--format", "csv").status == 0
    whole, path = files_of(out), out / "statistics.csv"
    assert s2cube_command("verify", "out", "--json").json["checked"] == FILES + 1
    change(path)
    found = s2cube_command("verify", "out", "--json")
    assert (found.status, found.json["broken"]) == (3, ["statistics.csv"])
    assert "error: statistics.csv has other content than the table" in found.err
    with held(Output.at(out)):
        # The run that holds the lease writes it after the table.
        assert verify(Output.at(out)).flaws == ()
    repaired = s2cube_command("verify", "out", "--json", "--repair")
    assert repaired.json == found.json
    assert "statistics.csv was written again, from the table" in repaired.err
    assert files_of(out) == whole
    assert s2cube_command("verify", "out").status == 0


def test_a_csv_file_of_a_damaged_table_is_written_from_the_rest(
    stats: Stats, s2cube_command: CommandLine, out: Path
) -> None:
    assert stats("--format", "csv").status == 0
    whole, path = files_of(out), out / "statistics.csv"
    flip(first(out))
    assert s2cube_command("verify", "out", "--repair").status == 3
    assert len(path.read_text().splitlines()) == 1 + 45
    assert s2cube_command("verify", "out").status == 0
    assert stats().json["rows"] == 9
    assert files_of(out) == whole
