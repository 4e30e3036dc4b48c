"""Fields and footprints: the same pairs as the join of areas of interest one by one, and as areas of intersections."""

import sys
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry

from s2cube.area.antimeridian import split
from s2cube.area.aoi import AOI
from s2cube.config.sections import SearchSection
from s2cube.errors import UsageError
from s2cube.fields.fields import Fields
from s2cube.fields.join import join
from s2cube.scenes._join import Join

ENGINES = ("shapely", "sedona")
NUMBERS, SIDES = (st.integers(first, 32).map(lambda number: number / 16) for first in (0, 1))
BOXES = st.builds(lambda x, y, width, height: shapely.box(x, y, x + width, y + height), NUMBERS, NUMBERS, SIDES, SIDES)
DIAMONDS = st.builds(
    lambda x, y, half: shapely.Polygon([(x - half, y), (x, y - half), (x + half, y), (x, y + half)]),
    NUMBERS, NUMBERS, SIDES,
)  # fmt: skip
SHAPES = st.lists(BOXES | DIAMONDS, min_size=1, max_size=12)


def moved(shapes: list[Any], lon: float) -> list[Any]:
    return [shapely.transform(each, lambda points: points + np.array([lon, 50])) for each in shapes]


def as_joined_one_by_one(aois: list[AOI], footprints: list[Any]) -> set[tuple[int, int]]:
    one_by_one = Join(aois, SearchSection(), lambda item: item)
    met = [one_by_one._met_by(each).tolist() for each in footprints]
    return {(field, number) for number, fields in enumerate(met) for field in fields}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lon", [10.0, 179.0, -180.0])
@settings(max_examples=15, deadline=None)
@given(SHAPES, SHAPES)
def test_the_same_pairs_as_one_by_one(engine: Any, lon: float, shapes: list[Any], others: list[Any]) -> None:
    """On a lattice of binary fractions, whose sums are exact, many shapes only touch."""
    if engine == "sedona":
        pytest.importorskip("sedonadb")
    aois = [AOI(f"f{number}", shape) for number, shape in enumerate(moved(shapes, lon))]
    footprints = [split(each) for each in moved(others, lon)]
    found, met = join(Fields.of_aois(aois), footprints, engine)
    pairs = list(zip(found.tolist(), met.tolist(), strict=True))
    assert pairs == sorted(as_joined_one_by_one(aois, footprints))
    right = {
        (field, number) for field, aoi in enumerate(aois) for number, each in enumerate(footprints)
        if (aoi.geometry_lonlat.geom & each).area > 1e-12
    }  # fmt: skip
    assert set(pairs) == right


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4258"])
def test_many_fields(engine: Any, crs: str) -> None:
    """Most fields are in cells that are inside a footprint. Some have edges of 1 km in metres."""
    if engine == "sedona":
        pytest.importorskip("sedonadb")
    chosen = np.random.default_rng(1)
    if crs == "EPSG:32632":
        west, south, side = chosen.uniform(450_000, 650_000, 3000), chosen.uniform(5_300_000, 5_500_000, 3000), 1000
    else:
        west, south, side = chosen.uniform(8, 11, 3000), chosen.uniform(48, 50, 3000), 0.01
    shapes = shapely.box(west, south, west + side, south + side)
    aois = [AOI(f"f{number}", Geometry(shape, crs)) for number, shape in enumerate(shapes)]
    footprints = [
        shapely.Polygon([(8.1 + number / 7, 47.9), (10.5, 48), (10.6, 50.5), (8.5, 49.3 + number / 50)])
        for number in range(9)
    ] + [
        shapely.MultiPolygon([shapely.box(8, 48, 8.6, 48.4), shapely.box(10, 49, 10.2, 49.9)]),
        shapely.box(0, 0, 1, 1),
    ]
    footprints += [shapely.GeometryCollection([shapely.box(9, 48, 9.6, 48.4), shapely.LineString([(8, 48), (11, 50)])])]
    found, met = join(Fields.of_aois(aois), footprints, engine)
    assert set(zip(found.tolist(), met.tolist(), strict=True)) == as_joined_one_by_one(aois, footprints)
    assert 3000 < len(found) < 3000 * len(footprints)


def test_nothing_to_join() -> None:
    fields = Fields.of_aois([AOI("a", shapely.box(0, 0, 1, 1))])
    for some, footprints in ((fields, []), (fields.take(np.array([], int)), [shapely.box(0, 0, 1, 1)])):
        assert [len(each) for each in join(some, footprints)] == [0, 0]


def test_without_sedona(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sedonadb", None)
    fields = Fields.of_aois([AOI("a", shapely.box(0, 0, 1, 1))])
    with pytest.raises(UsageError, match=r"SedonaDB: is not installed. Run .*\[sedona\]"):
        join(fields, [shapely.box(0, 0, 1, 1)], "sedona")
