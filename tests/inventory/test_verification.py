"""What lies in an output is what was written: sizes and checksums in Items, and what compares them."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pystac
import pytest
from obstore.store import S3Store

from s2cube.demo.archive import Archive
from s2cube.inventory import verification
from s2cube.storage._bucket import Bucket
from s2cube.storage.folder import Folder
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from support.buckets import names
from support.runs import CORNER_DAYS as DAYS
from support.runs import CommandLine, Run, edit, file

SUFFIXES = (".tif", "_qa.tif", ".png", "_qa.qml")

FILES = len(SUFFIXES) * len(DAYS) + 1
"""With the timeline."""


class TestItems:
    def test_every_asset_has_its_size_and_checksum(self, whole: Path) -> None:
        """As `sha256sum` and the file extension have it: a multihash of SHA2-256 begins with 12 20."""
        for day in range(len(DAYS)):
            item = pystac.Item.from_file(str(whole / file(day, ".json")))
            assert "https://stac-extensions.github.io/file/v2.1.0/schema.json" in item.stac_extensions
            assert set(item.assets) == {"data", "qa", "thumbnail", "qa_style"}
            for asset in item.assets.values():
                path = Path(asset.get_absolute_href() or "")
                told = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
                assert asset.extra_fields["file:checksum"] == "1220" + told
                assert asset.extra_fields["file:size"] == path.stat().st_size


def delete(out: Path) -> tuple[str, str]:
    (out / file(0)).unlink()
    return "missing", file(0)


def delete_a_folder_but_its_item(out: Path) -> tuple[str, str]:
    (out / file(0, "_qa.tif")).unlink()
    return "missing", file(0, "_qa.tif")


def empty(out: Path) -> tuple[str, str]:
    (out / file(1)).write_bytes(b"")
    return "broken", file(1)


def cut(out: Path) -> tuple[str, str]:
    path = out / file(2, ".png")
    os.truncate(path, path.stat().st_size - 1)
    return "broken", file(2, ".png")


def lengthen(out: Path) -> tuple[str, str]:
    with (out / file(2, "_qa.tif")).open("ab") as image:
        image.write(b"\0")
    return "broken", file(2, "_qa.tif")


def link(out: Path) -> tuple[str, str]:
    """What it leads to is the file that it was; but it is not there."""
    (out / file(3)).rename(out.absolute().parent / "elsewhere.tif")
    (out / file(3)).symlink_to(out.absolute().parent / "elsewhere.tif")
    return "missing", file(3)


SEEN_BY_A_RUN = [delete, delete_a_folder_but_its_item, empty, cut, lengthen, link]


def flip(out: Path) -> tuple[str, str]:
    content = bytearray((out / file(3)).read_bytes())
    content[len(content) // 2] ^= 1
    (out / file(3)).write_bytes(content)
    return "broken", file(3)


class TestRun:
    @pytest.mark.parametrize("damage", SEEN_BY_A_RUN)
    def test_makes_again_what_is_missing_or_has_another_size(
        self, run: Run, whole: Path, out: Path, damage: Callable[[Path], tuple[str, str]]
    ) -> None:
        _, name = damage(out)
        healed = run()
        assert healed.status == 0, healed.err
        assert healed.json["written"] == [str(Path.cwd() / "out" / Path(name).parent / f"{Path(name).parent.name}.tif")]
        assert len(healed.json["skipped"]) == len(DAYS) - 1
        assert f"warning: {Path(name).parent.name}: will be recomputed: {name}" in healed.err
        assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert not (out / name).is_symlink()
        assert run().json["written"] == []

    def test_many_damages_are_one_line(self, run: Run, out: Path) -> None:
        for day in (1, 3, 4):
            (out / file(day)).unlink()
        healed = run()
        assert len(healed.json["written"]) == 3
        (line,) = (line for line in healed.err.splitlines() if "recomputed" in line)
        said = f"{DAYS[1]}: will be recomputed: {file(1)} is missing (2 others for such a reason, too)"
        assert line == f"warning: {said}"

    def test_lists_an_output_once(self, run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And once for the catalogue; whatever the number of slices."""
        calls = []
        sizes = Folder.sizes
        monkeypatch.setattr(Folder, "sizes", lambda *given: calls.append(given[2:]) or sizes(*given))
        assert len(run().json["skipped"]) == len(DAYS)
        assert calls == [("",), ("",)]

    def test_items_of_earlier_versions_are_done(self, run: Run, out: Path) -> None:
        for day in range(len(DAYS)):
            edit(out / file(day, ".json"), forget)
        assert run().json["written"] == []
        (out / file(4, ".png")).unlink()
        assert [Path(path).stem for path in run().json["written"]] == [DAYS[4]]


def forget(item: dict[str, Any]) -> None:
    """Write an Item as earlier versions did."""
    for asset in item["assets"].values():
        asset.pop("file:size", None)
        asset.pop("file:checksum", None)


class TestVerify:
    def test_a_whole_output(self, s2cube_command: CommandLine, out: Path) -> None:
        for words in (("verify", "out"), ("verify", "--out", "out"), ("verify",)):
            done = s2cube_command(*words, "--json")
            assert done.status == 0, done.err
            assert done.json == {"checked": FILES, "missing": [], "broken": [], "unverified": []}
        assert "25 of 25 files are unchanged." in done.err

    @pytest.mark.parametrize("damage", [*SEEN_BY_A_RUN, flip])
    def test_finds_and_repairs(
        self, run: Run, s2cube_command: CommandLine, whole: Path, out: Path, damage: Callable[[Path], tuple[str, str]]
    ) -> None:
        kind, name = damage(out)
        none: dict[str, object] = {"checked": FILES, "missing": [], "broken": [], "unverified": []}
        found = s2cube_command("verify", "out", "--json")
        assert found.status == 3
        assert found.json == none | {kind: [name]}
        assert f"error: {name} " in found.err
        item = (out / name).parent / f"{Path(name).parent.name}.json"
        assert item.exists()

        repaired = s2cube_command("verify", "out", "--json", "--repair")
        assert repaired.status == 3
        assert repaired.json == found.json
        assert not item.exists()
        linked = json.loads((out / "corner/collection.json").read_text())["links"]
        assert not [each for each in linked if item.name in each["href"]]
        assert len([each for each in linked if each["rel"] == "item"]) == len(DAYS) - 1
        assert s2cube_command("status", "out").err.startswith("done: 6 of 6 slices written")

        assert [Path(path).stem for path in run().json["written"]] == [item.stem]
        assert s2cube_command("verify", "out", "--json").json == none
        for path in whole.glob("*/*/*"):
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()

    def test_two_files_of_one_size_that_have_changed_places(self, s2cube_command: CommandLine, out: Path) -> None:
        one, other = file(0), file(1)
        largest = max((out / each).stat().st_size for each in (one, other))
        for name in (one, other):
            with (out / name).open("ab") as image:
                image.truncate(largest)
            content = (out / name).read_bytes()
            told = {"file:size": largest, "file:checksum": "1220" + hashlib.sha256(content).hexdigest()}
            edit((out / name).with_suffix(".json"), lambda item, told=told: item["assets"]["data"].update(told))
        assert s2cube_command("verify", "out").status == 0
        (out / one).rename("x")
        (out / other).rename(out / one)
        Path("x").rename(out / other)
        assert s2cube_command("verify", "out", "--json").json["broken"] == [one, other]

    def test_what_is_not_verified_is_told(self, s2cube_command: CommandLine, out: Path) -> None:
        edit(out / file(0, ".json"), forget)
        edit(out / file(1, ".json"), lambda item: item["assets"]["qa"].update({"file:checksum": "1114" + "0" * 40}))
        done = s2cube_command("verify", "out", "--json", "-v")
        assert done.status == 0
        unverified = [*sorted(file(0, suffix) for suffix in SUFFIXES), file(1, "_qa.tif")]
        assert done.json == {"checked": FILES, "missing": [], "broken": [], "unverified": unverified}
        assert "20 of 25 files are unchanged, 5 present, but without a checksum" in done.err
        assert f"{file(1, '_qa.tif')} has no SHA2-256 in its Item" in done.err
        (out / file(0)).unlink()
        assert s2cube_command("verify", "out", "--json").json["missing"] == [file(0)]

    @pytest.mark.parametrize("junk", ["", "1220", "1220" + "0" * 62, "1220" + "g" * 64, 5, None, "sha256:0", ["1220"]])
    def test_junk_for_a_checksum(self, run: Run, s2cube_command: CommandLine, out: Path, junk: object) -> None:
        """None is as good as no checksum; an Item with anything else was damaged."""
        edit(out / file(0, ".json"), lambda item: item["assets"]["data"].update({"file:checksum": junk}))
        found = s2cube_command("verify", "out", "--json")
        if junk is None:
            assert found.json["unverified"] == [file(0)]
            return
        assert found.status == 3
        assert found.json["broken"] == [file(0, ".json")]
        assert found.json["checked"] == FILES - len(SUFFIXES) + 1
        healed = run()
        assert [Path(path).stem for path in healed.json["written"]] == [DAYS[0]]
        assert f"{file(0, '.json')} cannot be read as an Item of s2cube (assets.data.file:checksum: " in healed.err
        assert s2cube_command("verify", "out").status == 0

    def test_leftovers_do_not_disturb(self, s2cube_command: CommandLine, out: Path) -> None:
        for name in ("corner/notes.txt", "corner/x/y.tif", "x/y/y.json", f"corner/{DAYS[0]}/mine.csv", "a.tif"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("{")
        (out / file(5, ".json")).unlink()
        done = s2cube_command("verify", "out", "--json", "--repair")
        assert done.status == 0
        assert done.json["checked"] == FILES - len(SUFFIXES)
        assert (out / "x/y/y.json").exists()

    def test_what_the_disk_does_not_give_back_is_broken(
        self, s2cube_command: CommandLine, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = Folder._opened

        class Rotten:
            def read(self, *_: int) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

        @contextmanager
        def rotting(self: Folder, name: str) -> Iterator[Any]:
            with opened(self, name) as image:
                yield Rotten() if name == file(0) else image

        monkeypatch.setattr(Folder, "_opened", rotting)
        found = s2cube_command("verify", "out", "--json")
        assert found.status == 3
        assert found.json["broken"] == [file(0)]
        assert f"{file(0)} cannot be read (Input/output error)" in found.err

    def test_a_reader_does_not_call_broken_what_a_run_replaces(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is another one already, and the Item follows while it is read."""
        output = Output.at("out")
        chunks, swapped = Folder.chunks, []

        def replaced(self: Folder, name: str) -> Iterator[bytes]:
            if name == file(0) and not swapped:
                swapped.append(name)
                (out / name).write_bytes(b"new")
                told = {"file:size": 3, "file:checksum": "1220" + hashlib.sha256(b"new").hexdigest()}
                edit(out / file(0, ".json"), lambda item: item["assets"]["data"].update(told))
            return chunks(self, name)

        monkeypatch.setattr(Folder, "chunks", replaced)
        findings = verification.verify(output)
        assert swapped
        assert (findings.checked, findings.flaws) == (FILES, ())

    def test_takes_no_lease_and_repair_does(self, s2cube_command: CommandLine, out: Path) -> None:
        (out / file(0)).unlink()
        with held(Output.at("out")):
            assert s2cube_command("verify", "out").status == 3
            refused = s2cube_command("verify", "out", "--repair")
        assert refused.status == 1
        assert "is being written by a run of" in refused.err
        assert (out / file(0, ".json")).exists()

    def test_repair_leaves_the_record_of_the_last_run(self, s2cube_command: CommandLine, out: Path) -> None:
        record = (out / ".s2cube/run").read_bytes()
        (out / file(0)).unlink()
        assert s2cube_command("verify", "out", "--repair").status == 3
        assert (out / ".s2cube/run").read_bytes() == record
        shutil.rmtree(out / ".s2cube")
        assert s2cube_command("verify", "out", "--repair").status == 0
        assert read_record(Output.at("out")) is None

    def test_repair_of_all_leaves_an_empty_catalogue(self, run: Run, s2cube_command: CommandLine, out: Path) -> None:
        for day in range(len(DAYS)):
            (out / file(day)).unlink()
        assert s2cube_command("verify", "out", "--repair").status == 3
        assert list(pystac.Catalog.from_file("out/catalog.json").get_items(recursive=True)) == []
        assert len(run().json["written"]) == len(DAYS)

    @pytest.mark.parametrize("more", [[], ["--repair"]])
    def test_where_there_is_nothing(self, s2cube_command: CommandLine, more: list[str]) -> None:
        for words in (["nowhere"], ["--out", "nowhere"]):
            done = s2cube_command("verify", *words, *more, "--json")
            assert done.status == 2
            assert done.out == ""
            assert "nowhere: contains no output of s2cube. Correct --out" in done.err
            assert len(done.err.splitlines()) == 1
        assert not Path("nowhere").exists()
        Path("empty").mkdir()
        assert s2cube_command("verify", "empty", *more).status == 2
        assert list(Path("empty").iterdir()) == []

    def test_takes_only_the_settings_that_concern_it(self, s2cube_command: CommandLine, out: Path) -> None:
        for command in ("verify", "status"):
            assert s2cube_command(command, "out", "--bands", "blue").status == 2
            assert s2cube_command(command, "out", "--out", "out").status == 2
            assert s2cube_command(command, "out").status == 0
        Path("s2cube.toml").write_text('[job]\nout = "out"\n')
        out.rename("other")
        assert s2cube_command("verify").status == 2
        assert s2cube_command("verify", "other").status == 0

    def test_shows_a_bar_on_a_terminal(self, out: Path) -> None:
        ours, theirs = os.openpty()
        verify = subprocess.Popen(
            [sys.executable, "-m", "s2cube", "verify", "out"],
            stderr=theirs, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        )  # fmt: skip
        os.close(theirs)
        said = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while part := terminal.read(4096):
                    said += part
            except OSError:  # the other side is closed
                pass
        assert verify.wait(60) == 0
        assert b"reading" in said
        assert b"\x1b[" in said
        assert b"25 of 25 files are unchanged." in said


@pytest.mark.usefixtures("keys")
class TestBucket:
    @pytest.fixture
    def bucket(self, whole: Path, s3: S3Store, tmp_path: Path) -> str:
        for path in whole.rglob("*"):
            if path.is_file() and "parts" not in path.parts:
                obstore.put(s3, f"{tmp_path.name}/{path.relative_to(whole)}", path)
        return f"s3://results/{tmp_path.name}"

    def test_finds_and_repairs(
        self, s2cube_command: CommandLine, bucket: str, s3: S3Store, tmp_path: Path, archive: Archive, corner: Path,
    ) -> None:  # fmt: skip
        assert s2cube_command("verify", bucket, "--json").json == {
            "checked": FILES, "missing": [], "broken": [], "unverified": [],
        }  # fmt: skip
        flipped = bytearray(obstore.get(s3, f"{tmp_path.name}/{file(0)}").bytes())
        flipped[100] ^= 1
        obstore.put(s3, f"{tmp_path.name}/{file(0)}", bytes(flipped))
        obstore.put(s3, f"{tmp_path.name}/{file(1)}", b"")
        obstore.delete(s3, f"{tmp_path.name}/{file(2)}")
        found = s2cube_command("verify", "--out", bucket, "--json", "--repair")
        assert found.status == 3, found.err
        assert found.json == {"checked": FILES, "missing": [file(2)], "broken": [file(0), file(1)], "unverified": []}
        assert {file(day, ".json") for day in (3, 4, 5)} == {
            name for name in names(s3, tmp_path.name) if name.endswith(".json") and name.count("/") == 2
        }
        words = ["--aoi", corner, "--stac", archive.items, "--bands", "blue", "--out", bucket, "--workers", "1"]
        healed = s2cube_command("run", *words, "--json")
        assert healed.status == 0, healed.err
        assert len(healed.json["written"]) == 3
        assert s2cube_command("verify", bucket).status == 0

    def test_a_run_lists_it_once(
        self, s2cube_command: CommandLine, bucket: str, archive: Archive, corner: Path, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        listed, listing = [], Bucket.sizes
        monkeypatch.setattr(Bucket, "sizes", lambda *given: listed.append(given[2:]) or listing(*given))
        plan = ["plan", "--aoi", corner, "--stac", archive.items, "--bands", "blue", "--out", bucket, "--json"]
        assert s2cube_command(*plan).json["todo"] == []
        assert listed == [("",)]

    def test_where_there_is_nothing(self, s2cube_command: CommandLine) -> None:
        done = s2cube_command("verify", "s3://results/nothing")
        assert done.status == 2
        assert "s3://results/nothing: contains no output of s2cube" in done.err

    def test_a_store_that_does_not_answer_is_no_broken_file(
        self, s2cube_command: CommandLine, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lost(*_: object, **__: object) -> Iterator[bytes]:
            raise obstore.exceptions.GenericError("error sending request")

        monkeypatch.setattr("obstore.get", lost)
        done = s2cube_command("verify", bucket, "--repair")
        assert done.status != 3
        assert "cannot be read (error sending request)" in done.err
