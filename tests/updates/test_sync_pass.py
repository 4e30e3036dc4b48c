"""A pass of sync: it finds what has changed in the catalogue, makes this, and nothing else."""

import copy
import json
from pathlib import Path

import pytest
from updates.conftest import Items, Sync

from s2cube.storage.folder import Folder
from s2cube.updates.pass_record import Pass, read_passes

MAY, JUNE, JULY, AUGUST = "20220520", "20220614", "20220709", "20220803"


def slices(*days: str) -> tuple[str, ...]:
    return tuple(f"corner_{day}" for day in sorted(days))


def ids(items: Items) -> tuple[str, ...]:
    return tuple(sorted(item["id"] for item in items))


def written(out: Path = Path("out")) -> set[str]:
    return {path.stem for path in out.glob("corner/corner_*/*.json")}


def until(items: Items, day: str) -> Items:
    return [item for item in items if item["properties"]["datetime"][:10].replace("-", "") <= day]


def quiet(made: Pass) -> bool:
    """Return whether a pass made nothing and found no change."""
    lists = (made.new, made.late, made.reprocessed, made.withdrawn, made.pending, made.written, made.failed)
    return not any((*lists, made.removed, made.requests))


def test_the_first_pass_has_only_new_scenes_and_the_second_nothing(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JUNE)
    first = sync("2022-06-15")
    assert first.new == ids(sync.of(MAY) + sync.of(JUNE))
    assert first.found == len(first.new)
    assert first.written == slices(MAY, JUNE)
    assert {Path(each).stem for each in first.files} == {*first.written}
    assert first.requests > 0
    second = sync("2022-06-16")
    assert quiet(second)
    assert second.found == first.found
    assert read_passes(Folder(Path("out").absolute())) == [
        Pass(**{name: tuple(value) if isinstance(value, list) else value for name, value in each.line().items()})
        for each in (first, second)
    ]


def test_only_the_look_back_is_searched_and_all_with_full(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, AUGUST)
    assert sync("2022-08-10", lookback="10d").written == slices(AUGUST)
    assert sync("2022-08-11", lookback="40d").written == slices(JULY)
    full = sync("2022-08-12", full=True, datetime="2022-05/2022-08")
    assert full.written == slices(MAY, JUNE)
    assert (full.late, full.new) == ((), ids(sync.of(MAY) + sync.of(JUNE)))
    assert quiet(sync("2022-08-13", datetime="2022-05/2022-05"))


def test_a_pass_looks_back_from_the_last_pass_if_that_is_long_ago(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, MAY)
    sync("2022-05-25", lookback="10d")
    sync.items = until(every_item, AUGUST)
    assert sync("2022-08-30", lookback="10d").written == slices(JUNE, JULY, AUGUST)


def test_new_and_late(sync: Sync, every_item: Items) -> None:
    (late,) = (item for item in every_item if f"_{JUNE}_" in item["id"])
    sync.items = [item for item in until(every_item, JUNE) if item is not late]
    first = sync("2022-06-15", lookback="60d")
    assert late["id"] not in first.new
    sync.items = until(every_item, JULY)
    second = sync("2022-07-10", lookback="60d")
    assert second.late == (late["id"],)
    assert second.new == ids(sync.of(JULY))
    assert second.written == slices(JUNE, JULY)


@pytest.mark.parametrize("has_new_id", [False, True])
def test_reprocessed(sync: Sync, every_item: Items, has_new_id: bool) -> None:
    sync.items = until(every_item, JULY)
    sync("2022-07-10", lookback="60d")
    (scene,) = sync.of(JUNE)
    again = copy.deepcopy(scene)
    again["properties"] |= {"s2:generation_time": "2030-01-01T00:00:00Z"}
    if has_new_id:
        again["id"] += "_again"
    # A catalogue may keep the older processing beside the new one.
    sync.items = [*(item for item in sync.items if has_new_id or item is not scene), again]
    second = sync("2022-07-11", lookback="60d")
    assert (second.reprocessed, second.new, second.late, second.withdrawn) == ((again["id"],), (), (), ())
    assert second.written == slices(JUNE)
    if has_new_id:
        sync.items = [item for item in sync.items if item is not scene]
    assert quiet(sync("2022-07-12", lookback="60d"))


def test_an_asset_that_is_replaced_under_the_same_address(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JULY)
    sync("2022-07-10", lookback="60d")
    (scene,) = sync.of(JUNE)
    (other,) = sync.of(JULY)
    before = Path(f"out/corner/corner_{JUNE}/corner_{JUNE}.tif").read_bytes()
    path, source = (Path(item["assets"]["blue"]["href"]) for item in (scene, other))
    path.unlink()
    path.write_bytes(source.read_bytes())
    scene["assets"]["blue"]["file:size"] = path.stat().st_size + 1
    second = sync("2022-07-11", lookback="60d")
    assert (second.reprocessed, second.written) == ((scene["id"],), slices(JUNE))
    assert Path(f"out/corner/corner_{JUNE}/corner_{JUNE}.tif").read_bytes() != before


def test_withdrawn_scenes(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JULY)
    first = sync("2022-07-10", lookback="60d")
    gone = sync.of(JUNE)
    sync.items = [item for item in sync.items if item not in gone]
    second = sync("2022-07-11", lookback="60d")
    assert second.withdrawn == ids(gone)
    assert second.removed == slices(JUNE)
    assert (second.written, second.requests) == ((), 0)
    assert written() == {*first.written} - {*slices(JUNE)}
    assert not list(Path("out").rglob(f"*{JUNE}*"))
    listed = json.loads(Path("out/corner/collection.json").read_text())["links"]
    assert not [link for link in listed if JUNE in link["href"]]
    assert quiet(sync("2022-07-12", lookback="60d"))
    sync.items = [*sync.items, *gone]
    back = sync("2022-07-13", lookback="60d")
    assert (back.late, back.written) == (ids(gone), slices(JUNE))


def test_an_empty_answer_withdraws_nothing(sync: Sync, every_item: Items) -> None:
    sync.items = until(every_item, JULY)
    first = sync("2022-07-10", lookback="60d")
    sync.items = []
    second = sync("2022-07-11", lookback="60d")
    assert (second.withdrawn, second.removed, second.found) == ((), (), 0)
    assert written() == {*first.written}
