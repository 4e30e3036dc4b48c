"""Fields as columns equal areas of interest one by one."""

import numpy as np
import pytest
import shapely
from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from s2cube.area.aoi import AOI
from s2cube.area.grid import utm_or_ups
from s2cube.area.outline import in_crs
from s2cube.fields.division import crs_of_fields
from s2cube.fields.fields import Fields

SHAPES = {
    "field": shapely.box(12.0, 47.5, 12.004, 47.502),
    "long": shapely.box(12.0, 47.5, 12.4, 47.502),
    "hole": shapely.box(12, 47, 12.01, 47.01) - shapely.box(12.004, 47.004, 12.005, 47.005),
    "parts": shapely.MultiPolygon([shapely.box(12, 47, 12.001, 47.001), shapely.box(12.5, 47, 12.501, 47.001)]),
    "date-line": shapely.box(179.99, -17, 180.01, -16.99),
}  # fmt: skip


@pytest.fixture
def aois() -> list[AOI]:
    return [AOI(name, shape) for name, shape in SHAPES.items()]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3035"])
def test_outlines_are_those_of_areas(aois: list[AOI], crs: str) -> None:
    fields = Fields.of_aois(aois)
    for aoi, shape in zip(aois, fields.shapes_in(CRS(crs)), strict=True):
        expected = in_crs(aoi.geometry, crs).geom
        assert shapely.equals_exact(shape, expected, tolerance=1e-9), aoi.id


def test_some_of_them(aois: list[AOI]) -> None:
    fields = Fields.of_aois(aois)
    some = fields.take(np.array([4, 0]))
    assert len(some) == 2
    assert list(some.ids) == ["date-line", "field"]
    assert some.aoi(0) == aois[4]
    assert some.aoi(1).lon == pytest.approx(some.centres_lonlat[1, 0])
    assert some.bounds_lonlat[1] == pytest.approx((12.0, 47.5, 12.004, 47.502))


def test_projected_fields_keep_their_crs() -> None:
    aoi = AOI("field", Geometry(shapely.box(500_000, 5_300_000, 500_200, 5_300_150), "EPSG:32633"))
    fields = Fields.of_aois([aoi])
    assert fields.crs == "EPSG:32633"
    assert fields.shapes_in(CRS("EPSG:32633"))[0] is aoi.geometry.geom
    assert fields.aoi(0).geometry.crs == "EPSG:32633"


@pytest.mark.parametrize(("lon", "lat"), [(11.9, 47), (12, 0), (-180, 10), (179.9, -10), (3, 84), (3, -80), (0, -90)])
@pytest.mark.parametrize("spread", [0.01, 0.5, 20])
def test_the_crs_of_each_field(lon: float, lat: float, spread: float) -> None:
    """Also if the fields are on both sides of an edge of zones, or of the date line."""
    places = np.array([lon, lat]) + np.random.default_rng(1).uniform(-spread, spread, (50, 2))
    places[:, 0], places[:, 1] = (places[:, 0] + 180) % 360 - 180, places[:, 1].clip(-90, 90)
    shapes = np.full(50, SHAPES["field"], object)
    fields = Fields(np.arange(50).astype(str).astype(object), shapes, "EPSG:4326", np.zeros((50, 4)), places)
    assert crs_of_fields(fields, "auto").tolist() == [utm_or_ups(*each) for each in places.tolist()]


def test_a_box_has_the_solar_days_of_its_field(aois: list[AOI]) -> None:
    fields = Fields.of_aois(aois)
    for position, aoi in enumerate(aois):
        box = fields.box(position)
        assert (box.id, box.lon) == (aoi.id, pytest.approx(aoi.lon))
        assert box.bounds_lonlat == pytest.approx(aoi.bounds_lonlat)
        assert box.whole_lonlat.boundingbox.bbox == pytest.approx(aoi.whole_lonlat.boundingbox.bbox)
