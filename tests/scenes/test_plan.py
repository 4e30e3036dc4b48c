"""Grid and plan: the lattice, solar days, which processing is kept."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pystac
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geom import Geometry, box
from pyproj import Transformer

from s2cube.area.aoi import AOI
from s2cube.area.grid import aoi_geobox
from s2cube.config.sections import CubeSection
from s2cube.config.times import solar_day
from s2cube.scenes.plan import make_plan

LON = st.floats(-179, 178)
LAT = st.floats(-78, 82)
SIZE = st.floats(0.0003, 0.5)
RESOLUTION_M = st.sampled_from([10.0, 20.0, 30.0, 60.0, 100.0, 300.0])


@given(LON, LAT, SIZE, SIZE, RESOLUTION_M)
def test_the_grid_covers_the_aoi_on_the_common_lattice(
    lon: float, lat: float, width: float, height: float, resolution_m: float
) -> None:
    aoi = AOI("x", box(lon, lat, min(lon + width, 180), lat + height, "EPSG:4326"))
    geobox = aoi_geobox(aoi, "auto", resolution_m)
    edges = geobox.boundingbox
    for edge in (edges.left, edges.bottom, edges.right, edges.top):
        assert edge / resolution_m == pytest.approx(round(edge / resolution_m), abs=1e-9)
    assert geobox.resolution.xy == (resolution_m, -resolution_m)
    # Along the sides too, not only at the corners: a parallel is bent in UTM.
    west, south, east, north = aoi.geometry.boundingbox
    along = np.linspace(0, 1, 21)
    lons = np.concatenate([west + (east - west) * along, west + (east - west) * along, [west] * 21, [east] * 21])
    lats = np.concatenate(
        [[south] * 21, [north] * 21, south + (north - south) * along, south + (north - south) * along]
    )
    x_m, y_m = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True).transform(lons, lats)
    slack_m = resolution_m * 0.02
    assert x_m.min() >= edges.left - slack_m
    assert x_m.max() <= edges.right + slack_m
    assert y_m.min() >= edges.bottom - slack_m
    assert y_m.max() <= edges.top + slack_m
    # No wider than it must be.
    assert edges.left > x_m.min() - 1.1 * resolution_m
    assert edges.top < y_m.max() + 1.1 * resolution_m


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(-98.2, 41.1, 32614), (151, -33, 32756), (0.1, 51, 32631), (-179.9, 10, 32601), (179.9, 10, 32660)],
)
def test_auto_is_the_utm_zone(lon: float, lat: float, epsg: int) -> None:
    aoi = AOI("x", box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01, "EPSG:4326"))
    assert aoi_geobox(aoi, "auto", 30).crs == f"EPSG:{epsg}"


@pytest.mark.slow
@settings(max_examples=20)
@given(st.floats(-179.9, 179.9), st.floats(-79, 83))
def test_the_utm_zone_is_that_of_projs_database(lon: float, lat: float) -> None:
    assume(abs(lon / 6 - round(lon / 6)) > 1e-4 and abs(lat) > 1e-3)
    aoi = AOI("x", box(lon - 1e-5, lat - 1e-5, lon + 1e-5, lat + 1e-5, "EPSG:4326"))
    assert aoi_geobox(aoi, "auto", 30).crs == CRS.utm(lon, lat)


def test_two_aois_share_a_lattice() -> None:
    one = aoi_geobox(AOI("a", box(-98.23, 41.07, -98.17, 41.13, "EPSG:4326")), "EPSG:32614", 30)
    other = aoi_geobox(AOI("b", box(-98.5, 41.0, -98.4, 41.01, "EPSG:4326")), "EPSG:32614", 30)
    assert (one.affine.c - other.affine.c) % 30 == 0
    assert (one.affine.f - other.affine.f) % 30 == 0


@given(st.datetimes(datetime(2015, 7, 1), datetime(2035, 1, 1)), st.floats(-180, 180))
def test_solar_day(instant: datetime, lon: float) -> None:
    day = datetime.strptime(solar_day(instant.replace(tzinfo=UTC), lon), "%Y%m%d")
    # Noon by the sun is at 12 h - lon / 15 h UTC; an instant belongs to the day whose noon is nearest.
    noon = day + timedelta(hours=12) - timedelta(hours=lon / 15)
    assert abs(instant - noon) <= timedelta(hours=12, microseconds=10)


@pytest.mark.parametrize(
    ("utc", "lon", "day"),
    [
        ("2024-01-01T22:10:00", 178.0, "20240102"),  # New Zealand, morning of the 2nd
        ("2024-01-01T22:10:00", -178.0, "20240101"),  # across the date line, the same instant is the 1st
        ("2024-01-02T00:05:00", 150.0, "20240102"),
        ("2024-01-01T17:20:00", -98.0, "20240101"),
    ],
)
def test_solar_day_by_hand(utc: str, lon: float, day: str) -> None:
    assert solar_day(datetime.fromisoformat(utc + "+00:00"), lon) == day


def scene(name: str, instant: str, **properties: str) -> pystac.Item:
    """A scene that can be used, as far as its item tells."""
    when = datetime.fromisoformat(instant + "+00:00")
    properties = {"s2:processing_baseline": "05.10"} | properties
    assets = {key: pystac.Asset(f"/archive/{name}/{key}.tif") for key in (*CubeSection().bands, "scl")}
    point = {"type": "Point", "coordinates": [-98, 41]}
    return pystac.Item(name, point, [-98, 41, -98, 41], when, properties, assets=assets)


FIELD = AOI("field", box(-98.2, 41.0, -98.1, 41.1, "EPSG:4326"))


def processing(name: str, baseline: str, generated: str, tile: str = "14TNL") -> pystac.Item:
    return scene(
        name, "2022-07-09T17:19:31",
        **{
            "grid:code": f"MGRS-{tile}", "s2:processing_baseline": baseline, "s2:generation_time": generated,
            "s2:datatake_id": f"GS2A_20220709T171901_036800_N{baseline}",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        # Earth Search keeps a reprocessed granule beside the first as _0_ and _1_.
        ([processing("S2A_0", "04.00", "2022-07-09"), processing("S2A_1", "05.10", "2023-01-01")], ["S2A_1"]),
        ([processing("S2A_1", "04.00", "2022-07-09"), processing("S2A_0", "05.10", "2023-01-01")], ["S2A_0"]),
        # The same baseline run again: the later run.
        ([processing("a", "05.10", "2023-01-01"), processing("b", "05.10", "2022-07-09")], ["a"]),
        # 05.09 is before 05.10, and neither is a decimal.
        ([processing("a", "05.09", "2024-01-01"), processing("b", "05.10", "2022-07-09")], ["b"]),
        ([processing("a", "05.10", "x"), processing("b", "05.10", "x", tile="14TPL")], ["a", "b"]),
    ],
)
def test_newest_processing(items: list[pystac.Item], kept: list[str]) -> None:
    (only,) = make_plan(items, FIELD, CubeSection()).slices
    assert [each.id for each in only.scenes] == kept


def strip(name: str, sensed: str) -> pystac.Item:
    made = processing(name, "05.10", "x")
    made.properties["s2:datastrip_id"] = f"S2A_OPER_MSI_L2A_DS_2APS_20220709T233154_S{sensed}_N05.10"
    return made


def test_two_strips_of_a_datatake_are_no_duplicates() -> None:
    (only,) = make_plan([strip("a", "20220709T172331"), strip("b", "20220709T172401")], FIELD, CubeSection()).slices
    assert [each.id for each in only.scenes] == ["a", "b"]
    (only,) = make_plan([strip("a", "20220709T172331"), strip("b", "20220709T172331")], FIELD, CubeSection()).slices
    assert len(only.scenes) == 1


def test_datatakes_are_told_apart_however_they_are_written() -> None:
    items = [
        scene(
            f"s{day}", f"2022-07-0{day}T17:00:00", **{"grid:code": "MGRS-14TNL", "s2:datatake_id": f"GS2A_2022070{day}"}
        )
        for day in (1, 2, 3)
    ]
    assert len(make_plan(items, FIELD, CubeSection()).slices) == 3


def test_days_are_those_of_the_aois_longitude() -> None:
    """Both passes are on the morning of 2 January in Fiji, one before and one after midnight UTC."""
    fiji = AOI("fiji", box(177.5, -18, 177.6, -17.9, "EPSG:4326"))
    items = [scene("a", "2024-01-01T22:10:00"), scene("b", "2024-01-02T01:10:00")]
    assert [each.id for each in make_plan(items, fiji, CubeSection()).slices] == ["fiji_20240102"]


def test_times_with_an_offset_are_told_in_utc() -> None:
    item = scene("a", "2021-07-24T17:19:31")
    item.datetime = datetime.fromisoformat("2021-07-25T07:19:31+14:00")
    (only,) = make_plan([item], FIELD, CubeSection()).slices
    assert only.id == "field_20210724"
    assert only.time.isoformat() == "2021-07-24T17:19:31+00:00"


def test_a_scene_may_say_only_when_it_began() -> None:
    item = scene("a", "2021-07-24T17:19:31", start_datetime="2021-07-24T17:19:31Z", end_datetime="2021-07-24T17:19:41Z")
    item.datetime = None
    (only,) = make_plan([item], FIELD, CubeSection()).slices
    assert only.id == "field_20210724"


def test_no_scene_can_name_a_file_outside_its_folder() -> None:
    config = CubeSection.of({"group_by": "scene"})
    (only,) = make_plan([scene("x/../../../../etc/x", "2022-07-01T17:00:00")], FIELD, config).slices
    assert only.id == "field_x-etc-x"


def test_one_item_listed_twice() -> None:
    twice = [scene("a", "2022-07-09T17:19:31"), scene("a", "2022-07-09T17:19:31")]
    (only,) = make_plan(twice, FIELD, CubeSection()).slices
    assert len(only.scenes) == 1


def test_the_plan_does_not_depend_on_the_order_of_items() -> None:
    items = [scene(f"s{number}", f"2022-07-{1 + number % 7:02}T17:19:{number:02}") for number in range(30)]
    plan = make_plan(items, FIELD, CubeSection())
    shuffled = items[:]
    random.Random(1).shuffle(shuffled)
    again = make_plan(shuffled, FIELD, CubeSection())
    assert [(each.id, [one.id for one in each.scenes]) for each in plan.slices] == [
        (each.id, [one.id for one in each.scenes]) for each in again.slices
    ]
    assert [each.id for each in plan.slices] == [f"field_202207{day:02}" for day in range(1, 8)]


def test_group_by_scene() -> None:
    items = [scene("b", "2022-07-01T17:00:00"), scene("a", "2022-07-01T17:00:00")]
    plan = make_plan(items, FIELD, CubeSection.of({"group_by": "scene"}))
    assert [each.id for each in plan.slices] == ["field_a", "field_b"]


def test_scenes_whose_names_would_be_one_are_told_apart() -> None:
    items = [scene("S2A_x.1", "2022-07-01T17:00:00"), scene("S2A_x-1", "2022-07-01T17:00:00")]
    items.append(scene("S2A_y.1", "2022-07-01T17:00:00"))
    plan = make_plan(items, FIELD, CubeSection.of({"group_by": "scene"}))
    ids = [each.id for each in plan.slices]
    assert len(set(ids)) == 3
    assert sum(each.startswith("field_S2A_x-1-") for each in ids) == 2
    assert "field_S2A_y-1" in ids


def test_centroid_beside_the_polygon_is_fine() -> None:
    ring = Geometry({"type": "Polygon", "coordinates": [
        [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]], [[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5], [0.5, 0.5]],
    ]}, "EPSG:4326")  # fmt: skip
    assert AOI("ring", ring).lon == pytest.approx(1.5)
