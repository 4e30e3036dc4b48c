"""Many areas are searched and planned together: each gets what it would get alone, at the price of one search."""

import copy
import json
import pickle
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pystac
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from s2cube.area.aoi import AOI
from s2cube.area.gathering import gather
from s2cube.config.sections import CubeSection, SearchSection
from s2cube.scenes import plan as planning
from s2cube.scenes.assets import drop_unused_assets
from s2cube.scenes.plan import Planner, make_plan, narrow
from s2cube.scenes.search import Catalogue, find_scenes, open_catalogue
from s2cube.stac._items import from_features
from support.apis import FakeApi

WEST, SOUTH, SIDE = 14.0, 47.0, 0.4
"""West, south, and side of a granule here, degrees."""


def scene(number: int, day: int, column: int, row: int, **properties: Any) -> dict[str, Any]:
    """Describe a scene of a grid of granules that overlap, at a time near the end of a solar day."""
    west, south = WEST + column * SIDE * 0.9, SOUTH + row * SIDE * 0.9
    instant = datetime(2024, 1, 1, 22, 55, tzinfo=UTC) + timedelta(days=day, minutes=number % 9)
    facts = {
        "datetime": f"{instant:%Y-%m-%dT%H:%M:%SZ}", "eo:cloud_cover": number * 37 % 100, "proj:epsg": 32633,
        "s2:processing_baseline": "02.14", "s2:datatake_id": f"GS2A_{day:05}", "s2:mgrs_tile": f"{column}-{row}",
    }  # fmt: skip
    keys = ("blue", "red", "scl")
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"s{number:04}", "collection": "sentinel-2-l2a", "links": [],
        "geometry": shapely.geometry.mapping(shapely.box(west, south, west + SIDE, south + SIDE)), "bbox": None,
        "properties": facts | properties, "assets": {key: {"href": f"https://host/{number}/{key}.tif"} for key in keys},
    }  # fmt: skip


@pytest.fixture(scope="module")
def features() -> list[dict[str, Any]]:
    """Scenes of 20 days over 3 x 3 granules; some processed twice, one without a place, one without a time."""
    places = [(day, column, row) for day in range(20) for column in range(3) for row in range(3)]
    found = [scene(number, *place) for number, place in enumerate(places)]
    again = copy.deepcopy(found[::7])
    for each in again:
        each["id"] += "_again"
        each["properties"] |= {"s2:processing_baseline": "03.01", "eo:cloud_cover": 50}
    found += again
    found[40]["geometry"] = None
    found[50]["properties"]["datetime"] = "soon"
    return found


@pytest.fixture(scope="module")
def aois() -> list[AOI]:
    """Fields, some over edges of granules; one that only touches granules; two far away, over the antimeridian too."""
    chosen = random.Random(3)
    fields = [
        shapely.Point(chosen.uniform(WEST, WEST + 1.1), chosen.uniform(SOUTH, SOUTH + 1.1)).buffer(0.02, quad_segs=3)
        for _ in range(25)
    ]
    fields += [shapely.box(WEST - 0.02, SOUTH, WEST, SOUTH + 0.3), shapely.box(-60, -10, -59.9, -9.9)]
    return [AOI(f"f{number}", shape) for number, shape in enumerate([*fields, shapely.box(179.95, 5, 180.05, 5.1)])]


SETTINGS: list[dict[str, Any]] = [
    {}, {"datetime": "2024-01-05/2024-01-09"}, {"datetime": "2024-01-05T10:00:00Z/2024-01-08T22:58:00Z"},
    {"max_cloud": 40}, {"max_items": 3}, {"max_items": 2, "max_cloud": 60, "datetime": "../2024-01-14T22:57:00Z"},
]  # fmt: skip
CUBE = CubeSection(bands=("blue",))


def ids_of(aois: list[AOI], search: SearchSection, catalogue: Catalogue) -> list[list[str]]:
    return [[each.item.id for each in of_area] for of_area in find_scenes(aois, search, catalogue)]


def met_by(aoi: AOI, features: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the scenes that cover a part of an area, or do not say where they lie."""
    area = aoi.geometry_lonlat.geom
    return {
        each["id"] for each in features
        if each["geometry"] is None or (shapely.geometry.shape(each["geometry"]) & area).area > 0
    }  # fmt: skip


class TestSearch:
    @pytest.fixture
    def api(self, httpserver: HTTPServer, features: list[dict[str, Any]]) -> FakeApi:
        made = FakeApi(httpserver, copy.deepcopy(features))
        made.heeds -= {"intersects"}  # shapely cannot read the scene without a place
        made.features = [each for each in made.features if each["properties"]["datetime"] != "soon"]
        return made

    @pytest.mark.parametrize("given_", SETTINGS)
    def test_each_area_gets_what_it_gets_alone(self, api: FakeApi, aois: list[AOI], given_: dict[str, Any]) -> None:
        search = SearchSection.of({"stac": api.root} | given_)
        catalogue = open_catalogue(search)
        together = ids_of(aois, search, catalogue)
        assert together == [ids_of([aoi], search, catalogue)[0] for aoi in aois]
        assert sum(map(len, together)) > 10

    @pytest.mark.parametrize("given_", SETTINGS)
    def test_of_a_file_too(self, features: list[dict[str, Any]], aois: list[AOI], given_: dict[str, Any]) -> None:
        search = SearchSection.of(given_)
        items = list(from_features(copy.deepcopy(features), "https://host/items"))
        assert ids_of(aois, search, items) == [ids_of([aoi], search, items)[0] for aoi in aois]

    def test_shapely_says_the_same(self, api: FakeApi, aois: list[AOI]) -> None:
        search = SearchSection.of({"stac": api.root})
        for aoi, found in zip(aois, ids_of(aois, search, open_catalogue(search)), strict=True):
            right = met_by(aoi, api.features)
            assert {*found} == right
            assert len(found) == len(right)

    def test_two_thousand_areas_in_a_granule_are_one_search(self, api: FakeApi) -> None:
        chosen = random.Random(4)
        places = [(WEST + chosen.uniform(0, 1.1), SOUTH + chosen.uniform(0, 0.8)) for _ in range(2000)]
        fields = [AOI(f"f{number}", shapely.box(x, y, x + 0.004, y + 0.004)) for number, (x, y) in enumerate(places)]
        search = SearchSection.of({"stac": api.root})
        catalogue = open_catalogue(search)
        assert all(ids_of(fields, search, catalogue))
        # The second page is full of scenes, but the server counts them.
        assert [each.question.get("offset") for each in api.asked] == [None, 100, 200]
        (vertices,) = {shapely.get_num_coordinates(_asked_area(each.question)) for each in api.asked}
        assert vertices <= 100

    def test_a_far_area_is_not_in_the_question_of_others(self, api: FakeApi, aois: list[AOI]) -> None:
        search = SearchSection.of({"stac": api.root, "datetime": "2024-01-05"})
        find_scenes(aois, search, open_catalogue(search))
        widths = {_asked_area(each.question).bounds[2] - _asked_area(each.question).bounds[0] for each in api.asked}
        assert len(api.asked) == 3
        assert sorted(round(width, 2) for width in widths)[::2] == [0.1, 360]  # west and east of the antimeridian

    @pytest.mark.parametrize(
        ("item", "asset", "shared"),
        [("x?sig={}", "x", 2), ("{}/x", "x", 0), ("x", "{}/x", 0)],
        ids=["signature", "address of the item", "asset"],
    )
    def test_gatherings_share_the_scenes_that_cover_both(
        self, httpserver: HTTPServer, item: str, asset: str, shared: int
    ) -> None:
        """Two scenes that share an id are two scenes, in one answer and in two. Each answer has its own signatures."""
        place = {"geometry": shapely.geometry.mapping(shapely.box(14, 47, 15.5, 48))}
        api = FakeApi(httpserver, [scene(1, day, 0, 0) | place for day in (1, 2)])

        def differ(_: str, __: dict[str, Any], page: list[dict[str, Any]]) -> None:
            for each in page:
                each["links"] = [{"rel": "self", "href": f"https://host/{item.format(len(api.asked))}"}]
                each["assets"]["blue"] = {"href": f"https://host/{asset.format(len(api.asked))}.tif"}

        api.refuse = differ
        places = zip("abc", (14.1, 15.4, 16.6), strict=True)
        aois = [AOI(name, shapely.box(lon, 47.1, lon + 0.01, 47.11)) for name, lon in places]
        assert [each.positions for each in gather(aois)] == [(0,), (1, 2)]
        catalogue = open_catalogue(search := SearchSection.of({"stac": api.root}))
        first, second, far = find_scenes(aois, search, catalogue, lambda each: drop_unused_assets(each, CUBE))
        assert len(api.asked) == 2
        assert [len({id(each) for each in of_area}) for of_area in (first, second, far)] == [2, 2, 0]
        assert len({id(each) for each in first} & {id(each) for each in second}) == shared

    def test_solar_days_of_all_longitudes_are_asked_for(self, api: FakeApi) -> None:
        """In the west of a gathering a day begins later than in the east."""
        fields = [AOI(f"f{lon:.0f}", shapely.box(lon, SOUTH, lon + 0.01, SOUTH + 0.01)) for lon in (14.1, 15.5)]
        search = SearchSection.of({"stac": api.root, "datetime": "2024-01-05/2024-01-09"})
        find_scenes(fields, search, open_catalogue(search))
        (asked,) = {each.question["datetime"] for each in api.asked}
        first, last = map(datetime.fromisoformat, asked.split("/"))
        assert first == datetime(2024, 1, 5, tzinfo=UTC) - timedelta(hours=fields[1].lon / 15)
        assert last == datetime(2024, 1, 10, tzinfo=UTC) - timedelta(hours=fields[0].lon / 15) - timedelta(
            microseconds=1
        )

    def test_the_newest_of_several_areas_do_not_need_all_pages(self, api: FakeApi, aois: list[AOI]) -> None:
        api.largest = 10
        for each in api.features:
            instant = datetime.fromisoformat(each["properties"]["datetime"]) - timedelta(hours=12)
            each["properties"]["datetime"] = f"{instant:%Y-%m-%dT%H:%M:%SZ}"
        near, search = aois[:25], SearchSection.of({"stac": api.root, "max_items": 3})
        together = ids_of(near, search, open_catalogue(search))
        # Three days of nine granules, some twice, after which another day begins.
        assert [each.question.get("offset") for each in api.asked] == [None, 10, 20, 30]
        assert together == [ids_of([aoi], search, open_catalogue(search))[0] for aoi in near]
        times = {each["id"]: each["properties"]["datetime"][:10] for each in api.features}
        for aoi, found in zip(near, together, strict=True):
            assert len({name.removesuffix("_again") for name in found}) >= 3
            assert {*found} == {name for name in met_by(aoi, api.features) if times[name] >= min(map(times.get, found))}

    def test_a_scene_of_unknown_place_is_told_of_once(
        self, api: FakeApi, aois: list[AOI], caplog: pytest.LogCaptureFixture
    ) -> None:
        near = aois[:25]
        search = SearchSection.of({"stac": api.root})
        found = ids_of(near, search, open_catalogue(search))
        assert all("s0040" in each for each in found)
        (said,) = [each.message for each in caplog.records if "s0040" in each.message]
        assert said.startswith("s0040: has no geometry. ")
        assert said.endswith("s2cube assumes that it covers f0 and 24 other areas")


def _asked_area(question: dict[str, Any]) -> Any:
    return shapely.geometry.shape(question["intersects"])


RING = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=6, unique=True)


@given(RING, st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8))
def test_any_footprint_covers_what_it_did_alone(ring: list[tuple[int, int]], corners: list[tuple[int, int]]) -> None:
    """Also one that crosses itself; areas inside, over an edge, and beside it. shapely says which it meets."""
    outline = shapely.Polygon(ring)
    if shapely.make_valid(outline).is_empty:
        return
    feature = scene(1, 0, 0, 0) | {"geometry": shapely.geometry.mapping(outline)}
    aois = [AOI(f"f{number}", shapely.box(x, y, x + 1, y + 1)) for number, (x, y) in enumerate(corners)]
    found = find_scenes(aois, SearchSection(), list(from_features([feature], "https://host/items")))
    valid = shapely.make_valid(outline)
    for aoi, of_area in zip(aois, found, strict=True):
        area = aoi.geometry_lonlat.geom
        assert len(of_area) == (valid.intersects(area) and not valid.touches(area))


class TestPlan:
    @pytest.fixture
    def items(self, features: list[dict[str, Any]]) -> list[pystac.Item]:
        return list(from_features(copy.deepcopy(features), "https://host/items"))

    @pytest.mark.parametrize("given_", SETTINGS)
    def test_each_area_is_planned_as_alone(
        self, items: list[pystac.Item], aois: list[AOI], given_: dict[str, Any]
    ) -> None:
        search = SearchSection.of(given_)
        planner = Planner(CUBE)
        for aoi, scenes in zip(aois, find_scenes(aois, search, items), strict=True):
            together = narrow(planner.plan(scenes, aoi), search)
            (found,) = find_scenes([aoi], search, items)
            alone = narrow(make_plan([each.item for each in found], aoi, CUBE), search)
            assert [vars(each) for each in together.slices] == [vars(each) for each in alone.slices]
            assert [(each.id, str(each.error)) for each in together.unusable] == [
                (each.id, str(each.error)) for each in alone.unusable
            ]
            assert (together.geobox, together.search) == (alone.geobox, alone.search)

    def test_an_item_is_checked_once(
        self, items: list[pystac.Item], aois: list[AOI], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked: list[str] = []
        check = planning.check_scene

        def count(item: pystac.Item, config: CubeSection) -> None:
            checked.append(item.id)
            check(item, config)

        monkeypatch.setattr("s2cube.scenes.plan.check_scene", count)
        planner = Planner(CUBE)
        plans = [
            planner.plan(each, aoi) for aoi, each in zip(aois, find_scenes(aois, SearchSection(), items), strict=True)
        ]
        assert sum(len(plan.scenes) for plan in plans) > 2 * len(items)
        assert len(checked) == len({*checked})

    def test_areas_share_items(self, items: list[pystac.Item], aois: list[AOI]) -> None:
        """What a worker receives of many areas is not much more than of one."""
        planner, near = Planner(CUBE), aois[:25]
        kept: list[str] = []

        def keep(item: pystac.Item) -> pystac.Item:
            kept.append(item.id)
            return drop_unused_assets(item, CUBE)

        found = find_scenes(near, SearchSection.of({"datetime": "2024-01-05/2024-01-09"}), items, keep)
        assert len(kept) == len({*kept})
        plans = [planner.plan(each, aoi) for aoi, each in zip(near, found, strict=True)]
        scenes = [scene for plan in plans for scene in plan.scenes]
        assert len({id(each) for each in scenes}) <= len(kept) < len(scenes) / 2
        tasks = [task for plan in plans for task in plan.tasks()]
        assert len(pickle.dumps(tasks)) < 0.5 * sum(len(pickle.dumps(task)) for task in tasks)

    def test_dropped_scenes_and_unknown_catalogues_are_told_of_once(
        self, features: list[dict[str, Any]], aois: list[AOI], caplog: pytest.LogCaptureFixture
    ) -> None:
        unknown = [each | {"collection": "mine"} for each in json.loads(json.dumps(features))]
        planner = Planner(CUBE)
        search = SearchSection.of({"collection": "mine"})
        with caplog.at_level("INFO"):
            found = find_scenes(aois, search, list(from_features(unknown, "https://host/items")))
            dropped = [
                each for aoi, scenes in zip(aois, found, strict=True)
                for one in planner.plan(scenes, aoi).slices for each in one.dropped
            ]  # fmt: skip
        said = [each.message for each in caplog.records]
        assert len(dropped) > len({*dropped}) > 10
        assert {f"{each.scene}: not used; {each.kept} is used instead ({each.reason})" for each in dropped} <= {*said}
        assert len(said) == len({*said})
        assert sum("collection mine is not from a catalogue that s2cube knows" in each for each in said) == 1


def test_lists_of_the_scenes_of_an_area_are_independent(features: list[dict[str, Any]], aois: list[AOI]) -> None:
    items = list(from_features(copy.deepcopy(features), "https://host/items"))
    first, second = find_scenes([aois[0], aois[0]], SearchSection(), items)
    assert [id(each) for each in first] == [id(each) for each in second]
    assert first is not second
    assert all(one.sort_key <= other.sort_key for one, other in pairwise(first))
