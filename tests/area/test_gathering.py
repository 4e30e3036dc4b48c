"""Areas that are searched together: near each other, each in one gathering, inside what is asked for."""

import json
import math
import random
from itertools import pairwise
from urllib.parse import quote

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from s2cube.area.antimeridian import split
from s2cube.area.aoi import AOI
from s2cube.area.gathering import Gathering, gather, gather_boxes
from s2cube.area.outline import enclosing

MOST_VERTICES = 100
LON, LAT = st.floats(-180, 179.99), st.floats(-80, 83)
PLACES = st.lists(st.tuples(LON, LAT, st.floats(0.001, 3), st.floats(0.001, 0.9)), min_size=1, max_size=30)
NEAR = st.tuples(LON, LAT, st.lists(st.tuples(st.floats(0, 4), st.floats(0, 0.9)), min_size=1, max_size=40))


def boxes(places: list[tuple[float, float, float, float]]) -> list[AOI]:
    return [
        AOI(f"a{number}", shapely.box(lon, lat, lon + width, lat + height))
        for number, (lon, lat, width, height) in enumerate(places)
    ]


def covers(gathering: Gathering, aois: list[AOI]) -> bool:
    """Each area is inside what is asked for, but for what is lost when a shape is cut at the antimeridian."""
    asked = gathering.search_area.geom
    return all((aois[each].geometry_lonlat.geom - asked).area < 1e-9 for each in gathering.positions)


@given(PLACES | NEAR.map(lambda near: [(near[0] + x, near[1] + y, 0.01, 0.01) for x, y in near[2]]))
def test_every_area_is_in_one_that_covers_it(places: list[tuple[float, float, float, float]]) -> None:
    aois = boxes([each for each in places if each[1] + each[3] < 84])
    found = gather(aois)
    assert sorted(position for each in found for position in each.positions) == list(range(len(aois)))
    assert all(one < other for each in found for one, other in pairwise(each.positions))
    for each in found:
        assert covers(each, aois)
        west, _, east, _ = each.search_area.geom.bounds
        assert -180 <= west <= east <= 180
        assert each.search_area.geom.is_valid
        # A cut at the antimeridian adds two vertices on each side of each part.
        assert shapely.get_num_coordinates(each.search_area.geom) <= MOST_VERTICES + 20


@given(PLACES)
def test_what_is_gathered_lies_together(places: list[tuple[float, float, float, float]]) -> None:
    """No two areas of a gathering are farther apart than the diagonal of its box; lengths as PROJ measures them."""
    aois = boxes(places)
    for each in gather(aois):
        if len(each.positions) == 1:
            assert each.search_area == aois[each.positions[0]].search_area
            continue
        corners = [aois[position].whole_lonlat.geom.bounds[:2] for position in each.positions]
        for one in corners:
            for other in corners:
                _, _, length_m = Geod(ellps="WGS84").inv(*one, *other)
                assert length_m < 150_000 * math.sqrt(2) * 1.01


@pytest.mark.parametrize(
    ("epsg", "south_m"),
    [(32614, 100_000), (32614, 4_400_000), (32633, 7_600_000), (32602, 8_400_000), (32702, 2_000_000), (32760, 5e6)],
)
def test_areas_of_one_granule_are_one_gathering(epsg: int, south_m: float) -> None:
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    chosen = random.Random(1)
    aois = []
    for number in range(300):
        x_m, y_m = 300_000 + chosen.uniform(0, 109_000), south_m + chosen.uniform(0, 109_000)
        corners = to_lonlat.transform_bounds(x_m, y_m, x_m + 500, y_m + 500)
        aois.append(AOI(f"a{number}", shapely.box(*corners)))
    (found,) = gather(aois)
    assert covers(found, aois)


def test_far_areas_are_asked_for_one_by_one() -> None:
    aois = boxes([(lon, lat, 0.01, 0.01) for lon in range(-170, 171, 20) for lat in range(-60, 61, 20)])
    assert [each.positions for each in gather(aois)] == [(number,) for number in range(len(aois))]


def test_both_sides_of_the_antimeridian() -> None:
    aois = [*boxes([(179.5, -17, 0.1, 0.1), (-179.9, -17, 0.1, 0.1)]), AOI("over", shapely.box(179.9, -17, 180.1, -16))]
    found = gather(aois)
    assert [each.positions for each in found] == [(0, 2), (1,)]
    assert covers(found[0], aois)
    assert {part.bounds[0] for part in found[0].search_area.geom.geoms} == {-180, 179.5, 179.9}


def test_a_large_area_does_not_take_others_with_it() -> None:
    aois = boxes([(10, 45, 8, 5), (14, 47.4, 0.01, 0.01), (10.1, 45.1, 0.01, 0.01), (10.2, 45.2, 0.01, 0.01)])
    assert [each.positions for each in gather(aois)] == [(0,), (1,), (2, 3)]


def test_large_areas_over_each_other_are_one() -> None:
    assert [each.positions for each in gather(boxes([(10, 45, 8, 5)] * 3))] == [(0, 1, 2)]


def test_their_order_has_no_effect() -> None:
    chosen = random.Random(2)
    places = [(chosen.uniform(5, 15), chosen.uniform(45, 50), 0.01, 0.01) for _ in range(200)]
    aois = boxes(places)
    parts = [frozenset(aois[position].id for position in each.positions) for each in gather(aois)]
    assert len(parts) > 10
    shuffled = aois[:]
    chosen.shuffle(shuffled)
    assert {frozenset(shuffled[position].id for position in each.positions) for each in gather(shuffled)} == {*parts}


def test_what_is_sent_is_short() -> None:
    """Servers accept addresses of 8 kB; a comma, a bracket and a space have three characters there."""
    chosen = random.Random(5)
    for number in (2, 20, 25, 200):
        aois = boxes([(chosen.uniform(5, 6), chosen.uniform(45, 46), 0.01 / 3, 0.01 / 3) for _ in range(number)])
        (found,) = gather(aois)
        assert len(quote(json.dumps(found.search_area.json))) < 6000
        assert covers(found, aois)


def test_no_area() -> None:
    assert gather([]) == []


@pytest.mark.parametrize("count", [30, 3000])
def test_boxes_are_gathered_as_areas(count: int) -> None:
    """Of more than a thousand boxes, the union is not computed. They are over the antimeridian and in few places."""
    chosen = random.Random(6)
    places = [
        (west + chosen.uniform(0, 0.9), south + chosen.uniform(0, 0.9), 0.01, 0.01)
        for west in (10, 30, 179.5) for south in (0, 60) for _ in range(count // 6)
    ]  # fmt: skip
    aois = boxes(places)
    bounds = np.array([aoi.whole_lonlat.geom.bounds for aoi in aois])
    gathered = gather(aois)
    found = gather_boxes(bounds)
    assert [tuple(positions.tolist()) for positions, _ in found] == [each.positions for each in gathered]
    for (positions, area), each in zip(found, gathered, strict=True):
        assert covers(each, aois)
        assert shapely.get_num_coordinates(area.geom) <= MOST_VERTICES + 20
        if len(positions) > 1:
            assert area == each.search_area
        if len(positions) > MOST_VERTICES:
            united = enclosing(shapely.union_all(shapely.box(*bounds[positions].T)))
            assert split(united).equals(area.geom) or (split(united) ^ area.geom).area < 1e-4


def test_no_box() -> None:
    assert gather_boxes(np.empty((0, 4))) == []
