"""What plan foresees of composites is what their run needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import s2cube
from s2cube.composites.compute_composites import compute_composites
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.fetch import session
from support.runs import CommandLine, EditItems


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


def settings(archive: Archive, out: Path, **more: object) -> dict[str, object]:
    of_job = {"aoi": archive.aoi, "stac": archive.items, "out": out, "bands": "red", "resolution": 60, "period": "year"}
    return of_job | more


def words(given: dict[str, object]) -> list[object]:
    return ["--json", "--products", "composites", *(f"--{key.replace('_', '-')}={each}" for key, each in given.items())]


METHODS = [{"method": "median"}, {"method": "best", "score": "NDVI", "dilation": 100}]


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each["method"])
@pytest.mark.parametrize("cells", [2048, 32], ids=["small", "large"])
def test_requests_and_bytes_of_the_run(
    method: dict[str, object], cells: int, archive: Archive, tmp_path: Path, s2cube_command: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", cells)
    given = settings(archive, tmp_path, **method)
    plan = s2cube_command("plan", "--headers", *words(given))
    assert plan.status == 0, plan.err
    session.reset()
    done = compute_composites(load_config(given, {}))
    assert plan.json["todo"] == sorted(Path(each).stem for each in done.written)
    assert (plan.json["requests"], plan.json["bytes"], plan.json["exact"]) == (done.requests, done.bytes, True)
    assert sum(plan.json["days"].values()) == 6
    assert plan.json["output_bytes"] >= sum(Path(each).stat().st_size for each in done.written)
    again = s2cube_command("plan", *words(given)).json
    assert (again["todo"], len(again["skipped"]), again["requests"]) == ([], 2, 0)


def test_daily_images(archive: Archive, tmp_path: Path, s2cube_command: CommandLine) -> None:
    given = settings(archive, tmp_path)
    images = s2cube.run(load_config({key: each for key, each in given.items() if key != "period"}, {}), progress=False)
    session.reset()
    plan = s2cube_command("plan", "--headers", *words(given)).json
    done = compute_composites(load_config(given, {}))
    assert sum(plan["days_stored"].values()) == len(images.written)
    assert (plan["requests"], plan["bytes"]) == (done.requests, done.bytes)
    assert done.bytes == sum(Path(each).stat().st_size for each in images.written)


def test_first_needs_at_most_what_is_planned(archive: Archive, tmp_path: Path, s2cube_command: CommandLine) -> None:
    given = settings(archive, tmp_path, method="first")
    plan = s2cube_command("plan", "--headers", *words(given))
    session.reset()
    done = compute_composites(load_config(given, {}))
    assert not plan.json["exact"]
    assert "at most" in plan.err
    assert done.bytes < plan.json["bytes"]


def test_a_day_that_cannot_be_read(
    archive: Archive, edited: EditItems, tmp_path: Path, s2cube_command: CommandLine
) -> None:
    def damaged(items: list[dict[str, dict[str, dict[str, str]]]]) -> None:
        next(item for item in items if "20220614" in item["id"])["assets"]["red"]["href"] = "./nowhere.tif"

    given = settings(archive, tmp_path, stac=edited(damaged))
    plan = s2cube_command("plan", "--headers", *words(given)).json
    assert (plan["todo"], [each["slice"] for each in plan["failed"]]) == (["farm_2021_median"], ["farm_2022_median"])
    plan = s2cube_command("plan", "--headers", *words(given | {"allow_missing_days": 1})).json
    assert (plan["todo"], plan["failed"]) == (["farm_2021_median", "farm_2022_median"], [])
