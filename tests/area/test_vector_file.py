"""Areas of interest from the files people have."""

import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

import s2cube
from s2cube.errors import AOIError

SQUARE = shapely.box(10, 50, 10.1, 50.1)
FORMATS = {"GeoJSON": "geojson", "GPKG": "gpkg", "ESRI Shapefile": "shp", "FlatGeobuf": "fgb", "GML": "gml"}


def save(path: Path, geometries: list[Any], crs: str = "EPSG:4326", **columns: list[Any]) -> Path:
    geopandas.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("driver", FORMATS)
def test_formats(tmp_path: Path, driver: str) -> None:
    path = tmp_path / f"field.{FORMATS[driver]}"
    geopandas.GeoDataFrame({"id": ["A1"]}, geometry=[SQUARE], crs="EPSG:4326").to_file(path, driver=driver)
    aoi = s2cube.read_aoi(path)
    assert aoi.id == "A1"
    assert aoi.geometry_lonlat.geom.equals_exact(SQUARE, 1e-9) or aoi.geometry_lonlat.geom.equals(SQUARE)


def test_geoparquet(tmp_path: Path) -> None:
    geopandas.GeoDataFrame({"id": ["A1"]}, geometry=[SQUARE], crs="EPSG:4326").to_parquet(tmp_path / "f.parquet")
    assert s2cube.read_aoi(tmp_path / "f.parquet").geometry.geom.equals(SQUARE)


def test_zipped_shapefile(tmp_path: Path) -> None:
    save(tmp_path / "field.shp", [SQUARE])
    with zipfile.ZipFile(tmp_path / "field.zip", "w") as archive:
        for part in tmp_path.glob("field.*"):
            if part.suffix != ".zip":
                archive.write(part, part.name)
    assert s2cube.read_aoi(tmp_path / "field.zip").id == "field"


def test_any_crs(tmp_path: Path) -> None:
    utm = geopandas.GeoSeries([SQUARE], crs="EPSG:4326").to_crs("EPSG:32632")
    aoi = s2cube.read_aoi(save(tmp_path / "f.gpkg", list(utm), "EPSG:32632"))
    # The sides are straight in metres: in degrees they are bent, by 1.2 m at most.
    assert shapely.hausdorff_distance(aoi.geometry_lonlat.geom, SQUARE) < 1.5e-5
    assert aoi.geometry.crs == "EPSG:32632"


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("suffix", ["geojson", "geojsonl", "gml", "kml", "csv+vrt", "shp+prj", "shp+cpg"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, suffix: str) -> None:
    first, _, marked = suffix.partition("+")
    path = tmp_path / f"field.{first}"
    if first == "csv":
        path.write_text(f'id,WKT\nA1,"{SQUARE.wkt}"\n')
        path = tmp_path / "field.vrt"
        path.write_text(
            '<OGRVRTDataSource><OGRVRTLayer name="field"><SrcDataSource relativeToVRT="1">field.csv</SrcDataSource>'
            '<LayerSRS>EPSG:4326</LayerSRS><GeometryField encoding="WKT" field="WKT"/></OGRVRTLayer></OGRVRTDataSource>'
        )
        marked = "csv"
    else:
        geopandas.GeoDataFrame({"id": ["A1"]}, geometry=[SQUARE], crs="EPSG:4326").to_file(
            path, driver="KML" if first == "kml" else None
        )
    text = tmp_path / f"field.{marked or first}"
    text.write_bytes(BOM + text.read_bytes())
    aoi = s2cube.read_aoi(path, None if first == "kml" else "id")
    assert aoi.geometry_lonlat.geom.equals(SQUARE)
    assert aoi.geometry.crs == "EPSG:4326"


def test_holes_and_parts_stay(tmp_path: Path) -> None:
    ring = SQUARE - shapely.box(10.02, 50.02, 10.05, 50.05)
    both = shapely.MultiPolygon([ring, shapely.box(11, 51, 11.1, 51.1)])
    aoi = s2cube.read_aoi(save(tmp_path / "f.geojson", [both]))
    assert aoi.geometry.geom.equals(both)


def test_heights_are_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "f.geojson", [shapely.force_3d(SQUARE, 300)])
    assert not s2cube.read_aoi(path).geometry.geom.has_z


def feature(**members: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(SQUARE)} | members


@pytest.mark.parametrize(
    ("features", "ids"),
    [
        ([feature(id="top")], ["top"]),
        ([feature(properties={"id": "inner"})], ["inner"]),
        ([feature(properties={"id": 7})], ["7"]),
        ([feature(properties={"name": "Müller's field #3"})], ["Müller-s-field-3"]),
        ([feature()], ["fields"]),
        ([feature(), feature()], ["fields_1", "fields_2"]),
        ([feature(id="a"), feature(id="b")], ["a", "b"]),
        ([feature(properties={"id": "../../etc/passwd"})], ["etc-passwd"]),
        ([feature(properties={"id": "小麦 1"})], ["小麦-1"]),
        ([feature(properties={"id": "x" * 300})], ["x" * 80]),
        ([feature(properties={"id": "小" * 100})], ["小" * 26]),
        ([feature(properties={"id": "catalog.json"})], ["catalog-json"]),
        ([feature(id=10), feature(id=7)], ["10", "7"]),
        ([feature(id=10)], ["10"]),
    ],
)
def test_ids(tmp_path: Path, features: list[dict[str, Any]], ids: list[str]) -> None:
    path = tmp_path / "fields.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert [aoi.id for aoi in s2cube.read_aois(path)] == ids


def test_id_by_property(tmp_path: Path) -> None:
    path = save(tmp_path / "f.gpkg", [SQUARE, SQUARE], crop=["soy", "maize"])
    assert [aoi.id for aoi in s2cube.read_aois(path, "crop")] == ["soy", "maize"]
    with pytest.raises(AOIError, match="has no property 'farmer'. Its properties: crop"):
        s2cube.read_aois(path, "farmer")


BOWTIE = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])


@pytest.mark.parametrize(
    ("geometries", "columns", "problem"),
    [
        ([BOWTIE], {}, "has an invalid geometry .Self-intersection"),
        ([shapely.Polygon()], {}, "has an empty geometry"),
        ([None, SQUARE], {"id": ["a", "b"]}, "feature 'a': has an empty geometry"),
        ([shapely.Point(1, 1)], {}, "is a Point, not a polygon"),
        ([SQUARE, SQUARE], {"id": ["A/1", "A-1"]}, "'A/1' and 'A-1' would both be written as 'A-1'"),
        ([SQUARE, SQUARE], {"id": ["a", "A"]}, "'a' and 'A' would both be written"),
        ([SQUARE], {"id": ["///"]}, "has an id with no letter or digit"),
        ([shapely.box(-180, 10, 180, 11)], {}, "spans more than half the globe"),
        ([shapely.box(-100, 10, 0, 11) | shapely.box(0, 10, 100, 11)], {}, "spans more than half the globe"),
        ([shapely.box(-100, 10, -50, 11) | shapely.box(10, 10, 90, 11)], {}, "spans more than half the globe"),
        ([shapely.box(41, -98, 42, -97)], {}, "has coordinates that are not degrees"),
    ],
)
def test_bad_features(tmp_path: Path, geometries: list[Any], columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(AOIError, match=problem):
        s2cube.read_aois(save(tmp_path / "f.geojson", geometries, **columns))


def test_same_id_twice(tmp_path: Path) -> None:
    with pytest.raises(AOIError, match="features 'a' and 'a' would both"):
        s2cube.read_aois(save(tmp_path / "f.gpkg", [SQUARE, SQUARE], id=["a", "a"]))


def test_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(AOIError, match="contains 2 features, not one"):
        s2cube.read_aoi(save(tmp_path / "f.gpkg", [SQUARE, SQUARE]))


def test_table_without_geometries(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AOIError, match="contains no geometries"):
        s2cube.read_aois(tmp_path / "t.csv")
