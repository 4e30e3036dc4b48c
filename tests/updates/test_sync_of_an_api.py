"""Passes on a real STAC API, pgstac, whose content changes between them."""

import copy
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import geopandas
import pytest
import requests
import shapely
from updates.conftest import Items, Sync

from s2cube.stac import catalogue_io
from s2cube.stac.catalogue_io import Answer, Request
from support import servers
from support.runs import FARM

MAY, JUNE, JULY, AUGUST = "20220520", "20220614", "20220709", "20220803"
COLLECTION = {
    "type": "Collection", "id": "sentinel-2-l2a", "stac_version": "1.0.0", "description": "Level-2A", "links": [],
    "license": "proprietary",
    "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def api(server_processes: None) -> Iterator[str]:
    with servers.stac_api([COLLECTION], []) as url:
        yield url


class Content:
    """The items of the API."""

    def __init__(self, url: str) -> None:
        self._items = f"{url}/collections/sentinel-2-l2a/items"

    def _sent(self, method: str, path: str = "", item: Any = None) -> None:
        requests.request(method, self._items + path, json=item, timeout=30).raise_for_status()

    def all(self) -> Items:
        found: Items = requests.get(self._items, {"limit": 1000}, timeout=30).json()["features"]
        return found

    def add(self, items: Items) -> None:
        for item in items:
            self._sent("POST", "", item)

    def replace(self, items: Items) -> None:
        for item in items:
            self._sent("PUT", f"/{item['id']}", item)

    def remove(self, items: Items) -> None:
        for item in items:
            self._sent("DELETE", f"/{item['id']}")


def ids(items: Items) -> tuple[str, ...]:
    return tuple(sorted(item["id"] for item in items))


def written() -> set[str]:
    return {path.stem.removeprefix("corner_") for path in Path("out").glob("corner/corner_*/*.json")}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    with servers.faulty(tmp_path) as server:
        yield server.url


def test_a_catalogue_that_changes(api: str, files: str, sync: Sync, every_item: Items, tmp_path: Path) -> None:
    content = Content(api)
    sync.flags = {"stac": api, "lookback": "90d"}
    for asset in (asset for item in every_item for asset in item["assets"].values()):
        asset["href"] = f"{files}/{Path(asset['href']).relative_to(tmp_path)}"
    days = {
        day: [copy.deepcopy(item) | {"collection": "sentinel-2-l2a"} for item in every_item if f"_{day}_" in item["id"]]
        for day in (MAY, JUNE, JULY, AUGUST)
    }
    content.add(days[MAY] + days[JULY])
    first = sync("2022-07-10")
    assert (first.new, first.written) == (ids(days[MAY] + days[JULY]), ("corner_20220520", "corner_20220709"))
    content.add(days[JUNE])
    late = sync("2022-07-11")
    assert (late.new, late.late, late.written) == ((), ids(days[JUNE]), ("corner_20220614",))
    # The same ids, another baseline.
    again = copy.deepcopy(days[MAY])
    for item in again:
        item["properties"]["s2:processing_baseline"] = "05.10"
    content.replace(again)
    reprocessed = sync("2022-07-12")
    assert (reprocessed.reprocessed, reprocessed.written) == (ids(again), ("corner_20220520",))
    # A new id: the older processing is there, too, and then not any more.
    newer = copy.deepcopy(days[JUNE])
    for item in newer:
        item["id"] += "_newer"
        item["properties"]["s2:processing_baseline"] = "05.10"
    content.add(newer)
    assert sync("2022-07-13").written == ("corner_20220614",)
    content.remove(days[JUNE])
    assert sync("2022-07-14").written == ()
    content.remove(days[JULY])
    gone = sync("2022-07-15")
    assert (gone.withdrawn, gone.removed) == (ids(days[JULY]), ("corner_20220709",))
    assert written() == {MAY, JUNE}
    content.add(days[AUGUST])
    assert sync("2022-08-04").new == ids(days[AUGUST])
    quiet = sync("2022-08-05")
    assert (quiet.written, quiet.new, quiet.requests) == ((), (), 0)


def test_few_searches_for_200_areas_with_nothing_new(
    api: str, files: str, sync: Sync, every_item: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    send = catalogue_io._send

    def count(request: Request, timeout_s: float) -> Answer:
        asked.append(f"{request.method} {request.address}")
        return send(request, timeout_s)

    monkeypatch.setattr(catalogue_io, "_send", count)
    content = Content(api)
    content.remove(content.all())
    for asset in (asset for item in every_item for asset in item["assets"].values()):
        asset["href"] = f"{files}/{Path(asset['href']).relative_to(tmp_path)}"
    content.add(
        [copy.deepcopy(item) | {"collection": "sentinel-2-l2a"} for item in every_item if f"_{JULY}_" in item["id"]]
    )
    sync.aoi = tmp_path / "fields.geojson"
    left, bottom, _, _ = FARM
    corners = product(range(20), range(10))
    boxes = [shapely.box(left + 50 * x, bottom + 60 * y, left + 50 * x + 45, bottom + 60 * y + 50) for x, y in corners]
    frame = geopandas.GeoDataFrame({"id": [f"f{at}" for at in range(200)]}, geometry=boxes, crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(sync.aoi)
    sync.flags = {"stac": api, "lookback": "30d"}
    first = sync("2022-07-10")
    assert len({each.rpartition("_")[0] for each in first.written}) == 200
    asked.clear()
    second = sync("2022-07-11")
    assert (second.found, second.written, second.requests) == (first.found, (), 0)
    assert 1 <= sum("/search" in each for each in asked) <= 2, asked
    assert len(asked) <= 4, asked
