"""What `sync` and `status` say of passes that end in different ways. A function takes the place of the pass itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.demo.archive import Archive
from s2cube.errors import BusyError, SearchError, WriteError
from s2cube.storage.folder import Folder
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.updates._failed_passes import failures_noted
from s2cube.updates._hook import NOT_RUN
from s2cube.updates.pass_record import Pass, append_pass, read_passes
from support.runs import CommandLine, Outcome

SIGNED = "https://example.org/search?sig=secret127"
OUTAGE = SearchError(SIGNED, "answers 503", "Try again later")
Sync = Callable[..., Outcome]
PassOf = Callable[[Output], Pass]


def quiet(_: Output) -> Pass:
    now = timestamp()
    return Pass(now, now, found=6)


def busy(output: Output) -> Pass:
    """Write a file as a pass does."""
    output.destination.put("corner/a/a.tif", b"pixels")
    output.destination.put("corner/a/a.json", b"{}")
    output.destination.put("corner/ab/ab.tif", b"of an earlier pass")
    path = output.path("corner", "a")
    return replace(quiet(output), new=("s1",), written=("a",), files=(path,))


def failing(error: Exception) -> PassOf:
    def fail(_: Output, *_others: object, **_named: object) -> Pass:
        raise error

    return fail


@pytest.fixture
def sync(
    s2cube_command: CommandLine, small_aoi: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Sync:
    monkeypatch.chdir(tmp_path)

    def call(made_by: PassOf, *words: str) -> Outcome:
        def make_pass(config: JobConfig, _: object) -> Pass:
            with held(Output.at(config.job.out)) as lease:
                made = made_by(lease.output)
                append_pass(lease.output.destination, made)
            return made

        monkeypatch.setattr("s2cube.updates.sync.make_pass", make_pass)
        return s2cube_command("sync", "--aoi", small_aoi, "--stac", archive.items, "--json", *words)

    return call


def passes() -> list[Pass]:
    return read_passes(Output.at(Path("out")).destination)


def announce(due: datetime) -> None:
    content = json.dumps({"where": "m process 1", "next": timestamp(due)}).encode()
    destination = Output.at(Path("out")).destination
    destination.prepare()
    destination.put(".s2cube/sync", content)


class TestPasses:
    def test_one_that_fails_and_the_next_that_works(self, sync: Sync, s2cube_command: CommandLine) -> None:
        failed = sync(failing(OUTAGE))
        assert failed.status == 1
        assert not failed.out
        assert "answers 503" in failed.err
        asked = s2cube_command("status", "--json")
        assert asked.status == 1
        assert "it could not be made: https://example.org/search" in asked.err
        assert "answers 503" in asked.json["sync"]["last"]["error"]
        assert sync(busy).status == 0
        assert s2cube_command("status").status == 0
        assert [bool(each.error) for each in passes()] == [True, False]
        assert "secret127" not in Path("out/sync.jsonl").read_text() + failed.err + asked.err

    def test_one_that_fails_after_one_that_works(self, sync: Sync, s2cube_command: CommandLine) -> None:
        assert sync(busy).status == 0
        assert sync(failing(OUTAGE)).status == 1
        assert s2cube_command("status").status == 1

    def test_a_fault_that_nobody_expects(self, sync: Sync) -> None:
        assert sync(failing(ZeroDivisionError(f"at {SIGNED}"))).status == 1
        assert "secret127" not in passes()[0].error
        assert passes()[0].error.startswith("at https")

    def test_one_that_fails_before_there_is_an_output(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SearchError), failures_noted(Output.at(Path("new"))):
            raise OUTAGE
        assert "answers 503" in Path("new/sync.jsonl").read_text()

    def test_another_run_is_no_failure_of_the_output(self, sync: Sync) -> None:
        assert sync(failing(BusyError("out", "is being written", "Wait"))).status == 1
        assert passes() == []

    def test_a_mistake_in_the_first_command_makes_no_output(self, sync: Sync) -> None:
        assert sync(quiet, "--aoi", "missing.gpkg", "--every", "soon").status == 2
        assert not Path("out").exists()

    def test_failed_slices(self, sync: Sync) -> None:
        assert sync(lambda output: replace(quiet(output), failed=("a",))).status == 3


class TestHook:
    def test_it_gets_the_pass_and_the_files(self, sync: Sync) -> None:
        made = sync(busy, "--on-change", "cat > seen")
        assert (made.status, made.json["hook"]) == (0, 0)
        seen = json.loads(Path("seen").read_text())
        assert seen["changed"] == ["corner/a/a.json", "corner/a/a.tif"]
        assert seen["written"] == ["a"]
        assert [each.hook for each in passes()] == [0]

    def test_it_does_not_run_if_nothing_changed(self, sync: Sync) -> None:
        made = sync(quiet, "--on-change", "touch seen")
        assert (made.status, "hook" in made.json) == (0, False)
        assert not Path("seen").exists()

    def test_a_removed_slice_is_a_change(self, sync: Sync) -> None:
        made = sync(lambda output: replace(quiet(output), removed=("a",)), "--on-change", "cat > seen")
        assert made.json["hook"] == 0
        assert json.loads(Path("seen").read_text())["removed"] == ["a"]

    @pytest.mark.parametrize("command", ["exit 5", "echo password127; kill -9 $$", "exec no-such-program"])
    def test_it_fails(self, sync: Sync, s2cube_command: CommandLine, command: str) -> None:
        assert sync(quiet).status == 0
        failed = sync(busy, "--on-change", command)
        assert failed.status == 3
        assert failed.json["hook"] == {"exit": 5, "echo": -9, "exec": 127}[command.split()[0]]
        assert "password127" not in failed.err + Path("out/sync.jsonl").read_text()
        assert Path("out/corner/a/a.tif").exists()
        # The line of the pass before it stays.
        assert [each.hook for each in passes()] == [None, failed.json["hook"]]
        assert s2cube_command("status").status == 3

    def test_an_output_that_cannot_be_listed(self, sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Folder, "sizes", failing(WriteError("out", "cannot be listed", "Check it")))
        made = sync(busy, "--on-change", "touch seen")
        assert "the command did not run: out: cannot be listed" in made.err
        assert (made.status, made.json["hook"]) == (3, NOT_RUN)
        assert not Path("seen").exists()

    def test_another_run_has_begun_meanwhile(self, sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
        def held_by_another(*_: object, **__: object) -> None:
            raise BusyError("out", "is being written", "Wait")

        monkeypatch.setattr("s2cube.updates._hook.held", held_by_another)
        made = sync(busy, "--on-change", "exit 5")
        assert (made.status, made.json["hook"]) == (3, 5)
        assert "its exit status is not in sync.jsonl: out: is being written" in made.err
        assert [each.hook for each in passes()] == [None]


class TestStatus:
    def test_what_was_late_and_what_is_pending(self, sync: Sync, s2cube_command: CommandLine) -> None:
        late = tuple(f"late{number}" for number in range(12))
        sync(lambda output: replace(busy(output), late=late, pending=("p1",)))
        asked = s2cube_command("status", "--json")
        assert asked.status == 0
        assert "6 scenes, of these 1 new, 12 late, 1 pending: 1 written" in asked.err
        assert "late: late0, " in asked.err
        assert "late9 and 2 more" in asked.err
        assert "pending: p1" in asked.err
        assert asked.json["sync"]["last"]["late"] == list(late)

    def test_the_next_pass_before_the_first(self, sync: Sync, s2cube_command: CommandLine) -> None:
        due = datetime.now(UTC) + timedelta(hours=1)
        announce(due)
        asked = s2cube_command("status", "--json")
        assert (asked.status, asked.json) == (0, {"sync": {"next": timestamp(due)}})
        assert "by m process 1" in asked.err
        assert "overdue" not in asked.err

    def test_a_pass_that_is_overdue(self, sync: Sync, s2cube_command: CommandLine) -> None:
        sync(quiet)
        announce(datetime.now(UTC) - timedelta(minutes=5))
        asked = s2cube_command("status")
        assert asked.status == 1
        assert "overdue" in asked.err
        # A pass that takes long is not.
        with held(Output.at(Path("out"))):
            asked = s2cube_command("status")
        assert (asked.status, "overdue" in asked.err) == (0, False)

    @pytest.mark.parametrize("line", ["{", "[]", '{"started": "soon", "ended": "later"}', '{"started": 3}'])
    def test_a_line_that_cannot_be_read(self, sync: Sync, s2cube_command: CommandLine, line: str) -> None:
        sync(quiet)
        with Path("out/sync.jsonl").open("a") as file:
            file.write(f"{line}\n")
        asked = s2cube_command("status", "--json")
        assert asked.status == 0
        assert "1 lines cannot be read" in asked.err
        assert asked.json["sync"]["last"]["found"] == 6
