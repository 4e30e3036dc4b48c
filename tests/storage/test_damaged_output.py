"""Whatever lies in an output, edited, half written or no file at all: it ends nothing, and no link is followed."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2cube.cli._reports import report_record
from s2cube.config.times import timestamp
from s2cube.demo.archive import Archive
from s2cube.errors import BusyError, OutputError, WriteError
from s2cube.output.catalog import write_catalog
from s2cube.output.verification import verify
from s2cube.storage.image_item import ImageItem
from s2cube.storage.layout import CATALOG, FAILURES, OVERWRITE, RUN
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.storage.record import Record
from support.runs import CORNER_DAYS as DAYS
from support.runs import CommandLine, Run, edit, file
from support.servers import faulty

DEEP = b"[" * 100_000 + b"]" * 100_000

JUNK: dict[str, bytes] = {
    "empty": b"",
    "half written": b'{"type": "Feature", "id": "corner',
    "binary": bytes(range(256)) * 10,
    "deep": DEEP,
    "a list": b"[]",
    "a number": b"5",
    "text": b'"corner"',
    "null": b"null",
    "no UTF-8": b'{"type": "\xff"}',
    "UTF-16": '{"type": "Feature"}'.encode("utf-16"),
    "too large a number": b'{"type": ' + b"9" * 5000 + b"}",
}


def member(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Put a value in place of a member."""

    def change(content: dict[str, Any]) -> None:
        *way, last = path.split("/")
        for part in way:
            content = content[part]
        content[last] = value

    return change


MEMBERS: list[tuple[str, object]] = [
    ("type", "Catalog"), ("type", 5), ("id", 5), ("id", "another"), ("id", "\ud800"), ("collection", None),
    ("collection", "other"), ("stac_version", 1.1), ("stac_extensions", "x"), ("geometry", None),
    ("geometry", {"coordinates": []}), ("geometry/type", "Point"), ("geometry/coordinates", [[[0, 0], [1, 1]]]),
    ("geometry/coordinates", [[[0, None], [1, 1], [1, 0], [0, 0]]]), ("geometry/coordinates", "POLYGON"),
    ("geometry/coordinates", [[[1e308, 0], [1, 1], [1, 0], [1e308, 0]]]), ("bbox", "box"), ("bbox", [None] * 4),
    ("properties", []), ("properties", None), ("properties/datetime", "x"), ("properties/datetime", 5),
    ("properties/datetime", None), ("properties/s2cube:recipe", 5), ("properties/s2cube:scenes", 5),
    ("properties/s2cube:scenes", [5]), ("links", None), ("links", {}), ("links", [5]), ("links", [{"rel": "root"}]),
    ("assets", []), ("assets", {}), ("assets/data", 5), ("assets/data/href", None), ("assets/data/bands", 5),
    ("assets/data/bands", [0]), ("assets/data/bands", [{"name": 5}]), ("assets/data/bands", ["blue"]),
    ("assets/data/file:size", "3"), ("assets/data/file:size", -1), ("assets/data/file:size", True),
    ("assets/data/file:size", 1e99), ("assets/qa/file:checksum", 5), ("assets/thumbnail", []),
]  # fmt: skip

BROKEN: list[tuple[str, bytes | Callable[[dict[str, Any]], None]]] = [
    *JUNK.items(),
    *((f"{path} {value!r}"[:60], member(path, value)) for path, value in MEMBERS),
]
SIX_AT_A_TIME = [BROKEN[first : first + len(DAYS)] for first in range(0, len(BROKEN), len(DAYS))]


class TestItems:
    @pytest.mark.parametrize("broken", SIX_AT_A_TIME, ids=lambda each: each[0][0])
    def test_one_that_cannot_be_read_is_made_again_with_a_warning(
        self, run: Run, out: Path, whole: Path, broken: list[tuple[str, bytes | Callable[[dict[str, Any]], None]]]
    ) -> None:
        for day, (_, change) in enumerate(broken):
            path = out / file(day, ".json")
            edit(path, change) if callable(change) else path.write_bytes(change)
        assert len(verify(Output.at("out")).of("broken")) == len(broken)
        done = run()
        assert done.status == 0, done.err
        assert [Path(path).stem for path in done.json["written"]] == DAYS[: len(broken)]
        for day in range(len(broken)):
            (line,) = [each for each in done.err.splitlines() if file(day, ".json") in each]
            assert line.startswith("warning: ")
            assert "cannot be read as an Item of s2cube (" in line
            assert (out / file(day, ".json")).read_bytes() == (whole / file(day, ".json")).read_bytes()
        assert run().json["written"] == []

    def test_one_that_no_run_makes_again_is_left_out_of_the_catalogue(self, run: Run, out: Path) -> None:
        edit(out / file(0, ".json"), member("properties/datetime", "x"))
        (out / "corner/collection.json").unlink()
        done = run("--datetime", "2022-08")
        assert done.status == 0, done.err
        assert f"{file(0, '.json')} cannot be read as an Item of s2cube" in done.err
        catalog = pystac.Catalog.from_file("out/catalog.json")
        assert sorted(item.id for item in catalog.get_items(recursive=True)) == sorted(DAYS[1:])

    def test_members_that_nobody_reads_may_be_anything(self, run: Run, out: Path) -> None:
        def own(item: dict[str, Any]) -> None:
            item["properties"]["mine"] = [{"a": 1e300}, None, "\u2028"]
            item["assets"]["mine"] = {"href": "https://host/x.html"}
            item["mine"] = 5

        edit(out / file(0, ".json"), own)
        assert run().json["written"] == []
        made = Output.at("out").item("corner", DAYS[0])
        assert made
        assert made.properties["mine"] == [{"a": 1e300}, None, "\u2028"]
        assert set(made.files) == {file(0, suffix) for suffix in (".tif", "_qa.tif", "_qa.qml", ".png")}

    def test_what_an_item_says(self, whole: Path) -> None:
        made = Output.at(whole).item("corner", DAYS[2])
        assert made
        content = json.loads((whole / file(2, ".json")).read_text())
        assert made.recipe == content["properties"]["s2cube:recipe"]
        assert made.bands == ("blue",)
        assert list(made.scenes) == content["properties"]["s2cube:scenes"]
        assert made.properties == content["properties"]
        sizes = Output.at(whole).sizes()
        assert made.files == {name: (whole / name).stat().st_size for name in made.files}
        assert made.files.items() <= sizes.items()
        assert set(sizes) == {path.relative_to(whole).as_posix() for path in whole.glob("corner/*/*")}
        assert Output.at(whole).item("corner", "corner_20000101") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=5), parts, max_size=4),
    max_leaves=8,
)  # fmt: skip


def ways(content: object, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Name every member of JSON, and every one in it."""
    yield way
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in parts:
        yield from ways(part, (*way, key))


def spoilt(content: Any, way: tuple[Any, ...], value: object) -> bytes:
    """Put something in place of a member, or take it away."""
    content = json.loads(json.dumps(content))
    at = content
    for key in way[:-1]:
        at = at[key]
    if not way:
        content = value
    elif value == "gone":
        del at[way[-1]]
    else:
        at[way[-1]] = value
    return json.dumps(content).encode()


def any_change(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw what may have become of a file: a member is another, it is cut off, a byte is another."""
    content = json.loads(whole)
    kind = draw(st.sampled_from(["member", "member", "member", "cut", "byte"]))
    if kind == "member":
        return spoilt(content, draw(st.sampled_from(list(ways(content)))), draw(st.just("gone") | JSON))
    at = draw(st.integers(0, len(whole) - 1))
    return whole[:at] if kind == "cut" else whole[:at] + draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :]


class TestFuzz:
    @settings(max_examples=150)
    @given(data=st.data())
    def test_an_item(self, whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """What is taken for an Item can be read by pystac, too, by way of the catalogue; anything else is left out."""
        content = any_change(data.draw, (whole / file(0, ".json")).read_bytes())
        root = tmp_path_factory.mktemp("fuzz")
        try:
            output = Output.at(root)
            (root / file(0)).parent.mkdir(parents=True)
            (root / file(0, ".json")).write_bytes(content)
            made = output.item("corner", DAYS[0])
            assert output.state("corner", DAYS[0], "recipe", ("blue",)) in ("missing", "outdated")
            write_catalog(output, None)
            assert verify_or_none(output) != 0
            if made is None:
                assert not (root / CATALOG).exists()
            else:
                assert isinstance(made, ImageItem)
                made.flaw({})
                (item,) = pystac.Catalog.from_file(str(root / CATALOG)).get_items(recursive=True)
                assert item.id == DAYS[0]
                assert item.datetime == made.time
                bbox = pystac.Catalog.from_file(str(root / CATALOG)).get_child("corner").extent.spatial.bboxes[0]
                assert all(isinstance(side, float | int) for side in bbox)
        finally:
            shutil.rmtree(root)

    @settings(max_examples=150)
    @given(data=st.data())
    def test_the_record_of_a_run(self, whole: Path, data: st.DataObject) -> None:
        good = json.loads((whole / RUN).read_bytes())
        good |= {"before": dict(good), "attempt": {"where": "x", "started": timestamp(), "ended": "failed"}}
        record = Record.parse(any_change(data.draw, json.dumps(good).encode()))
        for each in (record, record and record.before):
            if each:
                assert Record.parse(each.to_json()) == each
                assert each.is_alive in (True, False)
                assert each.pace >= 0
                report_record(each)
                report_record(each.followed_by(each))

    @settings(max_examples=50)
    @given(data=st.data())
    def test_a_collection_and_failures(
        self, whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        root = tmp_path_factory.mktemp("fuzz")
        try:
            shutil.copytree(whole / "corner", root / "corner")
            path = root / "corner/collection.json"
            right = path.read_bytes()
            path.write_bytes(any_change(data.draw, right))
            line = json.dumps({"slice": "a", "scenes": [], "asset": "", "error": "", "time": timestamp()}).encode()
            (root / FAILURES).write_bytes(any_change(data.draw, line) + b"\n" + line + b"\n")
            output = Output.at(root)
            write_catalog(output, {"corner"})
            assert path.read_bytes() == right
            output.failures.remove({"b"})
            assert line in (root / FAILURES).read_bytes().splitlines()
            output.failures.remove({"a"})
            assert line not in ((root / FAILURES).read_bytes() if (root / FAILURES).exists() else b"").splitlines()
        finally:
            shutil.rmtree(root)


def verify_or_none(output: Output) -> int | None:
    """Count what is verified; None where nothing was ever written."""
    try:
        return verify(output).checked
    except OutputError:
        return None


class TestOtherFiles:
    @pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
    def test_junk_is_not_there_and_is_named(
        self, run: Run, s2cube_command: CommandLine, out: Path, junk: bytes
    ) -> None:
        for name in (RUN, CATALOG, FAILURES, OVERWRITE, "corner/collection.json"):
            (out / name).write_bytes(junk)
        told = s2cube_command("status", "out")
        assert told.status == 1
        assert "out: no run has written there" in told.err
        assert f"warning: {Path.cwd()}/out/{RUN} cannot be read as the record of a run" in told.err
        done = run()
        assert done.status == 0, done.err
        assert len(done.json["skipped"]) == len(DAYS)
        for name in (RUN, OVERWRITE, "corner/collection.json", *([FAILURES] if junk else [])):
            (line,) = [each for each in done.err.splitlines() if f"out/{name}" in each]
            assert line.startswith("warning: ")
            assert "cannot be read" in line
        catalog = pystac.Catalog.from_file("out/catalog.json")
        assert len(list(catalog.get_items(recursive=True))) == len(DAYS)
        assert not (out / FAILURES).exists() or not junk
        assert s2cube_command("status", "out").status == 0

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("progress", 3), ("progress/total", "6"), ("progress/total", 10**400), ("progress/written", -1),
            ("progress/began", "x"), ("state", "odd"), ("pid", -1), ("pid", 2**80), ("updated", "yesterday"),
            ("updated", "2020-01-01T00:00:00"), ("started", 5), ("where", None), ("run", []), ("error", {}),
        ],
    )  # fmt: skip
    def test_odd_types_in_the_record(
        self, run: Run, s2cube_command: CommandLine, out: Path, path: str, value: object
    ) -> None:
        edit(out / RUN, member("state", "running"))
        edit(out / RUN, member(path, value))
        told = s2cube_command("status", "out", "--watch")
        assert told.status == 1
        assert "no run has written there" in told.err
        assert run("--datetime", "2021").status == 0

    def test_what_a_newer_version_adds_is_passed_over(self, s2cube_command: CommandLine, out: Path) -> None:
        edit(out / RUN, member("new", {"a": 1}))
        assert s2cube_command("status", "out").status == 0

    def test_failures_that_can_be_read_are_kept(self, out: Path) -> None:
        """Also those that hold what other programs take for the end of a line."""
        output = Output.at("out")
        first = json.dumps({"slice": "a", "error": "one\u2028two\x85three"}, ensure_ascii=False).encode()
        lines = [first, b"\xff\x00", b'{"slice": 5}', b'{"slice": "b"}', DEEP, b'{"slice": "cor']
        (out / FAILURES).write_bytes(b"\n".join(lines))
        output.failures.remove({"b"})
        assert (out / FAILURES).read_bytes() == first + b"\n"

    def test_half_a_surrogate_pair_is_written_as_its_escape(self, tmp_path: Path) -> None:
        from s2cube.storage.failures import SliceFailure

        output = Output.at(tmp_path)
        output.failures.add([SliceFailure("a", ("S2A\ud800",), "", "no \udfff", timestamp())])
        (line,) = (tmp_path / FAILURES).read_text().splitlines()
        assert json.loads(line)["scenes"] == ["S2A\ud800"]
        with pytest.raises(WriteError), held(output):
            raise WriteError("x\ud800", "y", "z")
        record = read_record(output)
        assert record
        assert record.error.startswith(r"x\ud800: y")


# What may stand where a file or folder belongs.


def a_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def a_dangling_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere.parent / "nothing" / "there")


def a_pipe(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path, elsewhere: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # its name may not be long
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def a_device(path: Path, elsewhere: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def a_folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()


def a_file(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"mine")


Thing = Callable[[Path, Path], None]
NO_FILES: list[Thing] = [a_link, a_dangling_link, a_pipe, a_socket, a_device, a_folder]
NO_FOLDERS: list[Thing] = [a_link, a_dangling_link, a_pipe, a_file]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """What nobody may touch; a folder, or a file in it."""
    folder = tmp_path / "elsewhere"
    for name in ("parts/mine", "corner/mine", f"{DAYS[0]}/mine", "file"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    return folder


def untouched(elsewhere: Path) -> bool:
    found = {
        path.relative_to(elsewhere).as_posix(): path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()
    }
    return found == dict.fromkeys(("parts/mine", "corner/mine", f"{DAYS[0]}/mine", "file"), b"mine")


def replaced(path: Path) -> Path:
    """Take away what lies there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


class TestLinksAndPipes:
    @pytest.mark.parametrize("thing", NO_FILES)
    @pytest.mark.parametrize("name", [".s2cube/lock", RUN, OVERWRITE, FAILURES])
    def test_in_place_of_a_file(self, run: Run, out: Path, elsewhere: Path, name: str, thing: Thing) -> None:
        thing(replaced(out / name), elsewhere / "file")
        began = time.monotonic()
        done = run("--overwrite") if name == OVERWRITE else run()
        assert time.monotonic() - began < 30
        assert done.status == 2, done.err
        assert f"{Path.cwd()}/out/{name}: is a" in done.err
        assert "Move it away, or choose another --out" in done.err
        assert len([line for line in done.err.splitlines() if line.startswith("s2cube: ")]) == 1
        assert untouched(elsewhere)
        assert (out / file(0)).exists()

    @pytest.mark.parametrize("thing", NO_FOLDERS)
    @pytest.mark.parametrize("name", [".s2cube", ".s2cube/parts"])
    def test_in_place_of_a_folder_of_its_own(
        self, run: Run, out: Path, elsewhere: Path, name: str, thing: Thing
    ) -> None:
        thing(replaced(out / name), elsewhere)
        done = run()
        assert done.status == 2
        assert f"out/{name}: is a" in done.err
        assert untouched(elsewhere)

    @pytest.mark.parametrize("thing", NO_FOLDERS)
    @pytest.mark.parametrize("name", ["corner", f"corner/{DAYS[0]}"])
    def test_in_place_of_a_folder_of_slices(
        self, run: Run, s2cube_command: CommandLine, out: Path, elsewhere: Path, name: str, thing: Thing
    ) -> None:
        """It is found before anything is read."""
        thing(replaced(out / name), elsewhere)
        for command in ("plan", "run"):
            done = run(command=command)
            assert done.status == 2
            assert f"out/{name}: is a" in done.err
        assert untouched(elsewhere)
        s2cube_command("verify", "out", "--repair")
        assert untouched(elsewhere)

    def test_a_link_to_inside_is_no_better(self, run: Run, out: Path) -> None:
        """What goes by two names would be two things."""
        (out / "corner").rename(out / "other")
        (out / "corner").symlink_to("other")
        done = run()
        assert done.status == 2
        assert "out/corner: is a link, and links inside an output are not followed" in done.err

    def test_a_link_that_the_job_has_nothing_to_do_with_is_told_once(
        self, run: Run, out: Path, elsewhere: Path
    ) -> None:
        (out / "old").symlink_to(elsewhere)
        (out / "corner" / "corner_old").symlink_to(elsewhere)
        done = run()
        assert done.status == 0
        for name in ("old", "corner/corner_old"):
            (line,) = [line for line in done.err.splitlines() if f"out/{name} " in line]
            assert "is a link. Links inside an output are not followed, so its content is left out" in line
        assert untouched(elsewhere)

    @pytest.mark.parametrize("thing", NO_FILES[:-1])
    @pytest.mark.parametrize("suffix", [".json", ".tif"])
    def test_in_place_of_a_slices_file_is_replaced(
        self, run: Run, out: Path, elsewhere: Path, suffix: str, thing: Thing
    ) -> None:
        thing(replaced(out / file(0, suffix)), elsewhere / "file")
        done = run()
        assert done.status == 0, done.err
        assert [Path(path).stem for path in done.json["written"]] == [DAYS[0]]
        assert f"warning: {DAYS[0] if suffix == '.tif' else Path.cwd() / 'out' / file(0, suffix)}" in done.err
        assert stat.S_ISREG((out / file(0, suffix)).lstat().st_mode)
        assert untouched(elsewhere)

    @pytest.mark.parametrize("suffix", [".json", ".tif"])
    def test_a_folder_in_place_of_a_slices_file_fails_that_slice(self, run: Run, out: Path, suffix: str) -> None:
        a_folder(replaced(out / file(0, suffix)), out)
        done = run("--overwrite")
        assert done.status == 3
        (failure,) = done.json["failed"]
        assert f"out/{file(0, suffix)}: is a folder, not a file" in failure["error"]
        assert len(done.json["written"]) == len(DAYS) - 1

    @pytest.mark.parametrize("thing", NO_FILES[:-1])
    @pytest.mark.parametrize("name", [CATALOG, "corner/collection.json"])
    def test_in_place_of_the_catalogue_is_replaced(
        self, run: Run, out: Path, whole: Path, elsewhere: Path, name: str, thing: Thing
    ) -> None:
        thing(replaced(out / name), elsewhere / "file")
        done = run()
        assert done.status == 0, done.err
        assert f"out/{name}: is a" in done.err
        assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert untouched(elsewhere)

    @pytest.mark.parametrize("thing", NO_FILES)
    def test_in_place_of_the_log(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, out: Path, elsewhere: Path, thing: Thing
    ) -> None:
        thing(replaced(out / ".s2cube" / "run.log"), elsewhere / "file")
        done = s2cube_command("submit", "--aoi", corner, "--stac", archive.items, "--out", "out")
        assert done.status == 2
        assert "out/.s2cube/run.log: is a" in done.err
        assert untouched(elsewhere)

    def test_a_link_in_place_of_the_log_of_a_bucket(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, elsewhere: Path, keys: None
    ) -> None:
        Path("s2cube-run.log").symlink_to(elsewhere / "file")
        words = ["--aoi", corner, "--stac", archive.items, "--out", "s3://results/log"]
        done = s2cube_command("submit", *words)
        assert done.status == 2
        assert "s2cube-run.log: is a link" in done.err
        assert untouched(elsewhere)

    def test_an_output_may_be_a_link_itself(self, run: Run, whole: Path, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        Path("out").symlink_to("disk")
        assert run().status == 0
        assert (tmp_path / "disk" / file(0)).read_bytes() == (whole / file(0)).read_bytes()

    def test_other_hard_links_keep_what_they_hold(self, run: Run, out: Path, elsewhere: Path) -> None:
        for name in (".s2cube/lock", RUN, CATALOG, file(0)):
            os.link(elsewhere / "file", replaced(out / name))
        assert run().status == 0
        assert untouched(elsewhere)


class TestGone:
    def test_an_output_that_is_deleted_is_called_gone(self, tmp_path: Path) -> None:
        output = Output.at(tmp_path / "out")
        with held(output) as lease:
            shutil.rmtree(tmp_path / "out")
            with pytest.raises(WriteError, match="/out: does not exist any more"), lease.output.destination.staging():
                pass
            with pytest.raises(WriteError, match="/out: does not exist any more. Check the folder"):
                lease.output.fence.check()
        assert not (tmp_path / "out").exists()

    def test_one_that_is_emptied_too(self, tmp_path: Path) -> None:
        output = Output.at(tmp_path / "out")
        with held(output) as lease:
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "out").mkdir()
            with pytest.raises(WriteError, match="was deleted or emptied during the run"):
                lease.output.fence.check()

    def test_in_a_bucket(self, keys: None, tmp_path: Path) -> None:
        output = Output.at(f"s3://results/{tmp_path.name}")
        with held(output) as lease:
            output.destination.remove(RUN)
            with pytest.raises(WriteError, match="was deleted or emptied during the run"):
                lease.output.fence.check()

    def test_another_run_is_still_told_as_such(self, tmp_path: Path) -> None:
        output = Output.at(tmp_path / "out")
        with held(output) as lease:
            edit(tmp_path / "out" / RUN, member("run", "another"))
            with pytest.raises(BusyError, match="is written by another run now"):
                lease.output.fence.check()

    def test_a_run_whose_output_is_deleted_ends_by_name_and_does_not_make_it_anew(
        self, archive: Archive, corner: Path, scheduler: str
    ) -> None:
        with faulty(archive.items.parent) as slow:
            slow.fault = lambda *_: time.sleep(0.1)  # type: ignore[func-returns-value]
            command = [sys.executable, "-m", "s2cube", "run", "--aoi", corner, "--stac", f"{slow.url}/items.json"]
            command += ["--scheduler", scheduler, "--bands", "blue", "--out", "out", "--slice-retries", "0"]
            going = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not list(Path("out").glob("corner/*/*.json")) and time.monotonic() < deadline:
                time.sleep(0.02)
            Path("out").rename("gone")
            _, err = going.communicate(timeout=60)
        assert going.returncode == 1, err
        assert err.splitlines()[-1].startswith(f"s2cube: {Path.cwd()}/out: does not exist any more")
        assert "another run" not in err
        assert not Path("out").exists()
