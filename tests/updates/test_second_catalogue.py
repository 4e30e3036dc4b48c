"""A second catalogue: for scenes that the first one lacks, and for days on which the first one does not answer."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from updates.conftest import Items, Sync

from s2cube.errors import SearchError
from s2cube.updates.pass_record import Pass

MAY, JUNE, JULY = "20220520", "20220614", "20220709"


def of_days(items: Items, *days: str) -> Items:
    return [item for item in items if any(f"_{day}_" in item["id"] for day in days)]


class Two:
    """Passes on two catalogues, which name their scenes differently."""

    def __init__(self, sync: Sync, every_item: Items, folder: Path) -> None:
        self._sync, self._path, self._every = sync, folder / "second.json", every_item
        sync.flags = {"lookback": "90d", "also": f"{self._path},sentinel-2-l2a"}
        self.here: Items | None = []
        self.there: Items | None = []

    def in_first(self, *days: str, **properties: Any) -> Items:
        items = copy.deepcopy(of_days(self._every, *days))
        for item in items:
            item["properties"] |= properties
        return items

    def in_second(self, *days: str) -> Items:
        items = copy.deepcopy(of_days(self._every, *days))
        for item in items:
            item["id"] = f"other_{item['id']}"
        return items

    def make(self, day: str, **flags: Any) -> Pass:
        """Make a pass. A catalogue without items does not answer."""
        self._path.unlink(missing_ok=True)
        if self.there is not None:
            self._path.write_text(json.dumps({"type": "FeatureCollection", "features": self.there}))
        if self.here is None:
            flags["stac"] = str(self._path.with_name("nothing.json"))
        self._sync.items = self.here or []
        return self._sync(day, **flags)


@pytest.fixture
def two(sync: Sync, every_item: Items, tmp_path: Path) -> Two:
    return Two(sync, every_item, tmp_path)


def images() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").glob("corner/corner_*/*.tif")}


def slices(*days: str) -> tuple[str, ...]:
    return tuple(f"corner_{day}" for day in days)


def test_a_scene_that_only_the_second_has(two: Two) -> None:
    two.here, two.there = two.in_first(MAY, JUNE), two.in_second(MAY, JUNE, JULY)
    made = two.make("2022-07-10")
    assert made.written == slices(MAY, JUNE, JULY)
    assert made.also == tuple(item["id"] for item in two.in_second(JULY))
    assert made.found == len(made.new) == len(two.here) + len(made.also)
    assert made.outage == ""


def test_what_one_made_is_not_remade_from_the_other(two: Two) -> None:
    two.here, two.there = two.in_first(MAY), two.in_second(MAY, JUNE)
    two.make("2022-06-15")
    before = images()
    two.here = two.in_first(MAY, JUNE)
    again = two.make("2022-06-16")
    assert (again.written, again.new, again.late, again.reprocessed, again.requests) == ((), (), (), (), 0)
    assert again.also == tuple(item["id"] for item in two.in_second(JUNE))
    assert images() == before


def test_a_newer_processing_of_the_first_is_used(two: Two) -> None:
    two.here, two.there = two.in_first(MAY), two.in_second(MAY, JUNE)
    two.make("2022-06-15")
    newer = two.in_first(JUNE, **{"s2:processing_baseline": "05.10"})
    two.here = [*two.in_first(MAY), *newer]
    again = two.make("2022-06-16")
    assert again.written == slices(JUNE)
    assert again.reprocessed == tuple(item["id"] for item in newer)
    assert again.also == ()


def test_an_outage_of_the_first(two: Two) -> None:
    two.here, two.there = two.in_first(MAY, JUNE), two.in_second(MAY)
    two.make("2022-06-15")
    before = images()
    two.here, two.there = None, two.in_second(MAY, JUNE, JULY)
    made = two.make("2022-07-10")
    assert made.written == slices(JULY)
    assert made.new == tuple(item["id"] for item in two.in_second(JULY))
    assert (made.withdrawn, made.removed, made.reprocessed, made.failed) == ((), (), (), ())
    assert "nothing.json" in made.outage
    assert {name: images()[name] for name in before} == before
    # The first one is there again: what the second one made stays.
    after = images()
    two.here = two.in_first(MAY, JUNE, JULY)
    again = two.make("2022-07-11")
    assert (again.written, again.withdrawn, again.outage) == ((), (), "")
    assert images() == after


def test_an_outage_of_the_second_withdraws_nothing(two: Two) -> None:
    two.here, two.there = two.in_first(MAY), two.in_second(JUNE)
    two.make("2022-06-15")
    before = images()
    two.there = None
    made = two.make("2022-06-16")
    assert (made.written, made.withdrawn, made.removed) == ((), (), ())
    assert "second.json" in made.outage
    assert images() == before


def test_the_second_withdraws_nothing(two: Two) -> None:
    two.here, two.there = two.in_first(MAY), two.in_second(MAY, JUNE)
    two.make("2022-06-15")
    before = images()
    two.there = two.in_second(MAY)
    made = two.make("2022-06-16")
    assert (made.written, made.withdrawn, made.removed) == ((), (), ())
    assert images() == before


def test_the_first_withdraws_its_own_scenes(two: Two) -> None:
    two.here, two.there = two.in_first(MAY, JUNE), two.in_second(JULY)
    two.make("2022-07-10")
    two.here = two.in_first(MAY)
    made = two.make("2022-07-11")
    assert made.removed == slices(JUNE)
    assert made.withdrawn == tuple(item["id"] for item in two.in_first(JUNE))
    assert {*images()} == {f"{each}{end}" for each in slices(MAY, JULY) for end in (".tif", "_qa.tif")}


def test_both_fail(two: Two) -> None:
    two.here = two.there = None
    with pytest.raises(SearchError, match=r"nothing\.json"):
        two.make("2022-06-15")


@pytest.mark.parametrize("product", ["statistics", "images,statistics,composites"])
def test_other_products(two: Two, product: str) -> None:
    flags = {"products": product, "datetime": "2022-05/2022-07"}
    two.here, two.there = two.in_first(MAY), two.in_second(MAY, JUNE)
    made = two.make("2022-06-15", **flags)
    assert {*slices(MAY, JUNE)} <= {*made.written}
    again = two.make("2022-06-16", **flags)
    assert (again.written, again.requests) == ((), 0)
