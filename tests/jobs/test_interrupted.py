"""What a run leaves that did not end, or did not begin: how far an --overwrite came, and the record of the last run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2cube.jobs.pipeline
from s2cube.config.loading import load_config
from s2cube.config.times import timestamp
from s2cube.demo.archive import Archive
from s2cube.errors import WriteError
from s2cube.jobs._overwrite import interrupted, journal
from s2cube.jobs.job import Job, plan_job, without_overwritten
from s2cube.storage.layout import FAILURES, OVERWRITE, RUN
from s2cube.storage.lease import Lease, held, read_record
from s2cube.storage.output import Output
from s2cube.storage.record import Attempt, Progress, Record
from s2cube.workers.results import SliceResult
from support.runs import CORNER_DAYS as DAYS
from support.runs import CommandLine, Outcome, Run, edit
from support.servers import faulty

_compute = s2cube.jobs.pipeline._compute


def stems(done: Outcome) -> list[str]:
    return [Path(path).stem for path in done.json["written"]]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stop runs, as by Ctrl-C, after so many slices; none, where the list is empty."""
    after: list[int] = []

    def stopped(job: Job, lease: Lease) -> Iterator[SliceResult]:
        for number, result in enumerate(_compute(job, lease)):
            if after and number == after[0]:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr("s2cube.jobs.pipeline._compute", stopped)
    return after


class TestOverwrite:
    def test_goes_on_where_the_last_one_was_stopped(self, run: Run, out: Path, stop: list[int]) -> None:
        stop.append(2)
        first = run("--overwrite")
        assert first.status == 130
        assert "the same command recomputes the others; a run without --overwrite leaves the old images" in first.err
        begun = json.loads((out / OVERWRITE).read_text())
        assert len(begun["slices"]) == 2
        assert begun["total"] == len(DAYS)

        # A plan says the same, and neither that nor a run without the flag changes anything.
        planned = run("--overwrite", command="plan")
        assert sorted(planned.json["skipped"]) == sorted(begun["slices"])
        plain = run()
        assert plain.json["written"] == []
        (line,) = [line for line in plain.err.splitlines() if "--overwrite that" in line]
        assert line.startswith("warning: out: an --overwrite that began ")
        end = "is not finished: 2 of 6 slices are written; the others are unchanged (--overwrite recomputes them)"
        assert line.endswith(end)

        # Stopped again, it still knows both.
        stop[0] = 1
        assert run("--overwrite").status == 130
        assert len(json.loads((out / OVERWRITE).read_text())["slices"]) == 3
        assert json.loads((out / OVERWRITE).read_text())["began"] == begun["began"]

        stop.clear()
        before = {path: path.stat().st_mtime_ns for path in out.glob("corner/*/*.tif")}
        last = run("--overwrite")
        assert last.status == 0, last.err
        assert len(stems(last)) == 3
        assert not set(stems(last)) & set(begun["slices"])
        assert sorted(stems(last) + last.json["skipped"]) == sorted(DAYS)
        changed = {path.parent.name for path, mtime in before.items() if path.stat().st_mtime_ns != mtime}
        assert changed == set(stems(last))
        assert "this run computes the others (delete" in last.err
        assert "3 were written before the run stopped" in last.err
        assert not (out / OVERWRITE).exists()

        # It is over: the next one makes all.
        assert len(stems(run("--overwrite"))) == len(DAYS)
        assert "--overwrite that" not in run().err

    def test_killed_it_knows_what_it_has_made(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, scheduler: str, tmp_path: Path
    ) -> None:
        with faulty(archive.items.parent) as slow:
            words = ["--aoi", corner, "--stac", f"{slow.url}/items.json", "--scheduler", scheduler, "--bands", "blue"]
            # At 5 m, days are so large that they are not read together.
            words += ["--out", tmp_path / "out", "--resolution", 5, "--json"]
            assert s2cube_command("run", *words).status == 0
            slow.fault = lambda *_: time.sleep(0.1)  # type: ignore[func-returns-value]
            command = [sys.executable, "-m", "s2cube", "run", "--overwrite", *map(str, words)]
            going = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

            def made() -> list[str]:
                try:
                    return list(json.loads(Path("out", OVERWRITE).read_bytes())["slices"])
                except FileNotFoundError:
                    return []

            deadline = time.monotonic() + 60
            while not made() and time.monotonic() < deadline:
                time.sleep(0.02)
            os.killpg(going.pid, signal.SIGKILL)
            going.wait()
            done = made()
            assert 1 <= len(done) < len(DAYS)
            slow.fault = lambda *_: None
            healed = s2cube_command("run", "--overwrite", *words)
        assert healed.status == 0, healed.err
        assert sorted(stems(healed)) == sorted(set(DAYS) - set(done))

    def test_what_failed_is_what_is_left(self, run: Run, out: Path, archive: Archive, tmp_path: Path) -> None:
        """Its old image is there, so that a run without the flag would not make it."""
        items = json.loads(archive.items.read_text())
        for item in items["features"]:
            for asset in item["assets"].values():
                asset["href"] = str(archive.items.parent / asset["href"])
        stac = tmp_path / "items.json"
        stac.write_text(json.dumps(items))
        assert run("--stac", stac, "--overwrite", "--slice-retries", 0).status == 0
        blue = Path(items["features"][0]["assets"]["blue"]["href"])
        blue.rename(tmp_path / "away")
        try:
            failed = run("--stac", stac, "--overwrite", "--slice-retries", 0)
        finally:
            (tmp_path / "away").rename(blue)
        assert failed.status == 3
        assert len(failed.json["written"]) == len(DAYS) - 1
        assert "is not finished: 5 of 6 slices are written; the others are unchanged" in run("--stac", stac).err
        healed = run("--stac", stac, "--overwrite")
        assert stems(healed) == [failed.json["failed"][0]["slice"]]
        assert not (out / OVERWRITE).exists()

    @pytest.mark.parametrize(
        "other", [["--compress", "zstd"], ["--datetime", "2022"], ["--max-items", "20"], ["--resolution", "60"]]
    )
    def test_another_job_begins_anew(self, run: Run, out: Path, stop: list[int], other: list[str]) -> None:
        stop.append(2)
        assert run("--overwrite").status == 130
        stop.clear()
        begun = (out / OVERWRITE).read_bytes()
        assert "--overwrite that" not in run(*other, command="plan").err
        anew = run("--overwrite", *other)
        assert anew.json["skipped"] == []
        assert "--overwrite that" not in anew.err
        assert not (out / OVERWRITE).exists() or (out / OVERWRITE).read_bytes() == begun

    def test_what_does_not_decide_what_is_written_is_no_other_job(self, run: Run, out: Path, stop: list[int]) -> None:
        stop.append(2)
        assert run("--overwrite").status == 130
        stop.clear()
        assert len(stems(run("--overwrite", "--retries", 1, "--slice-retries", 1, "--timeout", 30))) == 4

    def test_a_slice_whose_file_has_gone_is_made_though_it_was(self, run: Run, out: Path, stop: list[int]) -> None:
        stop.append(2)
        assert run("--overwrite").status == 130
        stop.clear()
        done = json.loads((out / OVERWRITE).read_text())["slices"]
        (out / "corner" / done[0] / f"{done[0]}.png").unlink()
        healed = run("--overwrite")
        assert sorted(stems(healed)) == sorted(set(DAYS) - {done[1]})
        assert not (out / OVERWRITE).exists()

    def test_a_worker_that_takes_over_leaves_out_what_was_made(self, archive: Archive, corner: Path, out: Path) -> None:
        """As `submit` has it: the job was planned once, and the worker that looked after it has died."""
        flags = {"aoi": corner, "stac": str(archive.items), "bands": "blue", "out": out, "overwrite": True}
        job = plan_job(load_config(flags, {}), Output.at("out"))
        assert len(job.todo) == len(DAYS)
        with held(job.output) as lease, journal(lease.output, job.digest, DAYS) as kept:
            kept.add(SliceResult(DAYS[1], path="x"))
        left = without_overwritten(job)
        assert [task.id for task in left.todo] == [DAYS[0], *DAYS[2:]]
        assert left.skipped == (DAYS[1],)

    def test_who_has_lost_the_output_leaves_the_journal_alone(self, tmp_path: Path) -> None:
        with held(Output.at(tmp_path)) as lease:
            keeping = journal(lease.output, "a", ["x", "y"])
            keeping.__enter__().add(SliceResult("x", path="x"))
            (tmp_path / OVERWRITE).unlink()
            edit(tmp_path / RUN, lambda record: record.update(run="another"))
            assert not keeping.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert not (tmp_path / OVERWRITE).exists()

    @pytest.mark.parametrize("folder", [True, False])
    def test_writing_it_down_takes_little_time(
        self, tmp_path: Path, keys: None, folder: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many slices there are, and however slow the store is."""
        output = Output.at(tmp_path / "out" if folder else f"s3://results/{tmp_path.name}")
        ids = [f"slice{number}" for number in range(300)]
        place, puts = type(output.destination), []
        put = place.put

        def slow(self: object, name: str, content: bytes | Path) -> None:
            if name == OVERWRITE and isinstance(content, bytes):
                time.sleep(0.05)
                puts.append(name)
            put(self, name, content)  # type: ignore[arg-type]

        monkeypatch.setattr(place, "put", slow)
        with held(output) as lease:
            began_s = time.monotonic()
            with journal(lease.output, "a", [*ids, "last"]) as kept:
                for slice_id in ids:
                    kept.add(SliceResult(slice_id, path="x"))
            took_s = time.monotonic() - began_s
        assert len(puts) <= 2 + took_s
        begun = interrupted(output, "a")
        assert begun
        assert list(begun.slices) == ids
        assert interrupted(output, "b") is None

    @pytest.mark.usefixtures("keys")
    def test_in_a_bucket(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, tmp_path: Path, stop: list[int]
    ) -> None:
        words = ["--aoi", corner, "--stac", archive.items, "--bands", "blue", "--json", "--workers", "1"]
        words += ["--out", f"s3://results/{tmp_path.name}", "--max-items", "4"]
        assert s2cube_command("run", *words).status == 0
        stop.append(1)
        assert s2cube_command("run", *words, "--overwrite").status == 130
        stop.clear()
        healed = s2cube_command("run", *words, "--overwrite")
        assert healed.status == 0, healed.err
        assert len(healed.json["skipped"]) == 1
        assert len(healed.json["written"]) >= 1
        assert Output.at(f"s3://results/{tmp_path.name}").destination.read(OVERWRITE) is None


class TestBeforeItBegins:
    @pytest.mark.parametrize(
        ("wrong", "status", "told"),
        [
            (["--stac", "nothing.json"], 1, "nothing.json"),
            (["--stac", "http://127.0.0.1:9"], 1, "127.0.0.1:9"),
            (["--aoi", "nothing.geojson"], 2, "nothing.geojson: there is no such file"),
            (["--scheduler", "tcp://127.0.0.1:9", "--overwrite"], 1, "no Dask scheduler answers"),
            (["--class", "nothing.Cluster", "--workers", "1", "--scheduler", "", "--overwrite"], 2, "--class"),
        ],
    )
    def test_a_run_that_fails_leaves_the_record_of_the_last_one(
        self, run: Run, s2cube_command: CommandLine, out: Path, wrong: list[str], status: int, told: str
    ) -> None:
        before = json.loads((out / RUN).read_text())
        (out / FAILURES).write_text('{"slice": "corner_20210724"}\n')
        failed = run(*wrong)
        assert failed.status == status
        assert told in failed.err
        after = json.loads((out / RUN).read_text())
        attempt = after.pop("attempt")
        assert after == before
        assert told.partition(":")[0] in attempt["ended"]
        assert attempt["ended"].startswith("failed (")
        assert (out / FAILURES).exists()

        asked = s2cube_command("status", "out", "--json")
        assert asked.status == 0
        assert asked.json["state"] == "done"
        assert asked.json["progress"]["written"] == len(DAYS)
        assert asked.json["attempt"] == attempt
        first, second = asked.err.splitlines()
        assert first.startswith("done: 6 of 6 slices written (")
        assert second.startswith("A later run wrote nothing: failed (")

        # The output is free, and the next run that makes something, or finds all there, has its own record.
        with held(Output.at("out")):
            pass
        assert run().status == 0
        assert "attempt" not in json.loads((out / RUN).read_text())
        assert not (out / FAILURES).exists()

    def test_many_that_fail_leave_it_too(self, run: Run, s2cube_command: CommandLine, out: Path) -> None:
        for stac in ("one.json", "two.json", "three.json"):
            assert run("--stac", stac).status == 1
        record = read_record(Output.at("out"))
        assert record
        assert record.progress.written == len(DAYS)
        assert record.attempt
        assert "three.json" in record.attempt.ended
        assert record.before is None

    def test_the_first_of_all_is_told_as_what_it_is(self, run: Run, s2cube_command: CommandLine) -> None:
        assert run("--stac", "nothing.json").status == 1
        asked = s2cube_command("status", "out")
        assert asked.status == 1
        assert "failed (" in asked.err
        assert "nothing.json" in asked.err
        assert "A later run" not in asked.err

    def test_stopped_while_it_searches(
        self, run: Run, s2cube_command: CommandLine, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("s2cube.jobs.job.open_catalogue", stopped)
        assert run().status == 130
        asked = s2cube_command("status", "out")
        assert asked.status == 0
        assert asked.err.startswith("done: 6 of 6 slices written (")
        assert "A later run wrote nothing: stopped" in asked.err

    def test_killed_while_it_searches(self, run: Run, s2cube_command: CommandLine, out: Path) -> None:
        code = (
            "import os, signal, sys; from s2cube.storage.lease import Lease; from s2cube.storage.output import Output;"
        )
        code += "Lease(Output.at('out')).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], check=False)
            asked = s2cube_command("status", "out", "--json")
            assert asked.status == 0
            assert asked.json["progress"]["written"] == len(DAYS)
            assert asked.err.startswith("done: 6 of 6 slices written (")
            assert "A later run wrote nothing: failed (no heartbeat" in asked.err
        assert run().status == 0
        assert "later" not in s2cube_command("status", "out").err

    def test_while_it_searches_the_run_itself_is_told(self, s2cube_command: CommandLine, out: Path) -> None:
        with held(Output.at("out"), ends_as=None):
            asked = s2cube_command("status", "out", "--json")
        assert asked.status == 0
        assert asked.json["alive"] is True
        assert asked.err.startswith("running (no slice has begun yet): 0 of 0 slices written, ")

    def test_a_dead_run_that_a_failed_one_followed_holds_nobody_up(self, tmp_path: Path) -> None:
        """Who waits for a sign of life of the dead one is not to take its record, put back, for one."""
        output = Output.at(tmp_path / "out")
        with held(output) as lease:
            lease.progress = Progress(total=3, written=1, began=timestamp())
        edit(tmp_path / "out" / RUN, lambda record: record.update(state="running", pid=2**22 + 1))
        with pytest.raises(WriteError), held(output):
            raise WriteError("a", "b", "c")
        record = read_record(output)
        assert record
        assert record.state == "failed"
        assert record.description.startswith("failed (no heartbeat since ")
        assert record.progress.written == 1
        assert record.attempt

    def test_a_notebook_that_writes_has_a_record(self, archive: Archive, tmp_path: Path) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        cube = s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items), datetime="2021"), aoi, bands=["blue"])
        s2cube.write_cogs(cube, tmp_path / "out")
        record = read_record(Output.at(tmp_path / "out"))
        assert record
        assert (record.state, record.progress.written, record.progress.total) == ("done", 1, 1)


class TestTold:
    def test_failures_are_not_done(
        self, s2cube_command: CommandLine, run: Run, archive: Archive, tmp_path: Path
    ) -> None:
        items = json.loads(archive.items.read_text())
        for item in items["features"]:
            del item["assets"]["blue"]
        stac = tmp_path / "lacking.json"
        stac.write_text(json.dumps(items))
        failed = run("--stac", stac)
        assert failed.status == 3
        asked = s2cube_command("status", "out", "--json")
        assert asked.status == 3
        assert asked.err.startswith("done: 0 of 6 slices written, 6 FAILED (")
        assert asked.json["progress"]["written"] == 0
        assert asked.json["progress"]["failed"] == 6

    def test_ctrl_c_tells_what_is_written_and_what_failed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def some(job: Job, lease: Lease) -> Iterator[SliceResult]:
            from s2cube.workers.results import failed

            yield SliceResult("a", path="a")
            yield failed(job.todo[1], ValueError("x"))
            raise KeyboardInterrupt

        monkeypatch.setattr("s2cube.jobs.pipeline._compute", some)
        done = run()
        assert done.status == 130
        assert "1 of 6 slices written, 1 FAILED" in done.err
        assert "s2cube: stopped; written slices remain, and the same command continues from there" in done.err

    def test_a_stopped_search_tells_of_no_slices(
        self, s2cube_command: CommandLine, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt(15)

        monkeypatch.setattr("s2cube.scenes.search.open_source", stopped)
        done = s2cube_command("search", "--aoi", archive.aoi)
        assert done.status == 143
        assert done.err.splitlines()[-1] == "s2cube: stopped"

    def test_status_gives_the_time_of_this_machine(
        self, s2cube_command: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """JSON stays in UTC."""
        later = Attempt("x:2", "2024-07-01T00:00:00Z", "failed")
        record = Record("a", "stopped", "x:1", "m", 1, "2024-01-31T22:30:00Z", "2024-01-31T23:00:00Z", attempt=later)
        Output.at(Path("out")).destination.prepare()
        Output.at(Path("out")).destination.put(RUN, record.to_json())
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        asked = s2cube_command("status", "out", "--json")
        monkeypatch.undo()
        time.tzset()
        assert asked.err.splitlines() == [
            "stopped (run again to continue): 0 of 0 slices written (x:1, began 2024-01-31 23:30:00+01:00)",
            "A later run wrote nothing: failed (x:2, began 2024-07-01 02:00:00+02:00)",
        ]
        assert (asked.json["started"], asked.json["state"]) == ("2024-01-31T22:30:00Z", "stopped")

    def test_a_record_of_a_rate(self) -> None:
        made = Progress(total=10, written=1, failed=1, began="2020-01-01T00:00:00Z")
        record = Record("a", "running", "x", "y", 1, "2020-01-01T00:00:00Z", "2020-01-01T00:00:10Z", progress=made)
        assert record.pace == pytest.approx(0.2)
        assert record.left_s == pytest.approx(40)
