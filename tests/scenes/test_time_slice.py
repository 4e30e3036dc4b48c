"""Whole days: which slices a question for dates gets, which scenes they are made of, and how they are called."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.config.times import TimeRange, day_begin, solar_day
from s2cube.scenes.plan import make_plan
from s2cube.stac._items import from_features
from support.apis import Server
from support.runs import CommandLine, Job

EAST_DEG = 252
"""From the demo's farm in Nebraska to 154 degrees east, whose solar day begins at 13:45 UTC."""

Ask = Callable[..., Any]
Features = list[dict[str, Any]]


def moved(feature: dict[str, Any], name: str, time: str) -> dict[str, Any]:
    """Give the item of a granule at 154 degrees east."""
    item = copy.deepcopy(feature)
    outline = shapely.affinity.translate(shapely.geometry.shape(item["geometry"]), EAST_DEG)
    item |= {"id": name, "geometry": shapely.geometry.mapping(outline), "bbox": list(outline.bounds)}
    item["properties"] |= {"datetime": time, "proj:epsg": 32656, "s2:datatake_id": f"GS2A_{time}"}
    return item


@pytest.fixture
def ask(s2cube_command: CommandLine, archive_items: Features, tmp_path: Path) -> Ask:
    """Plan a job over two granules of one pass, between which the day ends in UTC."""
    west = next(each for each in archive_items if "14TNL" in each["id"])
    east = next(each for each in archive_items if "14TPL" in each["id"])
    features = [
        moved(west, "west", "2024-01-31T23:59:50Z"), moved(east, "east", "2024-02-01T00:00:05Z"),
        moved(west, "before", "2024-01-31T00:00:05Z"),
    ]  # fmt: skip
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    both = shapely.box(-98.20 + EAST_DEG, 41.09, -98.16 + EAST_DEG, 41.1)
    geopandas.GeoDataFrame({"id": ["two"]}, geometry=[both], crs=4326).to_file(tmp_path / "two.geojson")

    def plan(*words: object) -> Any:
        done = s2cube_command("plan", "--json", "--aoi", "two.geojson", "--stac", "items.json", *words)
        assert done.status == 0, done.err
        return done

    return plan


class TestSolarDays:
    """The pass is of the morning of 1 February, by the sun; a day before there is another."""

    @pytest.mark.parametrize(
        ("dates", "slices"),
        [
            ("2024-01", {"two_20240131": ["before"]}),
            ("2024-02", {"two_20240201": ["west", "east"]}),
            ("2024-02-01", {"two_20240201": ["west", "east"]}),
            ("2024-01-31", {"two_20240131": ["before"]}),
            ("2024-01-31/2024-02-01", {"two_20240131": ["before"], "two_20240201": ["west", "east"]}),
            ("2024", {"two_20240131": ["before"], "two_20240201": ["west", "east"]}),
            ("2024-02-02/..", {}),
            ("../2024-01-30", {}),
            # Times of day are instants, UTC.
            ("2024-01-31T23:59:50Z/2024-02-01T00:00:05Z", {"two_20240201": ["west", "east"]}),
            ("2024-01-31T12:00:00Z/2024-02-01", {"two_20240201": ["west", "east"]}),
            ("2024-01-31/2024-01-31T12:00:00Z", {"two_20240131": ["before"]}),
        ],
    )
    def test_of_dates(self, ask: Ask, dates: str, slices: dict[str, list[str]]) -> None:
        done = ask("--datetime", dates)
        assert done.json["scenes"] == slices
        assert "left out" not in done.err

    @pytest.mark.parametrize("times", ["2024-02-01T00:00:00Z/..", "../2024-01-31T23:59:59Z"])
    def test_a_day_that_times_cut_is_left_out_and_named(self, ask: Ask, times: str) -> None:
        done = ask("--datetime", times)
        assert "two_20240201" not in done.json["scenes"]
        assert "two_20240201: left out, because only a part of its day is requested" in done.err

    def test_single_scenes_are_cut_by_nothing(self, ask: Ask) -> None:
        done = ask("--datetime", "2024-02-01T00:00:00Z/..", "--group-by", "scene")
        assert done.json["scenes"] == {"two_east": ["east"]}
        assert ask("--datetime", "2024-02", "--group-by", "scene").json["scenes"].keys() == {"two_west", "two_east"}

    @pytest.mark.parametrize("newest", [1, 2])
    def test_a_limit_cuts_no_day(self, ask: Ask, newest: int) -> None:
        assert ask("--max-items", newest).json["scenes"] == {"two_20240201": ["west", "east"]}
        assert len(ask("--max-items", 3).json["scenes"]) == 2

    def test_search_gives_what_was_asked_for(self, ask: Ask, tmp_path: Path) -> None:
        aoi, stac = s2cube.read_aoi(tmp_path / "two.geojson"), str(tmp_path / "items.json")
        found = {
            when: [item.id for item in s2cube.search(aoi, stac=stac, datetime=when)]
            for when in ("2024-01", "2024-02", "2024-02-01T00:00:00Z/..")
        }
        assert found == {"2024-01": ["before"], "2024-02": ["west", "east"], "2024-02-01T00:00:00Z/..": ["east"]}


@given(
    st.datetimes(datetime(2016, 1, 1), datetime(2030, 1, 1)), st.datetimes(datetime(2016, 1, 1), datetime(2030, 1, 1)),
    st.floats(-180, 180),
)  # fmt: skip
def test_a_date_holds_the_instants_of_its_solar_day(instant: datetime, other: datetime, lon: float) -> None:
    utc = instant.replace(tzinfo=UTC)
    first, last = sorted((instant.date(), other.date()))
    times = TimeRange.parse(f"{first}/{last}").at(lon)
    assert (utc in times) == (f"{first:%Y%m%d}" <= solar_day(utc, lon) <= f"{last:%Y%m%d}")
    begin = day_begin(utc, lon)
    assert begin <= utc < begin + timedelta(days=1)
    assert solar_day(begin + timedelta(seconds=1), lon) == solar_day(utc, lon)
    # Instants touch whole days, and no more of them than they must.
    second = f"{utc:%Y-%m-%dT%H:%M:%SZ}"
    wide = TimeRange.parse(f"{second}/{second}").whole_days_at(lon)
    assert wide.start is not None
    assert wide.end is not None
    assert wide.end - wide.start == timedelta(days=1, microseconds=-1)
    assert utc.replace(microsecond=0) in wide


def test_two_areas_with_a_slice_of_one_name(
    s2cube_command: CommandLine, archive_items: Features, tmp_path: Path
) -> None:
    scene = next(each for each in archive_items if "14TNL" in each["id"])
    features = [copy.deepcopy(scene) | {"id": name} for name in ("b_c", "c")]
    for number, each in enumerate(features):
        each["properties"]["s2:datatake_id"] = f"GS2A_{number}"
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    field = shapely.box(-98.20, 41.09, -98.19, 41.1)
    geopandas.GeoDataFrame({"id": ["a", "a_b"]}, geometry=[field, field], crs=4326).to_file(tmp_path / "two.geojson")
    words = ["plan", "--aoi", "two.geojson", "--stac", "items.json", "--bands", "blue"]
    done = s2cube_command(*words, "--group-by", "scene")
    assert done.status == 2
    problem = "area a_b: has a slice a_b_c, and area a has a slice with the same id. Rename one of them (--aoi-id)"
    assert problem in done.err
    assert s2cube_command(*words).status == 0


class TestProcessings:
    """Two processings of one granule, 76 ms apart: the newest counts, before any limit."""

    @pytest.fixture
    def server(self, httpserver: HTTPServer, archive_items: Features) -> Server:
        server = Server(httpserver, [])
        server.root["conformsTo"].append("https://api.stacspec.org/v1.0.0/item-search#sort")  # type: ignore[attr-defined]
        scene = next(each for each in archive_items if "14TNL_20220709" in each["id"])
        for name, time, baseline, cloud in (
            ("superseded", "17:19:31.076", "04.00", 5), ("newest", "17:19:31.000", "05.10", 50),
        ):  # fmt: skip
            item = copy.deepcopy(scene) | {"id": name}
            item["properties"] |= {
                "datetime": f"2022-07-09T{time}Z", "s2:processing_baseline": baseline, "eo:cloud_cover": cloud,
                "s2:datatake_id": f"GS2A_20220709T171901_036800_N{baseline}",
            }  # fmt: skip
            server.features.append(item)
        older = copy.deepcopy(scene) | {"id": "older"}
        older["properties"] |= {
            "datetime": "2022-07-04T17:19:31Z", "s2:datatake_id": "GS2A_20220704T171901", "eo:cloud_cover": 10,
        }  # fmt: skip
        server.features += [older, copy.deepcopy(older)]
        return server

    @pytest.fixture
    def aoi(self, small_aoi: Path) -> AOI:
        return s2cube.read_aoi(small_aoi)

    def test_a_limit_keeps_the_newest_processing(self, server: Server, aoi: AOI) -> None:
        assert [item.id for item in s2cube.search(aoi, stac=server.url, max_items=1)] == ["newest"]

    def test_what_is_listed_twice_takes_one_place(self, server: Server, aoi: AOI) -> None:
        oldest = copy.deepcopy(server.features[-1]) | {"id": "oldest"}
        oldest["properties"] |= {"datetime": "2022-06-29T17:19:31Z", "s2:datatake_id": "GS2A_20220629T171901"}
        server.features.append(oldest)
        found = [item.id for item in s2cube.search(aoi, stac=server.url, max_items=3)]
        assert found == ["oldest", "older", "newest"]

    def test_clouds_are_those_of_the_newest_processing(self, server: Server, aoi: AOI) -> None:
        found = [item.id for item in s2cube.search(aoi, stac=server.url, max_cloud=20)]
        assert found == ["older"]
        assert [item.id for item in s2cube.search(aoi, stac=server.url, max_cloud=20, max_items=1)] == ["older"]

    def test_a_run_makes_the_newest_and_names_the_other(
        self, server: Server, s2cube_command: CommandLine, job: Job
    ) -> None:
        done = s2cube_command(*job("--stac", server.url, "--max-items", 1, "-v", command="plan"))
        assert done.status == 0, done.err
        assert done.json["scenes"] == {"corner_20220709": ["newest"]}
        assert "superseded: not used; newest is used instead (older processing of the same granule)" in done.err

    def test_a_baseline_for_tests_is_no_newer_than_a_real_one(self, archive_items: Features, aoi: AOI) -> None:
        features = [copy.deepcopy(archive_items[0]) for _ in range(2)]
        for feature, (name, baseline) in zip(features, (("real", "03.01"), ("test", "99.99")), strict=True):
            feature["id"] = name
            feature["properties"] |= {"s2:processing_baseline": baseline, "s2:generation_time": f"20{baseline}"}
            feature["properties"]["s2:datatake_id"] = f"GS2A_x_N{baseline}"
        (only,) = make_plan(from_features(features, "/x/items.json"), aoi, CubeSection(offset="none")).slices
        assert [scene.id for scene in only.scenes] == ["real"]


class TestNames:
    """Two granules never become one file, whatever their ids are."""

    def slices(self, features: Features) -> dict[str, str]:
        aoi = AOI("x", _box())
        config = CubeSection.of({"group_by": "scene", "bands": "blue"})
        plan = make_plan(from_features(copy.deepcopy(features), "/x/items.json"), aoi, config)
        assert plan.unusable == ()
        return {each.id: each.scenes[0].properties["grid:code"] for each in plan.slices}

    def of_ids(self, archive_items: Features, *ids: str) -> dict[str, str]:
        features = []
        for number, name in enumerate(ids):
            feature = copy.deepcopy(archive_items[0]) | {"id": name}
            feature["properties"] |= {"grid:code": f"MGRS-14TN{number}", "s2:datatake_id": f"GS2A_{number}"}
            features.append(feature)
        found = self.slices(features)
        assert self.slices(features[::-1]) == found
        return found

    def test_one_id_of_two_tiles(self, archive_items: Features) -> None:
        found = self.of_ids(archive_items, "S2A_x", "S2A_x")
        assert sorted(found.values()) == ["MGRS-14TN0", "MGRS-14TN1"]
        assert {name: tile[-1] for name, tile in found.items()} == {"x_S2A_x_14TN0": "0", "x_S2A_x_14TN1": "1"}

    @pytest.mark.parametrize(
        "ids",
        [
            ("S2A_x.1", "S2A_x-1"),
            ("S2A_x", "s2a_X"),
            ("x", "x", "x_14TN0", "x_14TN1"),
            ("a" * 100 + "1", "a" * 100 + "2"),
            ("...", "///"),
        ],
    )
    def test_ids_that_would_be_one_name(self, archive_items: Features, ids: tuple[str, ...]) -> None:
        found = self.of_ids(archive_items, *ids)
        assert len({name.casefold() for name in found}) == len(ids)

    def test_one_id_and_no_word_of_a_tile(self, archive_items: Features) -> None:
        """Two scenes that share an id are two scenes; one that is there twice is one."""
        features = [copy.deepcopy(archive_items[0]) for _ in range(3)]
        for feature in features:
            for name in ("grid:code", "s2:datatake_id"):
                del feature["properties"][name]
        features[2]["geometry"] = shapely.geometry.mapping(
            shapely.affinity.translate(shapely.geometry.shape(features[2]["geometry"]), 0.01)
        )
        config = CubeSection.of({"group_by": "scene", "bands": "blue"})
        plan = make_plan(from_features(features, "/x/items.json"), AOI("x", _box()), config)
        assert len({each.id for each in plan.slices}) == len(plan.slices) == 2

    def test_a_scene_without_a_time_has_a_name_of_its_own(self, archive_items: Features) -> None:
        features = [copy.deepcopy(archive_items[0]) | {"id": "same"} for _ in range(4)]
        for number, feature in enumerate(features[1:]):
            feature["properties"] |= {"datetime": "never", "grid:code": f"MGRS-14TN{number}"}
        features[3]["id"] = "SAME"
        config = CubeSection.of({"group_by": "scene", "bands": "blue"})
        plan = make_plan(from_features(features, "/x/items.json"), AOI("x", _box()), config)
        ids = [each.id for each in (*plan.slices, *plan.unusable)]
        assert len(set(ids)) == len(ids) == 4


def _box() -> Any:
    from odc.geo.geom import box

    return box(-98.2, 41.1, -98.19, 41.11, "EPSG:4326")
