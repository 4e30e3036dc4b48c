"""Areas of interest as people have them in Python, and as text. GDAL is the oracle for GeoJSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geom import BoundingBox, Geometry

import s2cube
from s2cube.area import vector_file
from s2cube.area.areas import areas_of_job
from s2cube.config.sections import JobSection
from s2cube.errors import AOIError

SQUARE, OTHER = shapely.box(10, 50, 10.1, 50.1), shapely.box(11, 50, 11.1, 50.1)
FRAME = geopandas.GeoDataFrame({"name": ["a", "b"]}, geometry=[SQUARE, OTHER], crs="EPSG:4326")
UTM = FRAME.to_crs("EPSG:32632")


class Shape:
    """An object of a library that s2cube does not know."""

    __geo_interface__ = shapely.geometry.mapping(SQUARE)


ONE: dict[str, Callable[[], Any]] = {
    "shapely": lambda: SQUARE,
    "odc-geo": lambda: Geometry(SQUARE, "EPSG:4326"),
    "odc-geo without a CRS": lambda: Geometry(SQUARE, None),
    "odc-geo's box": lambda: BoundingBox(*SQUARE.bounds, crs="EPSG:4326"),
    "AOI": lambda: s2cube.AOI("area", SQUARE),
    "geometry dict": lambda: shapely.geometry.mapping(SQUARE),
    "Feature": lambda: {"type": "Feature", "properties": None, "geometry": shapely.geometry.mapping(SQUARE)},
    "__geo_interface__": Shape,
    "GeoDataFrame": lambda: FRAME[["geometry"]].iloc[:1],
    "GeoSeries": lambda: FRAME.geometry.iloc[:1],
    "array of geopandas": lambda: FRAME.geometry.iloc[:1].array,
    "array of numpy": lambda: np.array([SQUARE]),
    "box": lambda: SQUARE.bounds,
    "box of numpy": lambda: np.array(SQUARE.bounds),
    "text of a box": lambda: "10, 50, 10.1, 50.1",
    "WKT": lambda: SQUARE.wkt,
    "WKT with a CRS": lambda: f"SRID=4326;{SQUARE.wkt}",
    "GeoJSON text": lambda: shapely.to_geojson(SQUARE),
    "list": lambda: [SQUARE],
    "set": lambda: {SQUARE},
    "iterator": lambda: iter([SQUARE]),
}


@pytest.mark.parametrize("kind", ONE)
def test_one_area(kind: str) -> None:
    aoi = s2cube.read_aoi(ONE[kind]())
    assert aoi.id == "area"
    assert aoi.geometry.geom.equals(SQUARE)
    assert aoi.geometry.crs == "EPSG:4326"


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_path(tmp_path: Path, as_type: Callable[[Path], Any]) -> None:
    FRAME.to_file(tmp_path / "fields.gpkg")
    assert [aoi.id for aoi in s2cube.read_aois(as_type(tmp_path / "fields.gpkg"))] == ["a", "b"]


def test_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    FRAME.iloc[:1].to_file(tmp_path / "field.gpkg")
    for area in ("~/field.gpkg", Path("~/field.gpkg")):
        assert s2cube.read_aoi(area).id == "a"


@pytest.mark.parametrize(
    ("area", "ids"),
    [
        (FRAME, ["a", "b"]),
        (FRAME.rename(columns={"name": "id"}).assign(name=["x", "y"]), ["a", "b"]),
        (FRAME.assign(id=[7, None]), ["a", "b"]),
        (FRAME[["geometry"]], ["area_1", "area_2"]),
        (FRAME.set_index("name"), ["a", "b"]),
        (FRAME[["geometry"]].set_axis([3, 7]), ["3", "7"]),
        (FRAME[["geometry"]].set_axis([("f", 1), ("f", 2)]), ["f-1", "f-2"]),
        (geopandas.GeoSeries([SQUARE], crs=4326, name="farm"), ["farm"]),
        (geopandas.GeoSeries([SQUARE, OTHER], crs=4326, name="farm"), ["farm_1", "farm_2"]),
        ([SQUARE, FRAME, s2cube.AOI("c", OTHER), (1, 2, 3, 4)], ["area_1", "a", "b", "c", "area_5"]),
        ([[SQUARE], [OTHER]], ["area_1", "area_2"]),
        (FRAME.__geo_interface__, ["a", "b"]),
        (json.loads(FRAME.to_json()), ["a", "b"]),
    ],
)
def test_ids(area: Any, ids: list[str]) -> None:
    assert [aoi.id for aoi in s2cube.read_aois(area)] == ids


def test_the_id_of_a_column_that_is_named() -> None:
    assert [aoi.id for aoi in s2cube.read_aois(FRAME.assign(crop=["soy", "rye"]), "crop")] == ["soy", "rye"]


NAMES = st.none() | st.text("abXYZ19 -", min_size=1, max_size=4).filter(lambda text: any(map(str.isalnum, text)))


@given(
    st.lists(
        st.tuples(NAMES, NAMES, st.none() | st.text("abc", min_size=1, max_size=3)), min_size=1, max_size=3,
        unique_by=(lambda row: row[0], lambda row: row[1], lambda row: row[2]),
    )
)  # fmt: skip
def test_ids_of_geojson_are_those_that_gdal_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, str | None, str | None]]
) -> None:
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(SQUARE)}
        | {"properties": {key: value for key, value in (("id", own), ("name", name)) if value is not None}}
        | ({} if outer is None else {"id": outer})
        for own, name, outer in rows
    ]
    content = {"type": "FeatureCollection", "features": features}
    path = tmp_path_factory.mktemp("geojson") / "area.geojson"
    path.write_text(json.dumps(content))

    def ids(area: Any) -> list[str] | str:
        try:
            return [aoi.id for aoi in s2cube.read_aois(area)]
        except AOIError as error:
            return error.problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "plain_features", lambda path, options: None)
        by_gdal = ids(path)
    assert ids(content) == by_gdal
    assert ids(path) == by_gdal


def test_crs_of_what_has_none() -> None:
    for area in (UTM.geometry[0], UTM.geometry[0].wkt, shapely.geometry.mapping(UTM.geometry[0])):
        aoi = s2cube.read_aoi(area, crs=32632)
        assert aoi.geometry.crs == "EPSG:32632"
        assert aoi.geometry.geom.equals(UTM.geometry[0])
    by_box = s2cube.read_aoi(UTM.geometry[0].bounds, crs="EPSG:32632")
    assert by_box.geometry.geom.equals(UTM.geometry[0].envelope)
    assert s2cube.read_aoi(geopandas.GeoSeries([SQUARE]), crs=4326).geometry.geom.equals(SQUARE)


def test_a_crs_of_its_own() -> None:
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    content = shapely.geometry.mapping(UTM.geometry[0]) | {"crs": named}
    for area in (UTM.iloc[:1], content, f"SRID=32632;{UTM.geometry[0].wkt}"):
        assert s2cube.read_aoi(area).geometry.crs == "EPSG:32632"
        assert s2cube.read_aoi(area, crs="EPSG:32632").geometry.geom.equals(UTM.geometry[0])
        with pytest.raises(AOIError, match="has the CRS .*32632, which is not the CRS EPSG:4326"):
            s2cube.read_aoi(area, crs=4326)
    crs84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    assert s2cube.read_aoi(shapely.geometry.mapping(SQUARE) | {"crs": crs84}).ground == s2cube.read_aoi(SQUARE).ground


def test_a_box_across_the_antimeridian() -> None:
    whole = s2cube.read_aoi(shapely.box(179.5, -17, 180.5, -16))
    for area in ((179.5, -17, -179.5, -16), "179.5,-17,-179.5,-16", (179.5, -17, 180.5, -16)):
        assert s2cube.read_aoi(area).geometry.geom.equals(whole.geometry.geom)


LOOP: list[Any] = []
LOOP.append(LOOP)

BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "is None. Give a path, a GeoDataFrame or GeoSeries, a shapely"),
    "number": (5, "is of the type int"),
    "bytes": (b"x", "is of the type bytes"),
    "class": (Shape, "is of the type type"),
    "row": (FRAME.iloc[0], "is of the type Series"),
    "array without dimensions": (np.array(5.0), "is of the type ndarray"),
    "list in itself": (LOOP, "is of the type list"),
    "element": ([SQUARE, 5], "area 2 of the list: is of the type int"),
    "empty list": ([], "is an empty list"),
    "empty text": (" ", "is an empty text"),
    "empty dict": ({}, "is not GeoJSON"),
    "other dict": ({"a": 1}, "is not GeoJSON: it has no type"),
    "other type": ({"type": "Topology"}, "is not GeoJSON: its type is 'Topology'"),
    "no list": ({"type": "FeatureCollection", "features": 5}, "its features are not a list"),
    "no features": ({"type": "FeatureCollection", "features": []}, "contains no features"),
    "no Feature": ({"type": "FeatureCollection", "features": [5]}, "feature 1 is not a Feature"),
    "no geometry": ({"type": "Feature", "properties": {}, "geometry": None}, "has an empty geometry"),
    "bad coordinates": ({"type": "Polygon", "coordinates": "x"}, "has a geometry that cannot be read"),
    "bad crs": (shapely.geometry.mapping(SQUARE) | {"crs": 5}, "has a member crs that is not a name"),
    "GeoJSON text": ("{", "the GeoJSON text: cannot be read"),
    "WKT text": ("POLYGON((1 2", "the WKT text: cannot be read"),
    "3 numbers": ((1, 2, 3), "is not a box of 4 numbers"),
    "5 numbers": ("1,2,3,4,5", "is not a box of 4 numbers"),
    "not a number": ((1, 2, float("nan"), 4), "is not a box of 4 numbers"),
    "no width": ((10, 50, 10, 51), "has no area"),
    "upside down": ((10, 51, 11, 50), "its south is not less than its north"),
    "latitude first": ((50, 10, 51, 100), "has numbers that are not degrees"),
    "east first": ((11, 50, 10, 51), "spans more than half the globe: its west is east of its east"),
    "a point": (shapely.Point(1, 2), "is a Point, not a polygon"),
    "metres": (UTM.geometry[0], "has coordinates that are not degrees .*give their CRS"),
    "bowtie": (shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "has an invalid geometry"),
    "no CRS": (geopandas.GeoSeries([SQUARE]), "has no CRS. Set it by set_crs"),
    "empty frame": (FRAME.iloc[:0], "contains no features"),
    "no geometry column": (geopandas.GeoDataFrame({"a": [1]}), "has no geometry column"),
    "same ids": ([FRAME, FRAME], "features 'a' and 'a' would both be written as 'a'"),
    "an address": ("https://x.org/a.geojson", "is an address"),
    "no file": ("nowhere.geojson", "there is no such file"),
    "no folder": ("nowhere/a.geojson", "There is no folder nowhere"),
    "no path": (Path("nowhere.gpkg"), "there is no such file"),
    "null in a name": ("a\0b", "there is no such file"),
    "long name": ("a" * 5000, "there is no such file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_anything_else_is_refused(kind: str) -> None:
    area, problem = BAD[kind]
    with pytest.raises(AOIError, match=problem):
        s2cube.read_aois(area)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["Polygon", "MultiPolygon", "Feature", "FeatureCollection", "EPSG:4326"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "features", "geometry", "coordinates", "properties", "id", "name", "crs"]), inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON | st.binary(max_size=3) | st.tuples(*[st.floats()] * 4))
def test_anything_is_an_area_or_an_error_of_s2cube(area: Any) -> None:
    try:
        aois = s2cube.read_aois(area)
    except AOIError:
        return
    assert all(aoi.geometry.geom.is_valid for aoi in aois)


@pytest.mark.parametrize(
    ("area", "options", "problem"),
    [
        (SQUARE, {"crs": "nonsense"}, "'nonsense' is not a CRS that PROJ knows"),
        (SQUARE, {"crs": True}, "True is not a CRS"),
        (SQUARE, {"layer": "x"}, "has no layer 'x'"),
        (FRAME, {"layer": "x"}, "has no layer 'x'"),
        ((1, 2, 3, 4), {"id_property": "x"}, "has no property 'x'"),
        (FRAME, {"id_property": "x"}, "has no property 'x'. Its properties: name"),
    ],
)
def test_options_that_have_no_effect_are_refused(area: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(AOIError, match=problem):
        s2cube.read_aois(area, **options)


def test_several_where_one_is_needed() -> None:
    with pytest.raises(AOIError, match="contains 2 features, not one: a, b. Read them with s2cube.read_aois"):
        s2cube.read_aoi(FRAME)


@pytest.mark.parametrize("name", ["", "a/b", " a", "///", "CON", 5, None])
def test_an_aoi_has_a_safe_id(name: Any) -> None:
    with pytest.raises(AOIError, match="is not a safe file name"):
        s2cube.AOI(name, SQUARE)


@pytest.mark.parametrize("geometry", [None, "x", SQUARE.bounds, shapely.Polygon(), shapely.Point(1, 2)])
def test_an_aoi_is_a_polygon(geometry: Any) -> None:
    with pytest.raises(AOIError, match="area 'x': "):
        s2cube.AOI("x", geometry)


class TestLayers:
    @pytest.fixture
    def several(self, tmp_path: Path) -> Path:
        path = tmp_path / "several.gpkg"
        for layer, geometry in (("points", SQUARE.centroid), ("north", SQUARE), ("south", OTHER)):
            geopandas.GeoDataFrame({"id": [layer]}, geometry=[geometry], crs="EPSG:4326").to_file(path, layer=layer)
        return path

    def test_a_layer_must_be_chosen(self, several: Path) -> None:
        problem = "has several layers with polygons: north, south. Choose one of them by --aoi-layer"
        with pytest.raises(AOIError, match=problem):
            s2cube.read_aois(several)

    def test_a_chosen_layer(self, several: Path) -> None:
        assert s2cube.read_aoi(several, layer="south").id == "south"
        assert s2cube.read_aoi(several, layer=1).id == "north"
        assert s2cube.read_aoi(f"{several}|layername=south").id == "south"
        assert s2cube.read_aoi(f"{several}|layerid=1").id == "north"
        assert s2cube.read_aoi(f"{several}|layername=south", layer="south").id == "south"
        assert areas_of_job(JobSection(aoi=several, aoi_layer="south"))[0].id == "south"

    @pytest.mark.parametrize(
        ("ending", "layer", "problem"),
        [
            ("", "west", "has no layer 'west'. Its layers: points, north, south"),
            ("", 7, "has no layer '7'"),
            ("|layername=west", None, "has no layer 'west'"),
            ("|layername=north", "south", "names another layer than --aoi-layer, 'south'"),
            ("|layername=north|subset=x", None, "has the option 'subset=x', which s2cube does not read"),
            ("x|layername=north", None, "there is no such file"),
        ],
    )
    def test_no_such_layer(self, several: Path, ending: str, layer: Any, problem: str) -> None:
        with pytest.raises(AOIError, match=problem.replace("|", r"\|")):
            s2cube.read_aois(f"{several}{ending}", layer=layer)

    def test_one_layer_of_several_has_polygons(self, tmp_path: Path) -> None:
        path = tmp_path / "one.gpkg"
        for layer, geometry in (("points", SQUARE.centroid), ("fields", SQUARE)):
            geopandas.GeoDataFrame({"id": [layer]}, geometry=[geometry], crs="EPSG:4326").to_file(path, layer=layer)
        assert s2cube.read_aoi(path).id == "fields"

    def test_no_layer_has_polygons(self, tmp_path: Path) -> None:
        path = tmp_path / "none.gpkg"
        for layer in ("a", "b"):
            geopandas.GeoDataFrame(geometry=[SQUARE.centroid], crs="EPSG:4326").to_file(path, layer=layer)
        with pytest.raises(AOIError, match=r"has no layer with polygons \(layers: a, b\)"):
            s2cube.read_aois(path)

    def test_geoparquet_has_no_layers(self, tmp_path: Path) -> None:
        FRAME.to_parquet(tmp_path / "f.parquet")
        with pytest.raises(AOIError, match="has no layer 'x': GeoParquet has no layers"):
            s2cube.read_aois(tmp_path / "f.parquet", layer="x")


KML = """<?xml version="1.0" encoding="UTF-8"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>
<Folder><name>Pins</name><Placemark id="p"><name>Gate</name><Point><coordinates>10,50</coordinates></Point></Placemark>
</Folder><Folder><name>Fields</name><Placemark id="0AF1">%s<Polygon><outerBoundaryIs><LinearRing><coordinates>
10,50 10.1,50 10.1,50.1 10,50.1 10,50</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark></Folder>
</Document></kml>"""


@pytest.mark.parametrize(("name", "aoi_id"), [("<name>My field</name>", "My-field"), ("", "0AF1")])
def test_kml(tmp_path: Path, name: str, aoi_id: str) -> None:
    """Its folders are layers that do not declare the kind of their geometries."""
    (tmp_path / "pins.kml").write_text(KML % name)
    aoi = s2cube.read_aoi(tmp_path / "pins.kml")
    assert aoi.id == aoi_id
    assert aoi.geometry.geom.equals(SQUARE)


def test_the_error_helps_one_who_named_a_file(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "fields.gpkg")
    with pytest.raises(AOIError, match="In this folder: fields.gpkg") as caught:
        areas_of_job(JobSection(aoi="field.gpkg"))
    assert "Name your area" not in str(caught.value)
    with pytest.raises(AOIError, match="is not named, and there is no file aoi.geojson. Name your area by --aoi"):
        areas_of_job(JobSection())


def test_the_words_of_libraries_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no area")
    with pytest.raises(AOIError, match="cannot be read as a vector file") as caught:
        s2cube.read_aois(tmp_path / "a.txt")
    assert "driver" not in str(caught.value)
