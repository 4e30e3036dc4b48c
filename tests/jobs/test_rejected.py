"""Slices that --max-aoi-cloud rejected: their masks are read once."""

import json
from pathlib import Path
from typing import Any

import pytest

import s2cube
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.jobs.results import Summary
from support.runs import EditItems


@pytest.fixture
def flags(archive: Archive) -> dict[str, Any]:
    return {"aoi": str(archive.aoi), "stac": str(archive.items), "bands": "blue", "resolution": 60, "max_aoi_cloud": 5}


def run(flags: dict[str, Any], **more: Any) -> Summary:
    return s2cube.run(load_config(flags | more, {}), progress=False)


def recorded() -> dict[str, dict[str, Any]]:
    lines = Path("out/rejected.jsonl").read_text().splitlines()
    return {line["slice"]: line for line in map(json.loads, lines)}


def test_are_recorded_and_cost_nothing_again(flags: dict[str, Any]) -> None:
    first = run(flags)
    assert first.rejected
    assert first.written
    assert {name: line["reason"] for name, line in recorded().items()} == {
        each["slice"]: each["reason"] for each in first.rejected
    }
    for line in recorded().values():
        assert line.keys() == {"slice", "reason", "cloud_percent", "recipe"}
        assert line["reason"].startswith(f"{line['cloud_percent']:.1f} % cloud")
    second = run(flags)
    assert (second.requests, second.written, second.rejected) == (0, [], first.rejected)
    # The files may be in the cache of this process. The forecast counts what would be read without it.
    assert second.expected["requests"] == 0


def test_another_limit_decides_without_the_masks_where_their_cloud_is_known(flags: dict[str, Any]) -> None:
    first = run(flags)
    clouds = sorted(line["cloud_percent"] for line in recorded().values())
    stricter = run(flags, max_aoi_cloud=4)
    assert [each["slice"] for each in stricter.rejected] == [each["slice"] for each in first.rejected]
    assert all(each["reason"].endswith("more than 4") for each in stricter.rejected)
    assert (stricter.requests, stricter.expected["requests"]) == (0, 0)
    relaxed = run(flags, max_aoi_cloud=clouds[0])
    made = {Path(path).stem for path in relaxed.written}
    assert made == {name for name, line in recorded_before(first, clouds) if line == clouds[0]}
    assert made.isdisjoint(recorded())


def recorded_before(first: Summary, clouds: list[float]) -> list[tuple[str, float]]:
    """Return the clouds of rejected slices, from the reasons that users read."""
    by_text = {f"{cloud:.1f}": cloud for cloud in clouds}
    return [(each["slice"], by_text[each["reason"].split(" ")[0]]) for each in first.rejected]


def test_are_read_again_with_overwrite_and_if_a_scene_has_changed(flags: dict[str, Any], edited: EditItems) -> None:
    first = run(flags)
    again = run(flags, overwrite=True)
    assert again.rejected == first.rejected
    assert again.expected["requests"] > 0
    name = first.rejected[0]["slice"]
    day = name.removeprefix("farm_")
    stac = edited(lambda items: [
        item["properties"].__setitem__("s2:generation_time", "2030-01-01T00:00:00Z")
        for item in items if day in item["id"]
    ] and None)  # fmt: skip
    before = recorded()
    changed = run(flags, stac=str(stac))
    assert changed.expected["requests"] > 0
    other = {each for each in before if before[each]["recipe"] != recorded()[each]["recipe"]}
    assert name in other


def test_a_damaged_list_is_read_as_far_as_it_can_be(flags: dict[str, Any]) -> None:
    first = run(flags)
    lines = Path("out/rejected.jsonl").read_text().splitlines()
    Path("out/rejected.jsonl").write_text("\n".join(["[]", '{"slice": 1}', *lines[1:], '{"slice": "x", "rea']))
    second = run(flags)
    assert second.expected["requests"] > 0
    assert second.rejected == first.rejected
    assert len(recorded()) == len(lines)


def test_with_statistics_the_rows_of_rejected_slices_are_there_and_cost_nothing_again(flags: dict[str, Any]) -> None:
    first = run(flags, statistics="mean")
    second = run(flags, statistics="mean")
    assert first.rows == len(first.written) + len(first.rejected)
    assert (second.requests, second.rows, second.rejected) == (0, 0, first.rejected)
