"""Rows whose files cannot be read, or whose table cannot be written. The others are right."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from obstore.store import S3Store

from s2cube.demo.archive import Archive
from s2cube.errors import BusyError, ClusterError, WriteError
from s2cube.fetch import session
from s2cube.storage.lease import Lease
from s2cube.storage.output import Output
from s2cube.tables.table import Table
from s2cube.workers.results import SliceResult
from s2cube.zonal import tabulate
from s2cube.zonal._statistics_job import StatisticsJob
from support.buckets import names
from support.runs import CommandLine, EditItems, Outcome
from support.servers import Faulty, answer, faulty
from support.tables import Stats, files_of, rows_of, stats_of, with_damaged_tile, write_fields

DAY = "20220614"
TILE_EDGE_M = 564_580
"""East of it, there are other tiles of the demo's files of 10 m."""


@pytest.fixture
def stats(s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> Stats:
    return stats_of(s2cube_command, archive, tmp_path, "red,nir")


class TestDamagedTile:
    @pytest.mark.parametrize("command", ["stats", "run"])
    def test_rows_of_its_fields_are_missing_and_named(
        self, stats: Stats, edited: EditItems, tmp_path: Path, command: str
    ) -> None:
        # An edge of tiles crosses the fields in the middle of each row.
        fields = geopandas.read_parquet(write_fields(tmp_path / "fields.parquet", left_m=TILE_EDGE_M - 450))
        whole = stats("--out", "whole")
        assert whole.status == 0
        tile: list[tuple[float, float, float, float]] = []
        original: list[str] = []
        x, y = fields.geometry[8].centroid.coords[0]

        def damage(items: list[dict[str, Any]]) -> None:
            for item in items:
                if DAY in item["id"] and "TNL" in item["id"]:
                    href = item["assets"]["nir"]["href"]
                    original.append(href)
                    tile.append(with_damaged_tile(Path(href), tmp_path / "damaged.tif", x, y))
                    item["assets"]["nir"]["href"] = str(tmp_path / "damaged.tif")

        words = ["--stac", edited(damage)]
        done = stats(*words, "--slice-retries", 0, command=command)
        assert done.status == 3, done.err
        touched = set(fields["name"][fields.intersects(shapely.box(*tile[0]).buffer(-0.01))])
        assert touched == {"f1", "f2", "f4", "f5", "f7", "f8"}
        failed = {f"{name}_{DAY}" for name in touched}
        assert {each["slice"] for each in done.json["failed"]} == failed
        entries = pd.read_json("out/failures.jsonl", lines=True)
        assert set(entries["slice"]) == failed
        assert set(entries["asset"]) == {"nir"}
        assert {scene for each in entries["scenes"] for scene in each} == {f"S2A_14TNL_{DAY}_0_L2A"}
        expected, rows = rows_of("whole"), rows_of("out")
        assert done.json["rows"] == len(rows)
        kept = expected[~expected["slice"].isin(failed)].reset_index(drop=True)
        columns = ["aoi", "slice", "date", "cells", "clear_percent", "red_mean", "nir_mean"]
        pd.testing.assert_frame_equal(rows[columns], kept[columns])
        # The file is repaired. Other rows are not computed again.
        shutil.copyfile(original[0], tmp_path / "damaged.tif")
        healed = stats(*words, command=command)
        assert healed.status == 0, healed.err
        assert healed.json["rows"] == len(failed)
        pd.testing.assert_frame_equal(rows_of("out")[columns], expected[columns])
        assert not Path("out/failures.jsonl").exists()


@pytest.fixture
def server(archive: Archive, new_session: None) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as server:
        yield server


def test_a_temporary_fault_passes(stats: Stats, server: Faulty) -> None:
    """The server is busy for longer than one attempt of a task lasts."""
    left = [3]

    def fault(asked: Any, _: bytes) -> bytes | None:
        if "B08" in asked.path and DAY in asked.path and left[0]:
            left[0] -= 1
            return answer(503)
        return None

    server.fault = fault
    done = stats("--stac", f"{server.url}/items.json", "--retries", 0, "--slice-retries", 5)
    assert done.status == 0, done.err
    assert left == [0]
    assert "will be retried in" in done.err
    assert (done.json["rows"], done.json["failed"]) == (54, [])
    assert stats("--out", "whole").json["rows"] == 54
    values = ["slice", "red_mean", "nir_mean"]
    pd.testing.assert_frame_equal(rows_of("out")[values], rows_of("whole")[values])


def test_a_fault_that_does_not_pass_is_named(stats: Stats, server: Faulty) -> None:
    server.fault = lambda asked, _: answer(404) if "B08" in asked.path and DAY in asked.path else None
    done = stats("--stac", f"{server.url}/items.json", "--retries", 0)
    assert done.status == 3
    assert {each["slice"] for each in done.json["failed"]} == {f"f{field}_{DAY}" for field in range(9)}
    assert done.json["rows"] == 45


class TestTableInTheWay:
    @pytest.mark.parametrize("content", [b"", b"PAR1 is no Parquet", b"foreign", b"cut"])
    @pytest.mark.parametrize("more", [(), ("--overwrite",), ("--format", "csv")])
    def test_a_damaged_file_is_refused_by_name(self, stats: Stats, content: bytes, more: tuple[str, ...]) -> None:
        stats()
        path = sorted(Path("out/statistics").iterdir())[2]
        if content == b"foreign":
            pq.write_table(pa.table({"a": [1]}), path)
        else:
            path.write_bytes(path.read_bytes()[:-9] if content == b"cut" else content)
        before = files_of("out")
        done = stats("--bands", "red", *more)
        assert done.status == 2, done.err
        assert f"statistics/{path.name}: is not a table of s2cube" in done.err
        assert "Remove the file, or use verify --repair: the next run computes its rows again" in done.err
        assert files_of("out") == before
        path.unlink()
        healed = stats()
        assert (healed.status, healed.json["rows"]) == (0, 9)
        assert len(rows_of("out")) == 54

    def test_a_damaged_file_of_another_place_and_csv(self, stats: Stats) -> None:
        """Only the CSV file needs it."""
        Path("out/statistics").mkdir(parents=True)
        Path("out/statistics/n000e0000_202401.parquet").write_bytes(b"PAR1 is no Parquet")
        assert stats("--datetime", "2022-06").status == 0
        done = stats("--datetime", "2022-06", "--format", "csv")
        assert done.status == 2
        assert "n000e0000_202401.parquet: is not a table of s2cube" in done.err
        assert not Path("out/statistics.csv").exists()

    def test_damaged_areas(self, stats: Stats) -> None:
        stats("--datetime", "2022-06")
        Path("out/areas.parquet").write_bytes(b"nothing")
        before = files_of("out")
        done = stats()
        assert done.status == 2
        assert "areas.parquet: is not a file of areas of s2cube" in done.err
        assert files_of("out") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True)
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip("tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


class TestFullDisk:
    def test_ends_the_run_and_the_table_stays(self, stats: Stats, small_disk: Path) -> None:
        out = small_disk / "out"
        assert stats("--out", out, "--datetime", "2021").status == 0
        done = filled(small_disk, lambda: stats("--out", out))
        assert done.status == 1, done.err
        assert re.search(r"out/\S+: cannot be written", done.err)
        assert len(done.err.splitlines()) < 8
        assert len(rows_of(out)) >= 9
        healed = stats("--out", out)
        assert healed.status == 0, healed.err
        stats("--out", "whole")
        pd.testing.assert_frame_equal(rows_of(out), rows_of("whole"))

    def test_under_the_csv_file(self, stats: Stats, small_disk: Path) -> None:
        words = ["--out", small_disk / "out", "--statistics", ",".join(f"p{each}" for each in range(1, 30))]
        assert stats(*words).status == 0
        done = filled(small_disk, lambda: stats(*words, "--format", "csv"))
        assert done.status == 1, done.err
        assert re.search(r"statistics.csv: cannot be written .*Free", done.err.splitlines()[-1])
        assert not (small_disk / "out" / "statistics.csv").exists()
        assert stats(*words, "--format", "csv").status == 0
        assert len(pd.read_csv(small_disk / "out" / "statistics.csv")) == 54


def filled(disk: Path, work: Callable[[], Outcome]) -> Outcome:
    """Do something while a disk has 12 kB left."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 12_288))
    done = work()
    (disk / "filler").unlink()
    return done


class TestFirstErrorIsRaised:
    @pytest.mark.parametrize(
        ("first", "status", "told"),
        [
            (ClusterError("the cluster", "is lost", "Start it again"), 1, "the cluster: is lost"),
            (BusyError("out", "is written by another run now", "Wait"), 1, "is written by another run now"),
            (WriteError("a", "cannot be written (first)", "Free disk space"), 1, "a: cannot be written (first)"),
            (KeyboardInterrupt(), 130, "stopped; written rows remain"),
        ],
    )
    def test_not_that_of_writing_the_rest(
        self, stats: Stats, monkeypatch: pytest.MonkeyPatch, first: BaseException, status: int, told: str
    ) -> None:
        compute, puts = tabulate._compute, []

        def some(job: StatisticsJob, lease: Lease) -> Iterator[SliceResult]:
            yield next(iter(compute(job, lease)))
            raise first

        def put(*_: object) -> str:
            puts.append(1)
            raise WriteError("table", "cannot be written (second)", "Free disk space")

        monkeypatch.setattr(tabulate, "_compute", some)
        monkeypatch.setattr(Table, "put", put)
        done = stats()
        assert done.status == status
        assert told in done.err.splitlines()[-1]
        assert "warning: table: cannot be written (second)" in done.err
        assert len(puts) == 1

    def test_rows_are_written_before_it_is_raised(self, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
        compute = tabulate._compute

        def some(job: StatisticsJob, lease: Lease) -> Iterator[SliceResult]:
            yield next(iter(compute(job, lease)))
            raise ClusterError("the cluster", "is lost", "Start it again")

        monkeypatch.setattr(tabulate, "_compute", some)
        assert stats().status == 1
        assert len(rows_of("out")) == 9


@pytest.mark.usefixtures("keys")
class TestBucket:
    def test_table_and_areas(self, stats: Stats, s3: S3Store, tmp_path: Path) -> None:
        out = f"s3://results/{tmp_path.name}"
        done = stats("--out", out, "--format", "csv")
        assert done.status == 0, done.err
        assert stats("--format", "csv").status == 0
        files = files_of("out")
        assert names(s3, tmp_path.name) >= files.keys()
        place = Output.at(out).destination
        assert {name: place.read(name) for name in files} == files
        assert f"{out}/statistics.csv" in done.json["written"]
        again = stats("--out", out)
        assert (again.status, again.json["rows"], again.json["requests"]) == (0, 0, 0)

    @pytest.mark.parametrize("when", ["before", "while the table is written"])
    def test_that_refuses(self, stats: Stats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        out = f"s3://results/{tmp_path.name}"
        if when == "before":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKREAD")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SKREAD")
            session.reset()
        else:
            put = Table.put

            def refused(self: Table, *words: Any) -> str:
                with monkeypatch.context() as patch:
                    patch.setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
                    session.reset()
                    return put(Table(Output.at(self.output.destination.address)), *words)

            monkeypatch.setattr(Table, "put", refused)
        done = stats("--out", out, "--datetime", "2022-06")
        assert done.status == (2 if when == "before" else 1), done.err
        assert out in done.err
        assert ("AccessDenied" if when == "before" else "SignatureDoesNotMatch") in done.err
        assert "WRONGSECRET" not in done.err
        monkeypatch.undo()
