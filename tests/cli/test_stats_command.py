"""The command stats: its JSON, its exit status, and what it says to people."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from s2cube.demo.archive import PASSES, Archive
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.workers.results import SliceResult
from s2cube.zonal import tabulate
from s2cube.zonal._statistics_job import StatisticsJob
from support.runs import CommandLine, EditItems
from support.tables import Stats, files_of, rows_of, stats_of, write_fields

DAYS = [f"{each.time:%Y%m%d}" for each in PASSES]

pytestmark = pytest.mark.usefixtures("new_session")


@pytest.fixture
def stats(s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> Stats:
    return stats_of(s2cube_command, archive, tmp_path, "red")


def test_keys_of_json(stats: Stats) -> None:
    done = stats()
    assert done.status == 0, done.err
    assert set(done.json) == {"rows", "written", "skipped", "failed", "requests", "bytes"}
    assert done.json["rows"] == 9 * len(DAYS) == len(rows_of("out"))
    assert sorted(done.json["written"]) == sorted(str(path.resolve()) for path in Path("out/statistics").iterdir())
    assert (done.json["skipped"], done.json["failed"]) == ([], [])
    assert done.json["requests"] > 0
    assert f"{9 * len(DAYS)} rows written to {len(DAYS)} files in out." in done.err
    again = stats()
    assert again.status == 0
    assert sorted(again.json["skipped"]) == sorted(f"f{field}_{day}" for field in range(9) for day in DAYS)
    assert (again.json["rows"], again.json["written"], again.json["requests"], again.json["bytes"]) == (0, [], 0, 0)
    assert "No new row; 54 exist already." in again.err


def test_overwrite_computes_all_rows_again(stats: Stats) -> None:
    first = stats("--datetime", "2022-06")
    again = stats("--datetime", "2022-06", "--overwrite")
    traffic = {"requests": 0, "bytes": 0}  # what is read again comes from the cache of this process
    assert again.json | traffic == first.json | traffic | {"skipped": []}
    assert again.json["rows"] == 9


def test_csv(stats: Stats) -> None:
    done = stats("--format", "csv", "--datetime", "2022")
    assert str(Path("out/statistics.csv").resolve()) in done.json["written"]
    text, table = pd.read_csv("out/statistics.csv"), rows_of("out")
    assert list(text.columns) == list(table.columns)
    assert sorted(text["slice"]) == sorted(table["slice"])
    by_slice = table.set_index("slice")["red_mean"]
    assert dict(zip(text["slice"], text["red_mean"].astype("float32"), strict=True)) == dict(by_slice)
    assert set(text["scenes"]) == {";".join(each) for each in table["scenes"]}


@pytest.mark.parametrize(
    ("environment", "flags", "statistics"),
    [
        ({}, [], ["max", "count"]),
        ({"S2CUBE_TABLE__STATISTICS": "p10,min"}, [], ["p10", "min"]),
        ({"S2CUBE_TABLE__STATISTICS": "p10,min"}, ["--statistics", "std"], ["std"]),
    ],
)
def test_settings_of_the_environment_and_of_a_file(
    s2cube_command: CommandLine, archive: Archive, monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str], flags: list[str], statistics: list[str],
) -> None:  # fmt: skip
    Path("s2cube.toml").write_text('[table]\nstatistics = ["max", "count"]\nformat = "csv"\n')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ["--aoi", write_fields(Path("fields.parquet"), 2), "--stac", archive.items, "--bands", "red"]
    done = s2cube_command("stats", *words, "--datetime", "2022-06", *flags)
    assert done.status == 0, done.err
    columns = [name for name in rows_of("out").columns if name.startswith("red_")]
    assert columns == [f"red_{each}" for each in statistics]
    assert Path("out/statistics.csv").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--statistics", "men"], "--statistics: 'men' is not a statistic. Do you mean mean"),
        (["--statistics", "p101"], "--statistics: 'p101' is not a statistic. Choose mean"),
        (["--format", "xlsx"], "--format: 'xlsx' is unknown. Choose parquet or csv"),
        (["--bands", "red,scl"], "band 'scl': is a band of classes"),
        (["--bands", "none"], "there are neither bands nor indices"),
        (["--aoi", "nothing.parquet"], "nothing.parquet: there is no such file"),
        (["--max-aoi-cloud", "10"], "--max-aoi-cloud"),
    ],
)
def test_wrong_usage(stats: Stats, more: list[str], told: str) -> None:
    done = stats(*more)
    assert done.status == 2
    assert told in done.err
    assert len([line for line in done.err.splitlines() if not line.startswith("info:")]) == 1
    assert not Path("out/statistics").exists()


def test_no_area_is_named(s2cube_command: CommandLine, archive: Archive) -> None:
    done = s2cube_command("stats", "--stac", archive.items)
    assert done.status == 2
    assert "is not named, and there is no file aoi.geojson" in done.err


@pytest.mark.parametrize("column", ["aoi", "Date", "slice", "scenes", "recipe", "red_mean", "bbox"])
def test_a_column_is_called_as_one_of_the_table(stats: Stats, column: str) -> None:
    done = stats("--aoi", write_fields(Path("named.parquet"), 2, **{column: [1, 2]}))
    assert done.status == 2
    assert f"named.parquet: has a column '{column}', and s2cube writes a column of this name" in done.err
    assert not Path("out/statistics").exists()


def test_two_areas_of_one_name(stats: Stats) -> None:
    fields = geopandas.read_parquet(write_fields(Path("twice.parquet"), 3)).assign(name=["a", "b", "a"])
    fields.to_parquet("twice.parquet")
    done = stats("--aoi", "twice.parquet")
    assert done.status == 2
    assert "features 'a' and 'a' would both be written as 'a'" in done.err


@pytest.mark.parametrize("suffix", [".parquet", ".geojson"])
def test_an_area_without_geometry_is_named_and_the_others_go_on(stats: Stats, suffix: str) -> None:
    fields = geopandas.read_parquet(write_fields(Path("whole.parquet"), 4))
    lacking = fields.copy()
    lacking.loc[2, "geometry"] = None
    write = getattr(lacking, "to_parquet" if suffix == ".parquet" else "to_file")
    write(f"lacking{suffix}")
    done = stats("--aoi", f"lacking{suffix}", "--datetime", "2022-06")
    assert done.status == 3, done.err
    assert [each["slice"] for each in done.json["failed"]] == ["f2"]
    assert set(rows_of("out")["aoi"]) == {"f0", "f1", "f3"}
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert line.startswith("error: f2 failed: ")
    assert "feature 'f2': has an empty geometry" in line
    (entry,) = map(json.loads, Path("out/failures.jsonl").read_text().splitlines())
    assert entry["slice"] == "f2"
    again = stats("--aoi", f"lacking{suffix}", "--datetime", "2022-06")
    assert (again.status, again.json["rows"], len(again.json["skipped"])) == (3, 0, 3)
    # When the area has a geometry, it is no failure any more.
    healed = stats("--aoi", "whole.parquet", "--datetime", "2022-06")
    assert (healed.status, healed.json["rows"]) == (0, 1)
    assert not Path("out/failures.jsonl").exists()


def test_no_usable_area(stats: Stats) -> None:
    fields = geopandas.read_parquet(write_fields(Path("none.parquet"), 2))
    fields.loc[:, "geometry"] = None
    fields.to_parquet("none.parquet")
    done = stats("--aoi", "none.parquet")
    assert done.status == 2
    assert "has no usable area" in done.err


def test_areas_without_scenes_are_no_error(stats: Stats) -> None:
    done = stats("--datetime", "1999")
    assert (done.status, done.json["rows"], done.json["failed"]) == (0, 0, [])
    (line,) = [line for line in done.err.splitlines() if "No scene matched" in line]
    assert "in 1999-01-01/1999-12-31" in line


def test_an_area_beyond_the_scenes_is_left_out(stats: Stats) -> None:
    fields = geopandas.read_parquet(write_fields(Path("far.parquet"), 2))
    fields.loc[1, "geometry"] = shapely.transform(fields.geometry[1], lambda points: points + np.array([500_000, 0]))
    fields.to_parquet("far.parquet")
    done = stats("--aoi", "far.parquet")
    assert done.status == 0, done.err
    assert set(rows_of("out")["aoi"]) == {"f0"}
    assert "No scene matched" not in done.err


class TestStatus:
    def test_speaks_of_rows(self, stats: Stats, s2cube_command: CommandLine) -> None:
        stats("--datetime", "2022-06")
        asked = s2cube_command("status", "out", "--json")
        assert asked.status == 0
        assert asked.err.startswith("done: 9 of 9 rows written (")
        progress = asked.json["progress"]
        assert (progress["total"], progress["written"], progress["unit"]) == (9, 9, "rows")

    def test_of_an_area_that_failed(self, stats: Stats, s2cube_command: CommandLine) -> None:
        fields = geopandas.read_parquet(write_fields(Path("lacking.parquet"), 3))
        fields.loc[1, "geometry"] = None
        fields.to_parquet("lacking.parquet")
        stats("--aoi", "lacking.parquet", "--datetime", "2022-06")
        asked = s2cube_command("status", "out")
        assert asked.status == 3
        assert asked.err.startswith("done: 2 of 3 rows written, 1 FAILED (")

    def test_a_run_without_new_rows_is_remembered(self, stats: Stats, s2cube_command: CommandLine) -> None:
        stats()
        stats()
        assert stats("--stac", "nothing.json").status == 1
        first, second = s2cube_command("status", "out").err.splitlines()
        assert first.startswith("done: 0 of 0 rows written, 54 existed already (")
        assert second.startswith("A later run wrote nothing: failed (")
        assert "nothing.json" in second


@contextmanager
def stopped_after(days: int) -> Iterator[pytest.MonkeyPatch]:
    """Stop runs, as by Ctrl-C, after the rows of some days."""
    compute = tabulate._compute

    def some(job: StatisticsJob, lease: Lease) -> Iterator[SliceResult]:
        for number, result in enumerate(compute(job, lease)):
            if number == days:
                raise KeyboardInterrupt
            yield result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabulate, "_compute", some)
        yield patch


@pytest.fixture
def stopped() -> Iterator[pytest.MonkeyPatch]:
    """Stop runs after the rows of two days; `undo` lets them go on."""
    with stopped_after(2) as patch:
        yield patch


class TestStopped:
    def test_keeps_its_rows_and_goes_on(self, stats: Stats, stopped: pytest.MonkeyPatch) -> None:
        done = stats()
        assert done.status == 130
        assert "18 of 54 rows written" in done.err
        assert done.err.splitlines()[-1] == (
            "s2cube: stopped; written rows remain, and the same command continues from there"
        )
        assert len(rows_of("out")) == 18
        stopped.undo()
        rest = stats()
        assert rest.status == 0
        assert (rest.json["rows"], len(rest.json["skipped"])) == (36, 18)
        assert len(rows_of("out")) == 54

    def test_overwrite_goes_on_and_mixes_nothing(self, stats: Stats, stopped: pytest.MonkeyPatch) -> None:
        """All values are replaced by -1 before, so that they show which rows are written again."""
        stopped.undo()
        assert stats().status == 0
        whole, journal = files_of("out"), Path("out/.s2cube/overwrite-rows")
        for path in Path("out/statistics").iterdir():
            rows = pq.read_table(path)
            old = pa.array([-1] * rows.num_rows, pa.float32())
            pq.write_table(rows.set_column(rows.column_names.index("red_mean"), rows.field("red_mean"), old), path)
        with stopped_after(2):
            first = stats("--overwrite")
        assert first.status == 130
        said = "written rows remain, and the same command recomputes the others; a run without --overwrite leaves the"
        assert said in first.err
        assert (len(pq.read_table(journal)), old_rows()) == (18, 36)

        plain = stats()
        assert (plain.status, plain.json["rows"]) == (0, 0)
        (line,) = [line for line in plain.err.splitlines() if "--overwrite that" in line]
        assert line.startswith("warning: ")
        end = "is not finished: 18 rows are written; the others are unchanged (--overwrite recomputes them)"
        assert line.endswith(end)
        planned = stats("--overwrite", "--products", "statistics", command="plan").json
        assert (planned["rows"], planned["rows_skipped"]) == (36, 18)
        planned = stats("--overwrite", "--products", "statistics", "--mask", "none", command="plan")
        assert (planned.json["rows"], "--overwrite that" in planned.err) == (54, False)

        with stopped_after(1):
            assert stats("--overwrite").status == 130
        assert (len(pq.read_table(journal)), old_rows()) == (27, 27)
        last = stats("--overwrite")
        assert (last.status, last.json["rows"], len(last.json["skipped"])) == (0, 27, 27)
        assert "27 rows are written; this run computes the others (delete " in last.err
        assert not journal.exists()
        assert files_of("out") == whole
        assert stats("--overwrite").json["rows"] == 54

    def test_a_journal_that_cannot_be_read(self, stats: Stats, stopped: pytest.MonkeyPatch) -> None:
        assert stats("--overwrite").status == 130
        stopped.undo()
        Path("out/.s2cube/overwrite-rows").write_bytes(b"x")
        again = stats("--overwrite")
        assert "overwrite-rows cannot be read: the progress of the stopped --overwrite is unknown" in again.err
        assert (again.status, again.json["rows"]) == (0, 54)
        assert not Path("out/.s2cube/overwrite-rows").exists()


def old_rows() -> int:
    return int((rows_of("out")["red_mean"] == -1).sum())


def test_two_at_once(stats: Stats) -> None:
    with held(Output.at("out")):
        done = stats()
    assert done.status == 1
    assert "is being written by a run of" in done.err
    assert not Path("out/statistics").exists()


class TestPlanned:
    def test_rows_day_by_day(self, stats: Stats) -> None:
        planned = stats("--products", "statistics", "--headers", command="plan")
        assert planned.status == 0, planned.err
        facts = planned.json
        assert (facts["rows"], facts["rows_skipped"], facts["areas"], facts["rows_failed"]) == (54, 0, 9, [])
        assert [day.replace("-", "") for day in facts["days"]] == DAYS
        assert {each["rows"] for each in facts["days"].values()} == {9}
        for key in ("requests", "bytes"):
            assert sum(each[key] for each in facts["days"].values()) == facts[key] > 0
        assert "f0" not in planned.out
        assert "54 rows of 9 areas to do, 0 done." in planned.err
        assert not Path("out").exists()
        stats("--datetime", "2022-06")
        after = stats("--products", "statistics", command="plan").json
        assert (after["rows"], after["rows_skipped"], "2022-06-14" in after["days"]) == (45, 9, False)

    @pytest.mark.parametrize(
        ("products", "has_slices", "has_rows"),
        [
            ((), True, True),
            (("--products", "images"), True, False),
            (("--products", "images,statistics"), True, True),
            (("--products", "statistics"), False, True),
        ],
    )
    def test_products(self, stats: Stats, products: tuple[str, ...], has_slices: bool, has_rows: bool) -> None:
        facts = stats(*products, command="plan").json
        assert ("todo" in facts, "rows" in facts) == (has_slices, has_rows)

    def test_an_unknown_product(self, stats: Stats) -> None:
        done = stats("--products", "image", command="plan")
        assert done.status == 2
        assert "--products: 'image' is unknown. Choose from images, statistics, composites" in done.err

    def test_what_cannot_be_computed(self, stats: Stats, edited: EditItems) -> None:
        def spoil(items: list[dict[str, Any]]) -> None:
            for item in items:
                if "20220614" in item["id"]:
                    del item["assets"]["red"]

        words = ["--stac", edited(spoil)]
        facts = stats("--products", "statistics", *words, command="plan").json
        (failed,) = facts["rows_failed"]
        done = stats(*words)
        assert done.status == 3
        assert failed["rows"] == len(done.json["failed"]) == 9
        assert failed["error"] == done.json["failed"][0]["error"]
        assert facts["rows"] == done.json["rows"] == 45
        (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
        assert "f0_20220614 and 8 more failed: " in line
