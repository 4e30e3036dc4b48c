"""The command composite: its summary, its exit status, and bad input."""

from pathlib import Path

import pytest

from s2cube.demo.archive import Archive
from s2cube.fetch import session
from support.runs import CommandLine, EditItems


def words(archive: Archive, corner: Path, out: Path) -> list[object]:
    of_job = ["composite", "--json", "--aoi", corner, "--stac", archive.items, "--out", out]
    return [*of_job, "--bands", "red,nir", "--resolution", "60"]


def test_summary_and_second_run(s2cube_command: CommandLine, archive: Archive, corner: Path, tmp_path: Path) -> None:
    job = words(archive, corner, tmp_path / "out")
    done = s2cube_command(*job, "--period", "year", "--method", "first")
    assert done.status == 0, done.err
    assert {*done.json} == {"written", "skipped", "failed", "requests", "bytes", "estimated_bytes_saved"}
    assert [Path(each).stem for each in done.json["written"]] == ["corner_2021_first", "corner_2022_first"]
    assert done.json["estimated_bytes_saved"] > 0
    assert "2 composites written to" in done.err
    again = s2cube_command(*job, "--period", "year", "--method", "first")
    assert again.status == 0
    assert again.json == {
        "written": [], "skipped": ["corner_2021_first", "corner_2022_first"], "failed": [], "requests": 0, "bytes": 0,
        "estimated_bytes_saved": 0,
    }  # fmt: skip
    assert (tmp_path / "out" / "catalog.json").exists()


def test_some_failed(
    s2cube_command: CommandLine, archive: Archive, corner: Path, edited: EditItems, tmp_path: Path
) -> None:
    broken = edited(lambda items: items[0]["assets"]["red"].update(href="./nowhere.tif"))
    done = s2cube_command(*words(archive, corner, tmp_path / "out"), "--period", "year", "--stac", broken)
    assert done.status == 2, "a flag that is given twice"
    job = [broken if each == archive.items else each for each in words(archive, corner, tmp_path / "out")]
    done = s2cube_command(*job, "--period", "year", "--slice-retries", "0")
    assert done.status == 3, done.err
    assert [each["slice"] for each in done.json["failed"]] == ["corner_2021_median"]
    assert [Path(each).stem for each in done.json["written"]] == ["corner_2022_median"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "mode"], "'mode' is unknown. Choose median"),
        (["--period", "week"], "'week' is not a period. Choose month"),
        (["--period", "P10D"], "neither a beginning nor an end"),
        (["--period", "all", "--datetime", "2022/.."], "no end"),
        (["--min-count", "0"], "1 or more"),
        (["--method", "best", "--score", "NDVY"], "index 'NDVY' is unknown"),
        (["--score", "NDVI"], "has no effect on the method median"),
        (["--method", "best", "--score", "BAIS2"], "which no scene has"),
        (["--method", "geomedian", "--indices", "NDWI"], "Add green to --bands"),
        (["--method", "geomedian", "--bands", "none", "--indices", "NDVI"], "needs bands of reflectance"),
        (["--allow-missing-days", "-1"], "0 or more"),
        (["--group-by", "scene"], "--group-by"),
    ],
)
def test_bad_input(
    flags: list[str], message: str, s2cube_command: CommandLine, archive: Archive, corner: Path, tmp_path: Path
) -> None:
    job = words(archive, corner, tmp_path / "out")
    if "--bands" in flags:
        job = job[:-4]
    done = s2cube_command(*job, *flags)
    assert done.status == 2, done.err
    assert message in done.err
    assert not list(tmp_path.rglob("*.tif"))


def test_commands_take_only_their_settings(s2cube_command: CommandLine) -> None:
    assert s2cube_command("run", "--period", "month").status == 2
    assert s2cube_command("composite", "--statistics", "mean").status == 2


@pytest.mark.parametrize("flags", [[], ["--method", "best"], ["--period", "P20D", "--datetime", "2022"]])
def test_plan_foresees_requests_and_bytes(
    s2cube_command: CommandLine, archive: Archive, corner: Path, tmp_path: Path, flags: list[str], new_session: None
) -> None:
    job = words(archive, corner, tmp_path / "out")
    foreseen = s2cube_command("plan", *job[1:], "--products", "composites", "--headers", *flags)
    assert foreseen.status == 0, foreseen.err
    session.reset()  # a run in another process would not have the headers
    done = s2cube_command(*job, *flags)
    assert sorted(foreseen.json["todo"]) == [Path(each).stem for each in done.json["written"]]
    assert (foreseen.json["requests"], foreseen.json["bytes"]) == (done.json["requests"], done.json["bytes"])
    assert foreseen.json["requests"] > 0


def test_plan_of_composites_that_are_there(s2cube_command: CommandLine, archive: Archive, corner: Path) -> None:
    job = words(archive, corner, Path("out"))
    assert s2cube_command(*job).status == 0
    foreseen = s2cube_command("plan", *job[1:], "--products", "composites")
    assert (foreseen.json["todo"], foreseen.json["requests"]) == ([], 0)


def test_composites_are_planned_alone(s2cube_command: CommandLine) -> None:
    refused = s2cube_command("plan", "--products", "images,composites")
    assert refused.status == 2
    assert "planned alone" in refused.err
