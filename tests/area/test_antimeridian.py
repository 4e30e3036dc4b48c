"""Areas of interest at the edges of the world: over the antimeridian, near the poles, beyond every scene."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import antimeridian
import dask.array as da
import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords
from pyproj import Geod, Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.transform import from_origin
from shapely.affinity import scale, translate

import s2cube
from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.area.aoi import AOI
from s2cube.area.grid import aoi_geobox
from s2cube.config.sections import CubeSection
from s2cube.config.times import solar_day
from s2cube.cube.cut import clip
from s2cube.demo.archive import Archive
from s2cube.errors import AOIError, ConfigError
from s2cube.scenes.plan import make_plan
from support.runs import CommandLine

TAVEUNI = shapely.box(179.6, -17, 180.2, -16.5) - shapely.box(179.9, -16.9, 180.1, -16.8)
"""A crossing area with a crossing hole, in one piece."""

LON = st.floats(-180, 179.999)


def wrapped(shape: Any) -> Any:
    """Draw a shape as those do who know nothing of the antimeridian: every longitude in [-180, 180)."""
    return shapely.transform(shape, lambda points: np.column_stack([(points[:, 0] + 180) % 360 - 180, points[:, 1]]))


def halves(shape: Any) -> Any:
    """Cut a shape in one piece by hand."""
    east, west = (shape & shapely.box(lon - 180, -90, lon, 90) for lon in (180, 360))
    parts = [*shapely.get_parts(east), *shapely.get_parts(translate(west, -360))]
    return shapely.MultiPolygon([part for part in parts if part.area])


STYLES: dict[str, Callable[[Any], Any]] = {
    "beyond 180": lambda shape: shape,
    "below -180": lambda shape: translate(shape, -360),
    "jumping": wrapped,
    "split": halves,
    "split, the west first": lambda shape: shapely.MultiPolygon(list(halves(shape).geoms)[::-1]),
}


def aoi_of(shape: Any, crs: str = "EPSG:4326") -> AOI:
    return AOI("x", Geometry(shape, crs))


def read(path: Path, shape: Any, crs: str = "EPSG:4326") -> AOI:
    geopandas.GeoDataFrame(geometry=[shape], crs=crs).to_file(path)
    return s2cube.read_aoi(path)


def same(one: Any, other: Any) -> bool:
    return bool(one.is_valid and shapely.symmetric_difference(one, other).area < 1e-9)


class TestAOI:
    @pytest.mark.parametrize("style", STYLES)
    @pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
    def test_every_style_is_the_same_area(self, tmp_path: Path, style: str, suffix: str) -> None:
        aoi = read(tmp_path / f"x{suffix}", STYLES[style](TAVEUNI))
        assert same(aoi.geometry.geom, TAVEUNI)
        assert aoi.geometry.geom.geom_type == "Polygon"
        assert len(aoi.geometry.geom.interiors) == 1
        assert same(aoi.geometry_lonlat.geom, halves(TAVEUNI))
        assert aoi.bounds_lonlat == pytest.approx((179.6, -17, -179.8, -16.5))
        assert aoi.lon == pytest.approx(TAVEUNI.centroid.x)

    def test_which_way_it_goes_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO"):
            read(tmp_path / "x.geojson", shapely.box(-100, 0, 100, 1))
            read(tmp_path / "y.geojson", shapely.box(170, 0, 180, 1))
        assert [each.getMessage() for each in caplog.records if each.name == "s2cube.area.features"] == [
            "x crosses the antimeridian: it goes from 100 to -100 degrees east"
        ]

    @given(
        st.floats(178, 182), st.floats(-80, 80), st.floats(0.01, 3), st.sampled_from(sorted(STYLES)), st.integers(1, 9)
    )
    def test_cut_as_the_library_cuts(self, lon: float, lat: float, size: float, style: str, corners: int) -> None:
        """Without holes or corners at 180, which it does not always cut right."""
        shape = shapely.Point(lon, lat).buffer(size, quad_segs=corners)
        assume(np.abs(shapely.get_coordinates(shape)[:, 0] - 180).min() > 1e-6)
        aoi = aoi_of(STYLES[style](shape))
        want = antimeridian.fix_polygon(wrapped(shape), great_circle=False, fix_winding=True)
        assert shapely.symmetric_difference(aoi.geometry_lonlat.geom, want).area < 1e-5
        assert aoi.geometry_lonlat.geom.bounds[0] >= -180
        assert aoi.geometry_lonlat.geom.bounds[2] <= 180
        assert aoi.bounds_lonlat == pytest.approx(antimeridian.bbox(want), abs=1e-6)
        assert -180 <= aoi.lon < 180
        assert abs((aoi.lon - lon + 180) % 360 - 180) < 1e-6

    @given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=9), st.floats(173, 187))
    def test_many_parts_with_holes_hold_the_same_points(self, middles: list[tuple[int, int]], lon: float) -> None:
        discs = shapely.union_all([shapely.Point(lon + x / 2, y / 2).buffer(1.5) for x, y in middles])
        shape = discs - shapely.union_all([shapely.Point(lon + x / 2 + 0.3, y / 2).buffer(0.4) for x, y in middles])
        x, y = np.meshgrid(lon + np.linspace(-7, 7, 41), np.linspace(-7, 7, 41))
        clear_of_edges = shapely.distance(shape.boundary, shapely.points(x, y)) > 1e-6
        want = shapely.contains_xy(shape, x, y)
        for style in STYLES.values():
            lonlat = aoi_of(style(shape)).geometry_lonlat.geom
            got = shapely.contains_xy(lonlat, (x + 180) % 360 - 180, y)
            np.testing.assert_array_equal(got[clear_of_edges], want[clear_of_edges])

    def test_longitudes_to_360(self, tmp_path: Path) -> None:
        aoi = read(tmp_path / "x.geojson", shapely.box(190, 10, 200, 11))
        assert aoi.geometry.geom.equals(shapely.box(-170, 10, -160, 11))
        assert aoi.geometry_lonlat.geom.equals(shapely.box(-170, 10, -160, 11))
        around_greenwich = read(tmp_path / "y.geojson", shapely.Polygon([(359, 10), (1, 10), (1, 11), (359, 11)]))
        assert around_greenwich.geometry.geom.equals(shapely.box(-1, 10, 1, 11))

    @pytest.mark.parametrize(
        "shape",
        [
            shapely.MultiPolygon([shapely.box(-9, 38, -8, 39), shapely.box(12, 42, 13, 43)]),
            shapely.box(179, 10, 180, 11),
            shapely.box(-180, 10, -179, 11),
            shapely.box(0, 10, 180, 11),
        ],
    )
    def test_what_does_not_cross_stays(self, shape: Any) -> None:
        aoi = aoi_of(shape)
        assert aoi.geometry.geom.wkt == shape.wkt
        assert aoi.geometry_lonlat.geom.equals(shape)
        assert aoi.bounds_lonlat == shape.bounds

    @pytest.mark.parametrize("turned", [False, True])
    def test_parts_on_both_sides_stand_together(self, turned: bool) -> None:
        alaska, kamchatka = shapely.box(-160, 56, -150, 60), shapely.box(156, 52, 160, 56)
        parts = [kamchatka, alaska] if turned else [alaska, kamchatka]
        aoi = aoi_of(shapely.MultiPolygon(parts))
        assert same(aoi.geometry.geom, kamchatka | translate(alaska, 360))
        assert same(aoi.geometry_lonlat.geom, kamchatka | alaska)
        assert aoi.bounds_lonlat == (156, 52, -150, 60)

    def test_ring_that_goes_back_and_forth_over_180_itself(self) -> None:
        ring = [(179, 0), (180, 0), (-180, 0), (-179, 0), (-179, 1), (-180, 1), (180, 1), (179, 1)]
        assert same(aoi_of(shapely.Polygon(ring)).geometry.geom, shapely.box(179, 0, 181, 1))

    def test_a_part_that_ends_at_the_antimeridian(self) -> None:
        parts = shapely.MultiPolygon([shapely.box(170, 0, 180, 1), shapely.box(-175, 0, -170, 1)])
        lonlat = aoi_of(parts).geometry_lonlat.geom
        assert lonlat.geom_type == "MultiPolygon"
        assert same(lonlat, parts)

    def test_rings_run_by_the_right_hand_rule(self) -> None:
        for part in aoi_of(TAVEUNI).geometry_lonlat.geom.geoms:
            assert part.exterior.is_ccw

    def test_invalid_is_still_found_out(self, tmp_path: Path) -> None:
        bowtie = shapely.Polygon([(179, 0), (-179, 1), (-179, 0), (179, 1)])
        with pytest.raises(AOIError, match="invalid geometry .Self-intersection"):
            read(tmp_path / "x.geojson", bowtie)
        with pytest.raises(AOIError, match="invalid geometry .Self-intersection"):
            read(tmp_path / "y.geojson", shapely.MultiPolygon([bowtie, shapely.box(170, 5, 171, 6)]))

    def test_a_hole_that_became_a_part_is_found_out(self, tmp_path: Path) -> None:
        """As shapefiles tell holes by where they lie on the flat map."""
        filled, hole = shapely.Polygon(TAVEUNI.exterior), shapely.Polygon(TAVEUNI.interiors[0])
        flat = shapely.MultiPolygon([wrapped(filled), wrapped(hole)])
        with pytest.raises(AOIError, match="invalid geometry .Nested shells"):
            read(tmp_path / "x.geojson", flat)

    def test_sound_where_the_flat_map_crosses_itself(self, tmp_path: Path) -> None:
        notched = shapely.Polygon([(179, 0), (181, 0), (179.5, 0.45), (181, 1), (179, 1)])
        flat = wrapped(notched)
        assert not flat.is_valid
        assert same(read(tmp_path / "x.geojson", flat).geometry.geom, notched)

    @pytest.mark.parametrize(
        ("shape", "crs"),
        [
            (shapely.Polygon([(-180, 80), (-90, 80), (0, 80), (90, 80)]), "EPSG:4326"),
            (shapely.box(-180, 80, 180, 90), "EPSG:4326"),
            (shapely.box(-180, -90, 180, 90), "EPSG:4326"),
            (shapely.Point(2e6, 2e6).buffer(1e5), "EPSG:5041"),
            (shapely.Point(2e6, 2e6).buffer(1e5) - shapely.Point(2e6, 2e6).buffer(1e4), "EPSG:5042"),
            (shapely.box(-3e5, -2e5, 4e5, 5e5), "EPSG:3413"),
            (shapely.box(4e5, 9.9e6, 6e5, 10.1e6), "EPSG:32660"),
        ],
    )
    def test_round_a_pole(self, tmp_path: Path, shape: Any, crs: str) -> None:
        with pytest.raises(AOIError, match="more than half the globe or contains a pole.* Draw a smaller one"):
            read(tmp_path / "x.gpkg", shape, crs)


class TestProjectedAOI:
    @pytest.mark.parametrize(("crs", "east_m"), [("EPSG:32760", 800_000), ("EPSG:32701", 150_000)])
    def test_over_the_antimeridian(self, tmp_path: Path, crs: str, east_m: float) -> None:
        shape = shapely.box(east_m, 8.2e6, east_m + 80_000, 8.25e6) - shapely.Point(east_m + 2e4, 8.22e6).buffer(9000)
        aoi = read(tmp_path / "x.gpkg", shape, crs)
        assert aoi.geometry.geom.equals(shape)
        west, _, east, _ = aoi.bounds_lonlat
        assert east < 0 < west
        x, y = np.meshgrid(np.linspace(east_m, east_m + 80_000, 41), np.linspace(8.2e6, 8.25e6, 41))
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
        clear_of_edges = shapely.distance(shape.boundary, shapely.points(x, y)) > 5
        got = shapely.contains_xy(aoi.geometry_lonlat.geom, lon, lat)
        np.testing.assert_array_equal(got[clear_of_edges], shapely.contains_xy(shape, x, y)[clear_of_edges])

    def test_split_at_the_edge_of_a_world_map(self) -> None:
        edge = 20037508.342789244
        parts = [shapely.box(edge - 1e5, 0, edge, 1e5), shapely.box(-edge, 0, 1e5 - edge, 1e5)]
        aoi = aoi_of(shapely.MultiPolygon(parts), "EPSG:3857")
        assert aoi.bounds_lonlat == pytest.approx((179.10168, 0, -179.10168, 0.89831), abs=1e-4)
        assert aoi_geobox(aoi, "auto", 30).shape.x < 7000

    @pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031", "EPSG:5042"])
    def test_sides_are_bent_near_the_poles(self, crs: str) -> None:
        """What a side that is straight in metres holds, degrees must hold too: else its scenes were not found."""
        shape = shapely.box(5e5, 4e5, 15e5, 13e5)
        lonlat = aoi_of(shape, crs).geometry_lonlat.geom
        side = shapely.segmentize(shape.buffer(-100).exterior, 5000)
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*shapely.get_coordinates(side).T)
        assert shapely.contains_xy(lonlat, lon, lat).all()
        m2 = abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(lonlat, 0.05))[0])
        corners = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*shapely.get_coordinates(shape).T)
        assert m2 == pytest.approx(abs(Geod(ellps="WGS84").polygon_area_perimeter(*corners)[0]), rel=0.05)


def scene(footprint: Any, bbox: tuple[float, ...] = (-180, -90, 180, 90)) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "collection": "sentinel-2-l2a", "links": [],
        "bbox": list(bbox), "geometry": shapely.geometry.mapping(footprint), "assets": {},
        "properties": {"datetime": "2024-01-01T22:10:00Z"},
    }  # fmt: skip


def meets(tmp_path: Path, footprint: Any, aoi: AOI) -> bool:
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [scene(footprint)]}))
    return bool(s2cube.search(aoi, stac=str(path)))


GRANULE = shapely.box(179.4, -17.5, 180.6, -16.5)


class TestFootprints:
    @pytest.mark.parametrize("style", STYLES)
    @pytest.mark.parametrize(
        ("area", "wanted"),
        [
            (shapely.box(179.5, -17, 179.6, -16.9), True),
            (shapely.box(-179.6, -17, -179.5, -16.9), True),
            (TAVEUNI, True),
            (translate(TAVEUNI, -360), True),
            (halves(TAVEUNI), True),
            (shapely.box(179.2, -17, 179.3, -16.9), False),
            (shapely.box(-179.3, -17, -179.2, -16.9), False),
            (shapely.box(20, -17, 21, -16.9), False),
            (shapely.box(179.3, -16.5, 180.3, -16.2), False),
            (shapely.MultiPolygon([shapely.box(170, -17, 171, -16), shapely.box(-179.6, -17, -179, -16)]), True),
        ],
    )
    def test_every_style_on_both_sides(self, tmp_path: Path, style: str, area: Any, wanted: bool) -> None:
        assert meets(tmp_path, STYLES[style](GRANULE), aoi_of(area)) is wanted

    def test_neighbours_at_the_antimeridian_only_touch(self, tmp_path: Path) -> None:
        assert not meets(tmp_path, shapely.box(-180, -17, -179, -16), aoi_of(shapely.box(179, -17, 180, -16)))
        assert not meets(tmp_path, shapely.box(179, -17, 180, -16), aoi_of(shapely.box(180, -17, 181, -16)))

    def test_invalid_and_degenerate(self, tmp_path: Path) -> None:
        bowtie = shapely.Polygon([(179, 0), (-179, 1), (-179, 0), (179, 1)])
        assert meets(tmp_path, bowtie, aoi_of(shapely.box(-179.1, 0.4, -179, 0.6)))
        assert not meets(tmp_path, bowtie, aoi_of(shapely.box(179.9, 0.8, 180.1, 0.9)))
        assert not meets(tmp_path, bowtie, aoi_of(shapely.box(0, 0, 1, 1)))
        flat = shapely.Polygon([(179, 0), (-179, 0), (179, 0)])
        assert meets(tmp_path, flat, aoi_of(shapely.box(-179.6, -1, -179.5, 1)))
        assert not meets(tmp_path, flat, aoi_of(shapely.box(0, -1, 1, 1)))
        assert meets(tmp_path, shapely.force_3d(wrapped(GRANULE), 7), aoi_of(TAVEUNI))
        collection = shapely.GeometryCollection([wrapped(GRANULE), shapely.Point(179, 0)])
        assert meets(tmp_path, collection, aoi_of(TAVEUNI))
        assert not meets(tmp_path, collection, aoi_of(shapely.box(0, -17, 1, -16)))
        # Nobody knows where it lies: its slice is to fail by name, not to be lost.
        assert meets(tmp_path, shapely.Polygon(), aoi_of(TAVEUNI))

    def test_the_whole_globe_and_round_a_pole(self, tmp_path: Path) -> None:
        africa, svalbard = aoi_of(shapely.box(20, 0, 21, 1)), aoi_of(shapely.box(15, 78, 16, 79))
        for globe in (
            shapely.box(-180, -90, 180, 90),
            shapely.segmentize(shapely.box(-180, -90, 180, 90), 60),
            shapely.box(0, -90, 360, 90),
        ):
            assert meets(tmp_path, globe, africa)
        antarctica = aoi_of(shapely.box(15, -79, 16, -78))
        cap = shapely.Polygon([(-135, 70, 0), (-45, 75, 0), (45, 70, 0), (135, 75, 0)])
        for ring in (cap, cap.reverse()):
            assert meets(tmp_path, ring, svalbard)
            assert meets(tmp_path, ring, aoi_of(shapely.box(179, 88, 181, 89)))
            assert not meets(tmp_path, ring, africa)
            assert not meets(tmp_path, ring, antarctica)
            assert meets(tmp_path, scale(ring, yfact=-1, origin=(0, 0)), antarctica)
            assert not meets(tmp_path, scale(ring, yfact=-1, origin=(0, 0)), svalbard)

    @pytest.mark.parametrize("style", STYLES)
    def test_an_api_is_asked_by_rfc_7946(self, style: str) -> None:
        asked = aoi_of(STYLES[style](TAVEUNI)).geometry_lonlat.json
        assert asked["type"] == "MultiPolygon"
        assert same(shapely.geometry.shape(asked), halves(TAVEUNI))


class TestBounds:
    def test_of_three_parts(self) -> None:
        parts = [shapely.box(170, 0, 171, 1), shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 2)]
        assert bounds_lonlat(shapely.MultiPolygon(parts)) == (170, 0, -179, 2)

    def test_all_round(self) -> None:
        assert bounds_lonlat(shapely.box(-180, -10, 180, 10)) == (-180, -10, 180, 10)
        assert bounds_lonlat(shapely.Polygon([(-135, 70), (-45, 70), (45, 70), (135, 70)])) == (-180, 70, 180, 90)

    @given(st.floats(-180, 179.99), st.floats(0.01, 170))
    def test_cutting_and_joining_undo_each_other(self, west: float, width: float) -> None:
        shape = shapely.box(west, 3, west + width, 4)
        assert same(unwrap(split(shape)), shape)
        assert bounds_lonlat(split(shape)) == pytest.approx(
            (west, 3, west + width - (360 if west + width > 180 else 0), 4)
        )


class TestSolarDay:
    @given(st.datetimes(datetime(2015, 7, 1), datetime(2035, 1, 1)), st.floats(-2, 2), st.sampled_from(sorted(STYLES)))
    def test_of_a_crossing_area(self, utc: datetime, lon: float, style: str) -> None:
        """Noon by the sun, which is at 12 h - lon / 15 h UTC, is nearest on the day whose name it gets."""
        aoi = aoi_of(STYLES[style](shapely.Point(180 + lon, 5).buffer(2.5)))
        assert -180 <= aoi.lon < 180
        day = datetime.strptime(solar_day(utc.replace(tzinfo=UTC), aoi.lon), "%Y%m%d")
        noon = day + timedelta(hours=12) - timedelta(hours=(lon if lon < 0 else lon - 360) / 15 + 12)
        assume(abs(lon) > 1e-6 and abs(abs(utc - noon) - timedelta(hours=12)) > timedelta(seconds=1))
        assert abs(utc - noon) < timedelta(hours=12)

    @given(st.datetimes(datetime(2015, 7, 1), datetime(2035, 1, 1)), LON)
    def test_does_not_depend_on_how_it_is_drawn(self, utc: datetime, lon: float) -> None:
        shape = shapely.Point(lon, 5).buffer(0.5, quad_segs=2)
        drawn = (shape, translate(shape, 360), translate(shape, -360), wrapped(shape))
        assert max(aoi_of(each).lon for each in drawn) - min(aoi_of(each).lon for each in drawn) < 1e-9

    def test_both_sides_of_the_line_are_one_day(self) -> None:
        """Two passes on the morning of 2 January in Fiji, one before and one after midnight UTC, either side of 180."""
        items = []
        for name, instant in (("a", "2024-01-01T22:10:00+00:00"), ("b", "2024-01-02T01:10:00+00:00")):
            item = pystac.Item.from_dict(scene(wrapped(GRANULE)) | {"id": name})
            item.datetime = datetime.fromisoformat(instant)
            item.add_asset("blue", pystac.Asset("/archive/blue.tif"))
            items.append(item)
        for style in STYLES.values():
            plan = make_plan(items, aoi_of(style(TAVEUNI)), CubeSection(bands=("blue",), mask=(), offset="none"))
            assert [each.id for each in plan.slices] == ["x_20240102"]


class TestGrid:
    @pytest.mark.parametrize("style", STYLES)
    @pytest.mark.parametrize(("east_deg", "epsg"), [(0.0, 32760), (0.2, 32701)])
    def test_auto_is_the_zone_of_the_middle(self, style: str, east_deg: float, epsg: int) -> None:
        shape = translate(TAVEUNI, east_deg)
        aoi = aoi_of(STYLES[style](shape))
        geobox = aoi_geobox(aoi, "auto", 30)
        assert geobox.crs == f"EPSG:{epsg}"
        edge = shapely.get_coordinates(shapely.segmentize(shape.exterior, 0.01))
        x_m, y_m = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(*edge.T)
        edges = geobox.boundingbox
        assert (x_m.min() - edges.left, edges.right - x_m.max()) == pytest.approx((15, 15), abs=16)
        assert (y_m.min() - edges.bottom, edges.top - y_m.max()) == pytest.approx((15, 15), abs=16)

    @pytest.mark.parametrize(
        ("lon", "lat", "epsg"),
        [
            (20, 83.5, 32634), (20, 84.5, 5041), (-150, 88, 5041), (179.95, 85, 5041),
            (100, -79.5, 32747), (100, -80.5, 5042), (179.95, -85, 5042),
        ],
    )  # fmt: skip
    def test_ups_begins_where_utm_ends(self, lon: float, lat: float, epsg: int) -> None:
        geobox = aoi_geobox(aoi_of(shapely.box(lon, lat, lon + 0.1, lat + 0.01)), "auto", 30)
        assert geobox.crs == f"EPSG:{epsg}"
        middle = geobox.extent.centroid.to_crs("EPSG:4326").coords[0]
        assert ((middle[0] - lon) % 360, middle[1]) == pytest.approx((0.05, lat + 0.005), abs=0.01)
        # A tenth of a degree is 12 km at most, and less near the poles.
        assert max(geobox.shape) < 500

    @pytest.mark.parametrize(
        ("area", "crs"),
        [
            (TAVEUNI, "EPSG:3857"),
            (TAVEUNI, "EPSG:6933"),
            (shapely.box(179, -17, 179.1, -16) | shapely.box(-179.1, -17, -179, -16), "EPSG:3857"),
            (shapely.box(160, 50, 200, 60), "EPSG:3857"),
        ],
    )
    def test_a_crs_that_tears_the_area_is_refused(self, area: Any, crs: str) -> None:
        with pytest.raises(ConfigError, match=rf"^crs {crs}: cuts or stretches 'x': .* Use --crs auto") as refused:
            aoi_geobox(aoi_of(area), crs, 30)
        around_km = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.99, 0)[0] / 500
        width_km = float(re.search(r"be ([\d,]+) by", str(refused.value))[1].replace(",", ""))  # type: ignore[index]
        assert width_km == pytest.approx(around_km, rel=0.01)

    @pytest.mark.parametrize(
        ("area", "crs", "size"),
        [
            (shapely.box(10, 88, 20, 90), "EPSG:3857", "1,113 by 216,709 km"),
            (shapely.box(10, 60, 20, 90), "EPSG:3857", "1,113 by 234,129 km"),
            (shapely.box(10, -80, 20, -70), "EPSG:2154", "10,990 by 27,988 km"),
            (shapely.box(92, -1, 94, 1), "EPSG:32631", "infinite"),
            (shapely.box(-100, 0, 60, 10), "auto", "infinite"),
        ],
    )
    def test_a_crs_that_does_not_reach_the_area_is_refused(self, area: Any, crs: str, size: str) -> None:
        with pytest.raises(ConfigError, match=f"{crs}: cuts or stretches 'x': its grid would be {size}. Use"):
            aoi_geobox(aoi_of(area), crs, 30)

    def test_mercator_is_taken_up_to_where_utm_ends(self) -> None:
        assert aoi_geobox(aoi_of(shapely.box(10, 83.8, 10.5, 83.99)), "EPSG:3857", 300).shape.x == 187

    @pytest.mark.parametrize("crs", ["EPSG:3832", "EPSG:32660", "EPSG:32701", "EPSG:3338", "EPSG:3571"])
    def test_a_crs_that_does_not_tear_it_is_taken(self, crs: str) -> None:
        area = shapely.box(179, 52, 181, 53)
        assert aoi_geobox(aoi_of(area), crs, 300).shape.x < 1000

    @pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3034", "EPSG:32631"])
    def test_far_from_180_all_are_taken(self, crs: str) -> None:
        assert aoi_geobox(aoi_of(shapely.box(-9, 38, 13, 43)), crs, 300).shape.x < 12_000

    def test_the_command_says_it(self, s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> None:
        geopandas.GeoDataFrame(geometry=[TAVEUNI], crs="EPSG:4326").to_file(tmp_path / "fiji.geojson")
        done = s2cube_command("run", "--aoi", "fiji.geojson", "--stac", archive.items, "--crs", "EPSG:3857")
        assert done.status == 2
        assert "crs EPSG:3857: cuts or stretches 'fiji'" in done.err


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:32701", "EPSG:3832"])
def test_clip_keeps_the_cells_whose_centres_are_inside(style: str, crs: str) -> None:
    aoi = aoi_of(STYLES[style](TAVEUNI))
    geobox = aoi_geobox(aoi, crs, 300)
    (clipped,) = clip(geobox, aoi.geometry, (da.ones(tuple(geobox.shape), dtype="int16"), -1))
    centres = np.meshgrid(*(xr_coords(geobox)[axis].values for axis in ("x", "y")))
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*centres)
    # Sides along parallels are bent in the grid's CRS; there they are drawn with corners 0.02 degrees apart.
    sure = shapely.distance(TAVEUNI.boundary, shapely.points(lon % 360, lat)) > 1e-5
    want = shapely.contains_xy(TAVEUNI, lon % 360, lat)
    assert sure.mean() > 0.99
    assert 0.3 < want.mean() < 0.99
    np.testing.assert_array_equal((clipped.compute() == 1)[sure], want[sure])


LEFT_M, TOP_M = 808_000, 8_184_000
"""A granule of 24 km in EPSG:32760, over 180 degrees."""

WITH_A_HOLE = shapely.box(179.98, -16.55, 180.03, -16.45) - shapely.box(179.99, -16.52, 180.01, -16.48)


@pytest.fixture(scope="module")
def fiji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two passes over the antimeridian, each as another catalogue would describe it."""
    folder = tmp_path_factory.mktemp("fiji")
    columns, rows = np.meshgrid(np.arange(1200), np.arange(1200))
    layers = {"swir16": (1000 + columns + 2 * rows).astype("uint16"), "scl": np.full((1200, 1200), 4, "uint8")}
    assets = {}
    for key, pixels in layers.items():
        with rasterio.open(
            folder / f"{key}.tif", "w", driver="GTiff", width=1200, height=1200, count=1, dtype=pixels.dtype, nodata=0,
            crs="EPSG:32760", transform=from_origin(LEFT_M, TOP_M, 20, 20),
        ) as file:  # fmt: skip
            file.write(pixels, 1)
        assets[key] = {"href": f"./{key}.tif"}
    corners = [(0, 0), (24_000, 0), (24_000, 24_000), (0, 24_000)]
    lonlat = Transformer.from_crs("EPSG:32760", "EPSG:4326", always_xy=True)
    footprint = shapely.Polygon([lonlat.transform(LEFT_M + x, TOP_M - y) for x, y in corners])
    assert footprint.bounds[2] - footprint.bounds[0] > 359
    features = []
    for day, drawn in ((1, footprint), (6, antimeridian.fix_polygon(footprint, fix_winding=True))):
        properties = {"datetime": f"2020-07-0{day}T22:10:00Z", "s2:processing_baseline": "02.14", "proj:epsg": 32760}
        features.append(scene(drawn) | {"id": f"S{day}", "assets": assets, "properties": properties})
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder


@pytest.mark.parametrize("style", STYLES)
def test_a_whole_run(s2cube_command: CommandLine, fiji: Path, tmp_path: Path, style: str, scheduler: str) -> None:
    area = WITH_A_HOLE
    frame = geopandas.GeoDataFrame({"id": ["fiji"]}, geometry=[STYLES[style](area)], crs="EPSG:4326")
    frame.to_file(tmp_path / "a.gpkg")
    done = s2cube_command(
        "run", "--aoi", "a.gpkg", "--stac", fiji / "items.json", "--bands", "swir16", "--out", "out", "--json",
        "--scheduler", scheduler,
    )  # fmt: skip
    assert done.status == 0, done.err
    # West of the line it would be the morning of the next day; the area's middle is east of it.
    assert [Path(path).stem for path in done.json["written"]] == ["fiji_20200701", "fiji_20200706"]
    with rasterio.open(done.json["written"][0]) as cog:
        values, (left, _, _, top) = cog.read(1), cog.bounds
        to_lonlat = Transformer.from_crs(cog.crs, "EPSG:4326", always_xy=True)
    rows, columns = np.indices(values.shape)
    lon, lat = to_lonlat.transform(left + 30 * columns + 15, top - 30 * rows - 15)
    sure = shapely.distance(area.boundary, shapely.points(lon % 360, lat)) > 1e-5
    np.testing.assert_array_equal((values != -9999)[sure], shapely.contains_xy(area, lon % 360, lat)[sure])
    x_m, y_m = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(lon, lat)
    ramp = 1000 + (x_m - LEFT_M) / 20 - 0.5 + 2 * ((TOP_M - y_m) / 20 - 0.5)
    inside = values != -9999
    assert np.abs(values - ramp)[inside].max() < 2


@pytest.mark.parametrize("style", STYLES)
def test_the_catalogue_of_a_crossing_area(fiji: Path, tmp_path: Path, style: str) -> None:
    area = WITH_A_HOLE
    aoi = AOI("fiji", Geometry(STYLES[style](area), "EPSG:4326"))
    items = s2cube.search(aoi, stac=str(fiji / "items.json"))
    s2cube.write_cogs(s2cube.open_cube(items, aoi, bands=["swir16"]), tmp_path / "out")
    catalog = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    (collection,) = catalog.get_children()
    bounds = pytest.approx([179.98, area.bounds[1], -179.97, area.bounds[3]])
    assert collection.extent.spatial.bboxes == [bounds]
    assert collection.extent.temporal.to_dict()["interval"] == [["2020-07-01T22:10:00Z", "2020-07-06T22:10:00Z"]]
    slices = list(catalog.get_items(recursive=True))
    assert len(slices) == 2
    for item in slices:
        assert item.bbox == bounds
        assert same(shapely.geometry.shape(item.geometry), halves(area))
    validator = JsonSchemaSTACValidator()
    for each in (catalog, collection, *slices):
        content = json.loads(Path(each.get_self_href()).read_text())
        validator.validate_core(content, each.STAC_OBJECT_TYPE, "1.1.0", each.get_self_href())


def test_a_collection_holds_all_its_slices_over_both_sides(fiji: Path, tmp_path: Path) -> None:
    """As when an area was drawn anew between two runs."""
    for day, area in (("01", WITH_A_HOLE), ("06", shapely.box(-179.99, -16.56, -179.95, -16.5))):
        aoi = AOI("fiji", Geometry(area, "EPSG:4326"))
        items = s2cube.search(aoi, stac=str(fiji / "items.json"), datetime=f"2020-07-{day}")
        s2cube.write_cogs(s2cube.open_cube(items, aoi, bands=["swir16"]), tmp_path / "out")
    collection = pystac.Collection.from_file(str(tmp_path / "out" / "fiji" / "collection.json"))
    assert collection.extent.spatial.bboxes == [pytest.approx([179.98, -16.56, -179.95, -16.45])]


def test_an_area_beyond_every_scene(s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> None:
    geopandas.GeoDataFrame({"id": ["sea"]}, geometry=[TAVEUNI], crs="EPSG:4326").to_file(tmp_path / "a.geojson")
    done = s2cube_command("run", "--aoi", "a.geojson", "--stac", archive.items, "--out", "out", "--json")
    assert done.status == 0
    assert done.json["written"] == done.json["failed"] == []
    assert "sea: No scene matched" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".s2cube"]
