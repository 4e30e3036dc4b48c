"""Where a run writes: folders and real object stores, and how they refuse."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import obstore
import pytest
import rasterio
import rio_cogeo
from obstore.store import S3Store

import s2cube
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import OutputError, WriteError
from s2cube.fetch import session
from s2cube.storage._bucket import Bucket
from s2cube.storage.destination import destination_at
from s2cube.storage.folder import Folder
from s2cube.storage.image_item import COUNT, DATE, SUFFIXES
from s2cube.storage.layout import SLICE_DEPTH
from s2cube.storage.output import Output
from support.buckets import names
from support.runs import KEYS, CommandLine, Job

OF_A_DAY = [suffix for key, suffix in SUFFIXES.items() if key not in (COUNT, DATE)]


class TestPlaces:
    @pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.servers)])
    def somewhere(self, request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
        if request.param == "folder":
            return Folder(tmp_path / "a" / "b")
        request.getfixturevalue("keys")
        return Bucket(f"s3://results/{tmp_path.name}")

    def test_alike(self, somewhere: Folder | Bucket, tmp_path: Path) -> None:
        somewhere.prepare()
        assert list(somewhere.sizes(SLICE_DEPTH)) == []
        assert somewhere.read("farm/day/day.json") is None
        somewhere.remove("farm/day/day.json")
        with somewhere.staging() as folder:
            staged = folder / "x.tif"
            staged.write_bytes(b"1" * 20_000_000)
            somewhere.put("farm/day/day.tif", staged)
        assert not folder.exists()
        somewhere.put("farm/day/day.json", b"{}")
        somewhere.put("farm/collection.json", b"{}")
        somewhere.put("farm/day/day.json", b"[]")
        assert list(somewhere.sizes(SLICE_DEPTH)) == ["farm/day/day.json", "farm/day/day.tif"]
        assert somewhere.read("farm/day/day.json") == b"[]"
        assert len(somewhere.read("farm/day/day.tif") or b"") == 20_000_000
        somewhere.remove("farm/day/day.json")
        assert list(somewhere.sizes(SLICE_DEPTH)) == ["farm/day/day.tif"]

    def test_listed_by_the_number_of_names(self, somewhere: Folder | Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        somewhere.prepare()
        files = ["catalog.json", "farm/collection.json", "farm/day/day.json", "farm/day/day.tif", "farm/day/x/y.txt"]
        for name in [".s2cube/record.json", *files, "field/day/day.tif"]:
            somewhere.put(name, b"{}")
        whole = Counter[str]()
        complete = Bucket._list
        monkeypatch.setattr(Bucket, "_list", lambda self, under: whole.update([under]) or complete(self, under))
        assert somewhere.sizes(1) == {"catalog.json": 2}
        assert list(somewhere.sizes(2, "farm")) == ["farm/collection.json"]
        assert list(somewhere.sizes(3, "farm/day")) == ["farm/day/day.json", "farm/day/day.tif"]
        assert somewhere.sizes(1, least=1) == somewhere.sizes(1)
        assert list(somewhere.sizes(2, "nowhere")) == []
        # The files directly in a folder are listed without those below it: a bucket may have millions.
        assert not whole
        assert list(somewhere.sizes(3, least=2)) == [*files[1:4], "field/day/day.tif"]
        assert list(somewhere.sizes(3, "farm", least=2)) == files[1:4]
        assert whole == (Counter(["", "farm"]) if isinstance(somewhere, Bucket) else Counter())

    def test_a_folder_is_moved_whole_or_not_at_all(self, somewhere: Folder | Bucket) -> None:
        somewhere.prepare()
        with somewhere.staging() as folder:
            (folder / "day.json").write_bytes(b"{}")
            (folder / "day.tif").write_bytes(b"1")
            is_moved = somewhere.put_folder("farm/day", folder)
        # An object store has no folders.
        assert is_moved == isinstance(somewhere, Folder)
        assert len(somewhere.sizes(SLICE_DEPTH)) == (2 if is_moved else 0)
        somewhere.put("farm/other/other.tif", b"2")
        with somewhere.staging() as folder:
            (folder / "other.json").write_bytes(b"{}")
            assert not somewhere.put_folder("farm/other", folder)
            assert (folder / "other.json").exists()
        assert somewhere.read("farm/other/other.json") is None

    def test_swapped_only_if_it_is_what_it_was(self, somewhere: Folder | Bucket) -> None:
        somewhere.prepare()
        assert somewhere.compare_and_swap("x", None, b"1")
        assert not somewhere.compare_and_swap("x", None, b"2")
        assert not somewhere.compare_and_swap("x", b"0", b"2")
        assert somewhere.compare_and_swap("x", b"1", b"2")
        assert somewhere.read("x") == b"2"

    def test_of_two_that_swap_at_a_time_one_does(
        self, somewhere: Folder | Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one has written between the look and the step."""
        somewhere.prepare()
        somewhere.compare_and_swap("x", None, b"1")
        if isinstance(somewhere, Bucket):
            find = Bucket._find

            def late(self: Bucket, name: str) -> tuple[bytes, str | None] | None:
                found = find(self, name)
                monkeypatch.setattr(Bucket, "_find", find)
                self.put(name, b"other's")
                return found

            monkeypatch.setattr(Bucket, "_find", late)
            assert not somewhere.compare_and_swap("x", b"1", b"2")
            assert somewhere.read("x") == b"other's"
        else:
            code = "import sys; from s2cube.storage.folder import Folder; from pathlib import Path;"
            code += "f = Folder(Path(sys.argv[1]));"
            code += "print(sum(f.compare_and_swap('x', f.read('x'), str(n).encode() * 9) for n in range(200)))"
            runs = [
                subprocess.Popen([sys.executable, "-c", code, somewhere.root], stdout=subprocess.PIPE) for _ in range(3)
            ]
            won = [int(run.communicate(timeout=60)[0]) for run in runs]
            assert all(each > 0 for each in won)
            assert len(somewhere.read("x") or b"") in (9, 18, 27)


@pytest.mark.usefixtures("keys")
class TestBucket:
    def test_a_run_to_a_bucket_is_that_to_a_folder(
        self, s2cube_command: CommandLine, job: Job, s3: S3Store, tmp_path: Path
    ) -> None:
        here = s2cube_command(*job("--bands", "blue,swir16", "--out", "here"))
        there = s2cube_command("run", *_local(job("--bands", "blue,swir16", "--out", "s3://results/run/a")))
        assert there.status == 0, there.err
        days = [f"corner_{each.time:%Y%m%d}" for each in PASSES]
        assert there.json["written"] == [f"s3://results/run/a/corner/{day}/{day}.tif" for day in days]
        for path in here.json["written"]:
            for each in Path(path).parent.iterdir():
                name = f"run/a/corner/{each.parent.name}/{each.name}"
                assert obstore.get(s3, name).bytes() == each.read_bytes(), name
        for name in ("catalog.json", "items.parquet", "corner/collection.json", "corner/timeline.png"):
            assert bytes(obstore.get(s3, f"run/a/{name}").bytes()) == Path("here", name).read_bytes()
        assert len([name for name in names(s3, "run/a") if name[0] != "."]) == 5 * len(days) + 4
        (path, *_) = there.json["written"]
        with rasterio.Env(AWS_HTTPS="NO", AWS_VIRTUAL_HOSTING="FALSE", AWS_S3_ENDPOINT=s3.config["endpoint"][7:]):
            assert rio_cogeo.cog_validate(path)[0]

        again = s2cube_command("run", *_local(job("--bands", "blue,swir16", "--out", "s3://results/run/a")))
        assert again.json["written"] == []
        assert again.json["skipped"] == days
        assert again.json["requests"] == 0

    def test_from_a_notebook(self, archive: Archive, s3: S3Store) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        cube = s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items), datetime="2021"), aoi, bands=["blue"])
        assert s2cube.write_cogs(cube, "s3://results/nb") == ["s3://results/nb/farm/farm_20210724/farm_20210724.tif"]
        assert "farm/farm_20210724/farm_20210724.json" in names(s3, "nb")

    @pytest.mark.parametrize(
        ("out", "change", "told"),
        [
            ("s3://results/x", {"AWS_ACCESS_KEY_ID": "AKREAD", "AWS_SECRET_ACCESS_KEY": "SKREAD"}, "AccessDenied"),
            ("s3://nowhere/x", {"AWS_ACCESS_KEY_ID": "AKREAD", "AWS_SECRET_ACCESS_KEY": "SKREAD"}, "NoSuchBucket"),
            ("s3://results/x", {"AWS_SECRET_ACCESS_KEY": "WRONGSECRET"}, "SignatureDoesNotMatch"),
            ("s3://results/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "error sending request"),
        ],
    )
    def test_found_before_anything_is_searched_or_read(
        self, s2cube_command: CommandLine, job: Job, out: str, change: dict[str, str], told: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        for name, value in change.items():
            monkeypatch.setenv(name, value)
        session.reset()
        monkeypatch.setattr("s2cube.jobs.job.open_catalogue", lambda *_: pytest.fail("searched"))
        done = s2cube_command(*job("--out", out))
        assert done.status == 2
        assert out in done.err
        assert told in done.err
        assert "WRONGSECRET" not in done.err

    @pytest.mark.parametrize("folder", ["my folder/grün", "a#b", "a%20b", "100 %", "a+b", "end/"])
    def test_a_folder_is_called_as_it_is_written(self, s3: S3Store, folder: str) -> None:
        destination_at(f"s3://results/odd/{folder}").put("farm/x", b"1")
        assert f"{folder.rstrip('/')}/farm/x" in names(s3, "odd")

    def test_an_upload_that_is_not_whole_is_found_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("obstore.head", lambda *_: {"size": 3})
        with pytest.raises(WriteError, match=r"s3://results/y/a: cannot be written \(the store has 3 of 4 bytes\)"):
            destination_at("s3://results/y").put("a", b"1234")


def _local(words: list[object]) -> list[object]:
    """Leave out the scheduler that all tests share: its workers do not know this test's keys."""
    at = words.index("--scheduler")
    return [*words[1:at], *words[at + 2 :]]


def test_a_store_that_does_not_answer_keeps_nobody_from_stopping(job: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        environment = os.environ | dict(zip(KEYS, ("AKTEST", "SKTEST", "us-east-1", address, "true"), strict=True))
        words = ["-m", "s2cube", "run", *map(str, _local(job("--out", "s3://results/x")))]
        run = subprocess.Popen([sys.executable, *words], env=environment, stderr=subprocess.PIPE, text=True)
        deaf.settimeout(60)
        asked, _ = deaf.accept()
        run.send_signal(signal.SIGINT)
        try:
            _, err = run.communicate(timeout=10)
        finally:
            run.kill()
            asked.close()
    assert run.returncode == 130
    assert "stopped; written slices remain" in err


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        disk = tmp_path / "disk"
        disk.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False, capture_output=True
        )
        if done.returncode:
            assert not os.environ.get("CI"), done.stderr
            pytest.skip("tmpfs cannot be mounted here")
        yield disk
        subprocess.run(["umount", "-l", disk], check=True)

    def test_a_full_disk_ends_the_run_and_what_is_done_stays(
        self, s2cube_command: CommandLine, job: Job, archive: Archive, small_disk: Path
    ) -> None:
        words = ["--out", small_disk / "out", "--bands", "blue", "--slice-retries", "0"]
        first = s2cube_command(*job(*words, "--datetime", "2021"))
        assert first.status == 0, first.err
        (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
        done = s2cube_command(*job(*words))
        assert done.status == 1
        assert re.search(r"cannot be written .* MB are free there", done.err)
        assert len(done.err.splitlines()) < 20
        for item in (small_disk / "out" / "corner").glob("*/*.json"):
            with rasterio.open(item.with_suffix(".tif")) as cog:
                assert cog.read(1).max() > 0
            assert len(list(item.parent.iterdir())) == 5
        assert Path(first.json["written"][0]).with_suffix(".json").exists()
        assert not list((small_disk / "out" / ".s2cube").glob("parts/*/*"))

        (small_disk / "filler").unlink()
        healed = s2cube_command(*job(*words))
        assert healed.status == 0, healed.err
        assert len(healed.json["written"]) + len(healed.json["skipped"]) == len(PASSES)


def test_a_folder_that_goes_while_it_is_written_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.prepare()
    folder.root.rmdir()
    with pytest.raises(WriteError, match=r"/out: does not exist any more"):
        folder.compare_and_swap("x", None, b"1")


def test_an_own_folder_that_is_none_is_named(s2cube_command: CommandLine, job: Job) -> None:
    Path("out").mkdir()
    Path("out/.s2cube").write_text("")
    ran = s2cube_command(*job())
    assert ran.status == 2
    assert "out/.s2cube: is a file, not a folder" in ran.err


def test_who_sleeps_with_a_lock_keeps_nobody_from_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2cube.storage.folder._LOCK_WAIT_S", 0.5)
    (tmp_path / ".s2cube").mkdir()
    with (tmp_path / ".s2cube" / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        done: list[bool] = []
        thread = threading.Thread(
            target=lambda: done.append(Folder(tmp_path).compare_and_swap("x", None, b"1")), daemon=True
        )
        thread.start()
        thread.join(10)
        assert done == [True]


def test_an_address_is_no_folder(tmp_path: Path) -> None:
    assert isinstance(destination_at(tmp_path), Folder)
    assert isinstance(destination_at("gs://bucket/x"), Bucket)
    for address in (
        "http://host/x",
        "s3:/bucket/x",
        "s3://",
        "ftp://x/y",
        "s3://bucket/x?sig=1",
        "s3://bucket/x/../y",
        "s3://b//x",
    ):
        with pytest.raises(OutputError, match="s2cube cannot write there"):
            destination_at(address)


class TestAppended:
    @pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.servers)])
    def somewhere(self, request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
        if request.param == "folder":
            return Folder(tmp_path / "out")
        request.getfixturevalue("keys")
        return Bucket(f"s3://results/{tmp_path.name}")

    def test_lines_follow_lines(self, somewhere: Folder | Bucket) -> None:
        """Also a line that a crash has cut off."""
        somewhere.prepare()
        somewhere.append("a", b"1\n")
        somewhere.append("a", b"2\n3\n")
        assert somewhere.read("a") == b"1\n2\n3\n"
        somewhere.put("a", b"1\n2")
        somewhere.append("a", b"3\n")
        assert somewhere.read("a") == b"1\n2\n3\n"

    def test_a_hard_link_keeps_what_it_holds(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path)
        folder.append("a", b"1\n")
        os.link(tmp_path / "a", tmp_path / "copy")
        folder.append("a", b"2\n")
        assert ((tmp_path / "a").read_bytes(), (tmp_path / "copy").read_bytes()) == (b"1\n2\n", b"1\n")

    def test_a_full_disk_leaves_the_file_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder, write = Folder(tmp_path), os.write
        folder.append("a", b"1\n")

        def full(file: int, content: bytes) -> int:
            if len(content) == 1:
                raise OSError(28, "No space left on device")
            return write(file, content[:-1])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(WriteError, match="a: cannot be written .No space left on device.. Free some disk space"):
            folder.append("a", b"22\n")
        assert folder.read("a") == b"1\n"

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"1\n")
        (tmp_path / "a").symlink_to("other")
        with pytest.raises(OutputError, match="is a link"):
            Folder(tmp_path).append("a", b"2\n")
        assert (tmp_path / "other").read_bytes() == b"1\n"


class TestNewSlices:
    """The folder of a new slice is moved in one step."""

    @pytest.fixture
    def output(self, tmp_path: Path) -> Output:
        output = Output.at(tmp_path / "out")
        output.destination.prepare()
        return output

    def put(self, output: Output, content: bytes = b"1") -> None:
        with output.destination.staging() as folder:
            for suffix in (*OF_A_DAY, ".json"):
                (folder / f"farm_1{suffix}").write_bytes(content)
            output.publish("farm", "farm_1", folder)

    def names(self, output: Output) -> set[str]:
        return set(output.destination.sizes(SLICE_DEPTH))

    def test_few_calls_of_the_system(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of six files, each is written to disk, and none is moved alone."""
        self.put(output)
        calls: Counter[str] = Counter()
        for name in ("open", "mkdir", "rename", "replace", "unlink", "fsync", "stat", "scandir", "listdir", "rmdir"):
            call = getattr(os, name)

            def counted(*arguments: Any, _name: str = name, _call: Any = call, **more: Any) -> Any:
                calls[_name] += 1
                return _call(*arguments, **more)

            monkeypatch.setattr(os, name, counted)
        with output.destination.staging() as folder:
            for suffix in (*OF_A_DAY, ".json"):
                (folder / f"farm_2{suffix}").write_bytes(b"2")
            output.publish("farm", "farm_2", folder)
        monkeypatch.undo()
        assert {f"farm/farm_2/farm_2{suffix}" for suffix in OF_A_DAY} < self.names(output)
        assert {name: calls[name] for name in ("rename", "replace", "unlink", "fsync", "mkdir", "rmdir")} == {
            "rename": 1, "replace": 0, "unlink": 0, "fsync": 6, "mkdir": 1, "rmdir": 0,
        }  # fmt: skip
        assert calls["scandir"] + calls["listdir"] == 1
        # The files, and each folder on the way: to the staging folder, twice, and to the area's.
        assert calls["open"] == 6 + 5 + 4 + 2
        assert calls["stat"] == 2

    @pytest.mark.parametrize("name", ["open", "fsync", "rename", "close", "mkdir"])
    def test_all_files_or_none_are_there_at_any_moment(
        self, output: Output, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        call, calls, moment = getattr(os, name), 0, 0

        def broken(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment:
                raise KeyboardInterrupt
            return call(*arguments, **more)

        while calls >= moment:
            calls, moment = 0, moment + 1
            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(os, name, broken)
                self.put(output)
            assert len(self.names(output)) in (0, 6)
            shutil.rmtree(Path(output.destination.address, "farm"), ignore_errors=True)
        assert moment > 1

    def test_what_a_crash_leaves_is_removed(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "rename", killed)
        monkeypatch.setattr("s2cube.storage.folder.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            self.put(output)
        monkeypatch.undo()
        root = Path(output.destination.address)
        assert len(list(root.glob(".s2cube/parts/*/*"))) == 6
        output.destination.clean_up()
        assert not [path for path in root.rglob("*") if path.is_file()]

    def test_an_old_slice_is_replaced_file_by_file(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(output)
        steps: list[str] = []
        put, remove = Folder.put, Folder.remove
        monkeypatch.setattr(Folder, "put", lambda place, name, file: steps.append(name) or put(place, name, file))
        monkeypatch.setattr(Folder, "remove", lambda place, name: steps.append(f"-{name}") or remove(place, name))
        self.put(output, b"2")
        assert steps[0] == "-farm/farm_1/farm_1.json"
        assert steps[-1] == "farm/farm_1/farm_1.json"
        assert len(steps) == 7
        assert output.destination.read("farm/farm_1/farm_1.tif") == b"2"

    def test_an_empty_folder_is_no_slice(self, output: Output) -> None:
        (Path(output.destination.address) / "farm" / "farm_1").mkdir(parents=True)
        self.put(output)
        assert len(self.names(output)) == 6

    @pytest.mark.parametrize("link", ["farm", "farm/farm_1"])
    def test_a_link_is_not_followed(self, output: Output, tmp_path: Path, link: str) -> None:
        (tmp_path / "other").mkdir()
        path = Path(output.destination.address, link)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(tmp_path / "other")
        with pytest.raises(OutputError, match=f"{link}: is a link"):
            self.put(output)
        assert not list((tmp_path / "other").iterdir())
