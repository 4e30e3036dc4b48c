"""Passes of sync with statistics and composites, and with files that cannot be read yet."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from updates.conftest import Items, Sync

from s2cube.demo.archive import Archive
from s2cube.errors import BusyError, SearchError
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.updates._hook import changed_files

MAY, JUNE, JULY, AUGUST = "20220520", "20220614", "20220709", "20220803"


def slices(*days: str) -> tuple[str, ...]:
    return tuple(f"corner_{day}" for day in sorted(days))


def until(items: Items, day: str) -> Items:
    return [item for item in items if item["properties"]["datetime"][:10].replace("-", "") <= day]


def rows() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in Path("out/statistics").glob("*.parquet"):
        table = pq.read_table(path)
        found |= dict(zip(table["slice"].to_pylist(), table["scenes"].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize("fault", ["missing", "empty", "no asset"])
def test_a_file_that_is_not_there_yet_is_no_failure_and_is_tried_again(
    sync: Sync, every_item: Items, fault: str
) -> None:
    sync.items = until(every_item, JUNE)
    (scene,) = sync.of(JUNE)
    asset = scene["assets"]["blue"]
    path = Path(asset["href"])
    source = path.resolve()
    path.unlink()
    if fault == "empty":
        path.touch()
    elif fault == "no asset":
        path.symlink_to(source)
        del scene["assets"]["blue"]
    first = sync("2022-06-15")
    assert (first.pending, first.failed, first.written) == ((scene["id"],), (), slices(MAY))
    assert not Path("out/failures.jsonl").exists()
    second = sync("2022-06-20", lookback="1d")
    assert (second.pending, second.failed, second.new) == ((scene["id"],), (), ())
    path.unlink(missing_ok=True)
    path.symlink_to(source)
    scene["assets"]["blue"] = asset
    healed = sync("2022-06-21", lookback="1d")
    assert (healed.pending, healed.failed, healed.written) == ((), (), slices(JUNE))
    assert sync("2022-06-22").written == ()


def test_a_file_that_does_not_come_is_a_failure_in_the_end(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JUNE)
    (scene,) = sync.of(JUNE)
    Path(scene["assets"]["blue"]["href"]).unlink()
    assert sync("2022-06-15").pending == (scene["id"],)
    assert sync("2022-06-21", pending_for="7d").failed == ()
    late = sync("2022-06-22", pending_for="7d")
    assert (late.pending, late.failed) == ((), slices(JUNE))
    assert "20220614" in Path("out/failures.jsonl").read_text()
    assert sync("2022-06-23", pending_for="7d").failed == slices(JUNE)


def test_another_fault_of_a_file_is_a_failure_at_once(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JUNE)
    (scene,) = sync.of(JUNE)
    path = Path(scene["assets"]["blue"]["href"])
    path.unlink()
    path.write_bytes(b"this is not a TIFF" * 100)
    first = sync("2022-06-15")
    assert (first.pending, first.failed, first.written) == ((), slices(JUNE), slices(MAY))


def test_a_day_of_outage(sync: Sync, every_item: Items, tmp_path: Path) -> None:
    sync.items = until(every_item, MAY)
    sync("2022-05-21", lookback="10d")
    known = Path("out/.s2cube/scenes").read_bytes()
    with pytest.raises(SearchError):
        sync("2022-06-15", lookback="10d", stac=str(tmp_path / "not-there.json"))
    assert Path("out/.s2cube/scenes").read_bytes() == known
    sync.items = until(every_item, JULY)
    after = sync("2022-07-10", lookback="10d")
    assert (after.written, after.withdrawn) == (slices(JUNE, JULY), ())


def test_two_at_once(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, MAY)
    with held(Output.at("out")), pytest.raises(BusyError):
        sync("2022-05-21")
    assert not Path("out/sync.jsonl").exists()


@pytest.mark.parametrize("products", ["statistics", "images,statistics"])
def test_rows(sync: Sync, every_item: Items, products: str) -> None:
    sync.flags = {"products": products, "lookback": "90d"}
    sync.items = until(every_item, JULY)
    first = sync("2022-07-10")
    assert first.written == slices(MAY, JUNE, JULY)
    assert {*rows()} == {*first.written}
    assert bool(list(Path("out").glob("corner/*/*.tif"))) == ("images" in products)
    assert sync("2022-07-11").requests == 0
    (scene,) = sync.of(MAY)
    scene["properties"]["s2:generation_time"] = "2030-01-01T00:00:00Z"
    gone = sync.of(JUNE)
    sync.items = [item for item in sync.items if item not in gone]
    second = sync("2022-07-12")
    assert (second.written, second.removed) == (slices(MAY), slices(JUNE))
    assert {*rows()} == {*slices(MAY, JULY)}
    third = sync("2022-07-13")
    assert (third.written, third.removed) == ((), ())


@pytest.mark.parametrize("products", ["composites", "images,composites"])
def test_composites_are_made_of_their_whole_period(
    sync: Sync, every_item: Items, products: str, digests: Callable[[Path], dict[str, Any]]
) -> None:
    sync.flags = {"products": products, "lookback": "10d", "datetime": "2022-05/2022-12", "period": "season"}
    sync.items = until(every_item, MAY)
    assert "corner_2022MAM_median" in sync("2022-05-21").written
    sync.items = until(every_item, JUNE)
    assert "corner_2022JJA_median" in sync("2022-06-15").written
    sync.items = until(every_item, JULY)
    made = sync("2022-07-10").written
    assert [each for each in made if "median" in each] == ["corner_2022JJA_median"]
    assert sync("2022-07-11").written == ()
    item = json.loads(Path("out/corner/corner_2022JJA_median/corner_2022JJA_median.json").read_text())
    assert len(item["properties"]["s2cube:scenes"]) == 2
    sync.flags["out"] = "at-once"
    sync.flags["full"] = True
    sync("2022-07-12")
    assert digests(Path("out")) == digests(Path("at-once"))


def test_composites_of_withdrawn_scenes(sync: Sync, every_item: Items) -> None:
    sync.flags = {"products": "composites", "lookback": "90d", "datetime": "2022-05/2022-12", "period": "month"}
    sync.items = until(every_item, JULY)
    assert sync("2022-07-10").written == tuple(f"corner_20220{month}_median" for month in (5, 6, 7))
    sync.items = [item for item in sync.items if item not in sync.of(JUNE)]
    second = sync("2022-07-11")
    assert (second.removed, second.written) == (("corner_202206_median",), ())


def test_a_composite_that_failed_is_tried_again(sync: Sync, every_item: Items) -> None:
    sync.flags = {"products": "composites", "lookback": "10d", "datetime": "2022-05/2022-12", "period": "season"}
    sync.items = until(every_item, JUNE)
    (scene,) = sync.of(JUNE)
    path = Path(scene["assets"]["blue"]["href"])
    source = path.resolve()
    path.unlink()
    path.write_bytes(b"this is not a TIFF" * 100)
    assert sync("2022-06-15").failed == ("corner_2022JJA_median",)
    path.unlink()
    path.symlink_to(source)
    assert sync("2022-07-05").written == ("corner_2022JJA_median",)
    assert sync("2022-07-06").written == ()


def test_a_composite_that_lacks_a_day_is_reported(
    sync: Sync, every_item: Items, caplog: pytest.LogCaptureFixture
) -> None:
    sync.flags = {"products": "composites", "lookback": "90d", "datetime": "2022", "period": "year"}
    sync.items = until(every_item, JUNE)
    (scene,) = sync.of(JUNE)
    path = Path(scene["assets"]["blue"]["href"])
    path.unlink()
    path.write_bytes(b"this is not a TIFF" * 100)
    assert sync("2022-06-15", allow_missing_days=1).written == ("corner_2022_median",)
    assert "corner_2022_median is composed without corner_20220614" in caplog.text


def test_clouds_are_read_once(sync: Sync, every_item: Items, archive: Archive) -> None:
    sync.flags = {"aoi": str(archive.aoi), "max_aoi_cloud": 5, "lookback": "365d"}
    sync.items = copy.deepcopy(every_item)
    first = sync("2022-10-01")
    lines = [json.loads(line)["slice"] for line in Path("out/rejected.jsonl").read_text().splitlines()]
    assert lines
    assert {*lines}.isdisjoint(first.written)
    second = sync("2022-10-02")
    assert (second.requests, second.failed, second.written) == (0, (), ())


def contents() -> dict[str, bytes]:
    """The files of the output that others than s2cube read."""
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    found = {str(path.relative_to("out")): path.read_bytes() for path in files}
    return {name: each for name, each in found.items() if not name.startswith(".s2cube/") and name != "sync.jsonl"}


@pytest.mark.parametrize("products", ["images", "statistics", "images,statistics,composites"])
def test_the_files_that_a_pass_changes_are_listed_for_the_hook(sync: Sync, every_item: Items, products: str) -> None:
    sync.flags = {"products": products, "lookback": "90d", "datetime": "2022", "period": "month", "report": True}
    sync.flags |= {"format": "csv"} if "statistics" in products else {}
    before: dict[str, bytes] = {}
    for day, items in (
        ("2022-06-15", until(every_item, JUNE)),
        ("2022-07-10", until(every_item, JULY)),
        ("2022-07-11", [item for item in until(every_item, JULY) if f"_{JUNE}_" not in item["id"]]),
    ):
        sync.items = items
        made = sync(day)
        assert made.has_changes
        after, listed = contents(), changed_files(made, Output.at("out"))
        differing = {name for name in after if after[name] != before.get(name)}
        is_table = {name for name in differing if name.startswith("statistics/")}
        assert ("statistics" in listed) == bool(is_table)
        assert differing - is_table - {*listed} == set()
        assert {*listed} - {"statistics"} <= after.keys()
        changed = {str(Path(name).parent) for name in differing}
        assert {str(Path(name).parent) for name in listed if name.count("/") == 2} <= changed
        before = after
