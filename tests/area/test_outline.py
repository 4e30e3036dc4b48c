"""Areas as they are asked for, known again, and written: of many vertices, slivers, in other formats and CRSs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

import s2cube
from s2cube.area.antimeridian import bounds_lonlat, split
from s2cube.area.aoi import AOI
from s2cube.area.grid import aoi_geobox
from s2cube.area.outline import compact, in_crs
from s2cube.demo.archive import Archive
from s2cube.storage.json_text import stac_json
from support.runs import CommandLine

SQUARE = shapely.box(10, 50, 10.01, 50.01)
FARM = shapely.Polygon(
    [(10.0012345, 50.001), (10.03, 50.0043211), (10.025, 50.02), (10.01, 50.03123)],
    [[(10.01, 50.01), (10.02, 50.01), (10.015, 50.015)]],
)


def aoi(shape: BaseGeometry, crs: str = "EPSG:4326") -> AOI:
    return AOI("x", Geometry(shape, crs))


def ring(count: int, radius_deg: Any = 0.3, lon: float = 10, lat: float = 50) -> shapely.Polygon:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return shapely.Polygon(np.column_stack([lon + radius_deg * np.cos(turn), lat + radius_deg * np.sin(turn)]))


def coast(count: int, lon: float = 10) -> shapely.Polygon:
    walk = np.cumsum(np.random.default_rng(1).normal(size=count))
    walk -= np.linspace(0, walk[-1], count)
    return ring(count, 0.3 + 0.1 * walk / np.abs(walk).max(), lon)


def scattered(count: int) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([shapely.box(10 + n * 0.01, 50, 10.005 + n * 0.01, 50.005) for n in range(count)])


MANY = {
    "circle": ring(100_000),
    "coast": coast(100_000),
    "comb": ring(20_000, np.where(np.arange(20_000) % 2, 0.3, 0.15)),
    "fields": scattered(5000),
    "hole": ring(2000) - ring(2000, 0.2),
    "antimeridian": coast(5000, 179.9),
    "at 180": shapely.box(170, 10, 180, 11) & ring(2000, 5, 180, 10.5),
    "tiny": ring(1000, 1e-6),
    "pole": ring(1000, 0.5, 10, 89.5),
}


class TestSearchArea:
    @pytest.mark.parametrize("name", MANY)
    def test_contains_the_area_and_is_small(self, name: str) -> None:
        area = aoi(MANY[name])
        asked = area.search_area.geom
        assert asked.is_valid
        assert asked.contains(area.geometry_lonlat.geom)
        assert shapely.get_num_coordinates(asked) <= 110
        assert len(json.dumps(shapely.geometry.mapping(asked))) < 5000
        west, south, east, north = asked.bounds
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
        # No larger than the box, to the millionth of a degree that it is rounded to.
        whole = area.whole_lonlat.geom
        assert asked.area <= whole.envelope.buffer(2e-6, join_style="mitre").area

    @pytest.mark.slow
    @given(st.lists(st.floats(0.01, 1), min_size=101, max_size=400), st.floats(-180, 180), st.floats(-88, 88))
    @settings(max_examples=100, deadline=None)
    def test_contains_any_area(self, radii: list[float], lon: float, lat: float) -> None:
        area = aoi(ring(len(radii), np.array(radii), lon, lat))
        asked = area.search_area.geom
        assert asked.is_valid
        assert asked.contains(area.geometry_lonlat.geom)
        assert shapely.get_num_coordinates(asked) <= 110

    def test_is_tight(self) -> None:
        assert aoi(ring(5000)).search_area.geom.area < 1.15 * ring(5000).area

    @pytest.mark.parametrize("shape", [SQUARE, FARM, ring(99), shapely.box(179, 10, 181, 11)])
    def test_of_few_vertices_is_the_area(self, shape: BaseGeometry) -> None:
        assert aoi(shape).search_area.geom.equals(aoi(shape).geometry_lonlat.geom)


def turned(shape: Any, by: int) -> Any:
    def turn(ring: Any) -> list[Any]:
        points = list(ring.coords)[:-1]
        return [*points[by:], *points[:by]]

    return shapely.Polygon(turn(shape.exterior), [turn(hole) for hole in shape.interiors])


def with_middles(shape: Any) -> Any:
    return shapely.segmentize(shape, 0.004)


def doubled(shape: Any) -> Any:
    points = np.repeat(shapely.get_coordinates(shape.exterior), 2, axis=0)
    return shapely.Polygon(points, [hole.coords for hole in shape.interiors])


WAYS: dict[str, Callable[[Any], Any]] = {
    "reversed": shapely.reverse,
    "oriented": shapely.orient_polygons,
    "other start": lambda shape: turned(shape, 2),
    "heights": lambda shape: shapely.force_3d(shape, 300),
    "a multipolygon": lambda shape: shapely.MultiPolygon([shape]),
    "points along edges": with_middles,
    "points twice": doubled,
    "7 decimals": lambda shape: shapely.transform(shape, lambda points: points.round(7)),
    "noise": lambda shape: shapely.transform(shape, lambda points: points + 3e-14),
    "a turn on": lambda shape: shapely.transform(shape, lambda points: points + np.array([360, 0])),
}


class TestGround:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", ["farm", "square", "southwest"])
    def test_is_the_same_however_it_is_written(self, way: str, name: str) -> None:
        shape = {
            "farm": FARM,
            "square": SQUARE,
            "southwest": shapely.transform(FARM, lambda points: points - [90, 60]),
        }[name]
        assert aoi(WAYS[way](shape)).ground == aoi(shape).ground

    def test_of_parts_in_any_order(self) -> None:
        parts = [FARM, shapely.box(10.1, 50, 10.2, 50.1), shapely.box(11, 50, 11.1, 50.1)]
        assert aoi(shapely.MultiPolygon(parts[::-1])).ground == aoi(shapely.MultiPolygon(parts)).ground

    def test_of_what_is_cut_at_the_antimeridian(self) -> None:
        whole = shapely.transform(FARM, lambda points: points + np.array([169.985, -67]))
        assert aoi(split(whole)).ground == aoi(whole).ground

    @pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:3857", "EPSG:3035", "EPSG:4258"])
    @pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "parquet"])
    def test_of_a_file_in_another_crs(self, tmp_path: Path, crs: str, suffix: str) -> None:
        frame = geopandas.GeoDataFrame({"id": ["x"]}, geometry=[FARM], crs="EPSG:4326").to_crs(crs)
        path = tmp_path / f"farm.{suffix}"
        frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
        assert s2cube.read_aoi(path).ground == aoi(FARM).ground

    def test_of_decimals_that_end_in_five(self) -> None:
        """Halves are rounded the same way after a reprojection."""
        rng = np.random.default_rng(2)
        for _ in range(50):
            corner = (rng.integers(0, 10**6, 2) * 10 + 5) / 1e8
            shape = shapely.box(10 + corner[0], 50 + corner[1], 10.02 + corner[0], 50.02 + corner[1])
            utm = geopandas.GeoSeries([shape], crs="EPSG:4326").to_crs("EPSG:32632")[0]
            assert aoi(utm, "EPSG:32632").ground == aoi(shape).ground

    def test_of_random_vertices(self) -> None:
        shapes = [coast(1000, lon) for lon in np.linspace(6.5, 11.5, 20)]
        utm = geopandas.GeoSeries(shapes, crs="EPSG:4326").to_crs("EPSG:32632")
        assert [aoi(each, "EPSG:32632").ground for each in utm] == [aoi(each).ground for each in shapes]

    @pytest.mark.parametrize("by_deg", [2e-7, 1e-6, 1e-3])
    def test_is_another_where_a_vertex_moves(self, by_deg: float) -> None:
        points = shapely.get_coordinates(FARM)
        for vertex in range(1, 3):
            moved = points.copy()
            moved[vertex] += by_deg
            changed = shapely.set_coordinates(shapely.Polygon(FARM), moved)
            assert aoi(changed).ground != aoi(FARM).ground

    def test_is_another_with_a_hole_filled_or_a_part_less(self) -> None:
        assert aoi(shapely.Polygon(FARM.exterior)).ground != aoi(FARM).ground
        assert aoi(shapely.MultiPolygon([FARM, shapely.box(11, 50, 12, 51)])).ground != aoi(FARM).ground

    def test_of_curves_of_fine_vertices(self) -> None:
        """Each of their vertices is on the line between its neighbours, to a micrometre."""
        fine = [aoi(ring(300_000, radius)).ground for radius in (0.01, 0.02, 0.03)]
        assert len(set(fine)) == 3

    def test_of_slivers_of_a_nanometre(self) -> None:
        slivers = [shapely.Polygon([(10, 50), (10.01, 50), (10.01, 50 + y)]) for y in (1e-13, 2e-13)]
        slivers.append(shapely.Polygon([(10, 50), (10.02, 50), (10.02, 50 + 1e-13)]))
        assert aoi(slivers[0]).ground == aoi(slivers[1]).ground != aoi(slivers[2]).ground

    def test_of_edges_that_are_bent_by_more_than_a_metre(self) -> None:
        """They enclose other ground where they are straight in metres."""
        large = shapely.box(9, 50, 10, 51)
        utm = geopandas.GeoSeries([large], crs="EPSG:4326").to_crs("EPSG:32632")[0]
        assert aoi(utm, "EPSG:32632").ground != aoi(large).ground


def test_the_same_area_in_another_file_is_not_made_again(
    s2cube_command: CommandLine, archive: Archive, server_processes: None
) -> None:
    frame = geopandas.read_file(archive.aoi)
    asked = ("--stac", archive.items, "--datetime", "2021", "--bands", "blue", "--out", "out")
    done = s2cube_command("run", "--aoi", archive.aoi, *asked, "--json")
    assert done.status == 0, done.err
    assert done.json["written"]
    frame.geometry = shapely.reverse(frame.geometry)
    frame.to_crs("EPSG:3857").to_file("other.gpkg")
    again = s2cube_command("run", "--aoi", "other.gpkg", "--aoi-id", "id", *asked, "--json")
    assert again.json["written"] == []
    assert len(again.json["skipped"]) == len(done.json["written"])


SLIVERS = {
    "along a parallel": (shapely.box(10, 50, 10.0153, 50 + 1e-11), "EPSG:4326"),
    "slanted": (shapely.LineString([(10, 50), (10.01, 50.005)]).buffer(5e-12, cap_style="flat"), "EPSG:4326"),
    "in metres": (shapely.box(500_000, 5.5e6, 501_100, 5.5e6 + 1e-6), "EPSG:32632"),
    "of 100 km": (shapely.box(10, 50, 11.5, 50 + 1e-11), "EPSG:4326"),
    "a triangle": (shapely.Polygon([(10, 50), (10.02, 50), (10.02, 50 + 1e-13)]), "EPSG:4326"),
    "with a field": (shapely.MultiPolygon([SQUARE, shapely.box(11, 50, 12, 50 + 1e-11)]), "EPSG:4326"),
}


@pytest.mark.parametrize("name", SLIVERS)
def test_a_sliver_gets_no_more_points_than_its_length_needs(name: str) -> None:
    """The square root of its area was the step: 16 s for a kilometre by a micrometre."""
    shape, crs = SLIVERS[name]
    area = aoi(shape, crs)
    box = aoi_geobox(area, "EPSG:32633", 30)
    length_m = in_crs(area.geometry, "EPSG:32633").geom.length
    assert shapely.get_num_coordinates(in_crs(area.geometry, "EPSG:32633").geom) < 20 + length_m / 150
    assert max(box.shape) < length_m / 30 + 3
    assert area.search_area.geom.bounds == area.geometry_lonlat.geom.bounds


@pytest.mark.parametrize("side_m", [900, 60_000])
def test_a_crs_is_known_by_its_code_however_the_process_met_it_first(side_m: int) -> None:
    """Also for edges that are bent in degrees, where the CRS is part of the digest of the ground."""
    zone = 32600 + (5 if side_m == 900 else 6)  # of no other test: odc-geo remembers the first name of a CRS
    as_wkt = pyproj.CRS.from_wkt(pyproj.CRS(zone).to_wkt())
    square = shapely.box(400_000, 4_500_000, 400_000 + side_m, 4_500_000 + side_m)
    first, second = AOI("x", Geometry(square, CRS(as_wkt))), AOI("x", Geometry(square, f"EPSG:{zone}"))
    grids = [aoi_geobox(each, "auto", 30) for each in (first, second)]
    assert [str(each.crs) for each in grids] == [f"EPSG:{zone}"] * 2
    assert grids[0] == grids[1]
    assert first.ground == second.ground


def test_an_edge_is_drawn_as_it_is_bent() -> None:
    """A parallel of 200 km: pyproj says where its points are in UTM, to a centimetre."""
    shape = shapely.box(7.6, 60, 10.4, 60.5)
    outline = in_crs(Geometry(shape, "EPSG:4326"), "EPSG:32632").geom
    lon = np.linspace(7.6, 10.4, 5000)
    x, y = CRS("EPSG:4326").transformer_to_crs(CRS("EPSG:32632"))(lon, np.full(lon.shape, 60.0))
    assert shapely.distance(shapely.points(x, y), outline.boundary).max() < 0.01


def test_a_zigzag_longer_than_the_equator() -> None:
    shape = ring(50_000, np.where(np.arange(50_000) % 2, 0.5, 0.25))
    assert shapely.get_num_coordinates(in_crs(Geometry(shape, "EPSG:4326"), "EPSG:32632").geom) < 200_000


def test_ten_thousand_fields_in_metres() -> None:
    """Simplified at once they took two minutes."""
    utm = in_crs(Geometry(scattered(10_000), "EPSG:4326"), "EPSG:3857")
    began_s = time.process_time()
    area = aoi(utm.geom, "EPSG:3857")
    assert area.whole_lonlat.geom.is_valid
    assert time.process_time() - began_s < 20


class TestItemGeometry:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", MANY)
    def test_is_as_near_as_it_says(self, name: str) -> None:
        whole = aoi(MANY[name]).whole_lonlat.geom
        outline, tolerance_m = compact(whole, 3)
        assert outline.is_valid
        assert tolerance_m in (0, 3)
        points, others = (shapely.points(shapely.get_coordinates(each)[::50]) for each in (whole, outline))
        far_deg = max(shapely.distance(points, outline.boundary).max(), shapely.distance(others, whole.boundary).max())
        assert far_deg <= tolerance_m / 111_000 + 1e-7
        assert shapely.get_num_coordinates(outline) <= shapely.get_num_coordinates(whole)

    def test_has_seven_decimals(self) -> None:
        outline, tolerance_m = compact(shapely.box(1 / 3, 1 / 7, 2 / 3, 2 / 7), 3)
        assert outline.bounds == (0.3333333, 0.1428571, 0.6666667, 0.2857143)
        assert tolerance_m == 0

    def test_of_a_smooth_area_is_small(self) -> None:
        outline, tolerance_m = compact(ring(100_000), 3)
        text = stac_json({"id": "x", "geometry": shapely.geometry.mapping(outline), "bbox": [1, 2]})
        assert len(text) < 15_000
        assert tolerance_m == 3

    @pytest.mark.parametrize("name", SLIVERS)
    def test_of_a_sliver_is_left(self, name: str) -> None:
        whole = aoi(*SLIVERS[name]).whole_lonlat.geom
        outline, _ = compact(whole, 3)
        assert outline.is_valid
        assert not outline.is_empty
        assert np.allclose(outline.bounds, whole.bounds, atol=1e-7) or name == "with a field"

    def test_is_one_line_of_json(self) -> None:
        content = {"id": "x", "geometry": shapely.geometry.mapping(FARM), "properties": {"a": "\0geometry"}}
        assert json.loads(stac_json(content)) == json.loads(json.dumps(content))
        assert len(stac_json(content).splitlines()) == 7
        assert json.loads(stac_json({"geometry": None})) == {"geometry": None}


@pytest.mark.parametrize("kind", ["coast", "sliver"])
def test_items_of_large_and_narrow_areas(
    s2cube_command: CommandLine, archive: Archive, server_processes: None, kind: str
) -> None:
    farm = s2cube.read_aoi(archive.aoi)
    lon, lat = farm.whole_lonlat.geom.representative_point().coords[0]
    wide = 0.01 + 0.002 * np.sin(np.arange(30_000) / 30)
    shape = ring(30_000, wide, lon, lat) if kind == "coast" else shapely.box(lon, lat, lon + 0.013, lat + 1e-11)
    geopandas.GeoSeries([shape], crs="EPSG:4326").to_file("area.geojson", COORDINATE_PRECISION=15)
    asked = ("--aoi", "area.geojson", "--stac", archive.items, "--datetime", "2021", "--bands", "blue")
    done = s2cube_command("run", *asked, "--out", "out", "--json")
    assert done.status == 0, done.err
    assert done.json["written"]
    for path in done.json["written"]:
        text = Path(path).with_suffix(".json").read_text()
        item = json.loads(text)
        outline = shapely.geometry.shape(item["geometry"])
        assert outline.is_valid
        assert item["bbox"] == list(bounds_lonlat(outline))
        assert item["properties"]["s2cube:geometry_tolerance_m"] == (3 if kind == "coast" else 0)
        assert len(text) < 200_000
        assert shapely.hausdorff_distance(outline, shape, 0.5) < 3 / 70_000
