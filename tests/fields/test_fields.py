"""Fields as columns equal areas of interest one by one."""

import numpy as np
import pytest
import shapely
from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from s2cube.area.aoi import AOI
from s2cube.area.outline import in_crs
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
