"""Areas in batches: the same as `read_aois` returns one by one, and what cannot be an area is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import obstore
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import S3Store
from odc.geo.geom import Geometry

import s2cube
from s2cube.errors import AOIError
from s2cube.fetch.store import Access
from s2cube.fields import _geoparquet
from s2cube.fields.reading import FieldBatch, check_columns, read_fields
from support.servers import faulty

SQUARE, OTHER = shapely.box(10, 50, 10.1, 50.1), shapely.box(11, 50, 11.1, 50.1)
HOLE = SQUARE - shapely.box(10.02, 50.02, 10.05, 50.05)
PARTS = shapely.MultiPolygon([SQUARE, OTHER])
OVER = shapely.box(179.9, -17, 180.1, -16.9)
JUMP = shapely.Polygon([(179.9, -17), (-179.9, -17), (-179.9, -16.9), (179.9, -16.9)])
BOWTIE = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
FRAME = geopandas.GeoDataFrame({"name": ["a", "b"]}, geometry=[SQUARE, OTHER], crs="EPSG:4326")
MANY = geopandas.GeoDataFrame(
    {"id": ["A/1", "Müller", "con", "x" * 300, "6"], "crop": ["rye", None, "", "soy", "soy"], "n": [1, 2, 3, 4, 5]},
    geometry=[HOLE, PARTS, OVER, JUMP, shapely.force_3d(shapely.box(-70, -30, -69, -29.5), 5)], crs="EPSG:4326",
)  # fmt: skip
BATCH_ROWS = 3
KML = """<?xml version="1.0" encoding="UTF-8"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder>
<name>Fields</name><Placemark id="0AF1"><name>My field</name><Polygon><outerBoundaryIs><LinearRing><coordinates>
10,50 10.1,50 10.1,50.1 10,50.1 10,50</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark></Folder>
</Document></kml>"""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "_geoparquet"):
        monkeypatch.setattr(f"s2cube.fields.{module}.BATCH_ROWS", BATCH_ROWS)


def check_like_read_aois(area: Callable[[], Any], **options: Any) -> list[FieldBatch]:
    expected = s2cube.read_aois(area(), **options)
    batches = list(read_fields(area(), **options))
    found = [(batch.fields, position) for batch in batches for position in range(len(batch.fields))]
    assert [fields.ids[position] for fields, position in found] == [aoi.id for aoi in expected]
    for (fields, position), aoi in zip(found, expected, strict=True):
        assert shapely.equals_exact(fields.shapes[position], aoi.geometry.geom, 0)
        assert fields.crs == str(aoi.geometry.crs)
        # `AOI.whole_lonlat` is simplified to 1e-6 degrees.
        assert fields.bounds_lonlat[position] == pytest.approx(tuple(aoi.whole_lonlat.boundingbox), abs=2e-6)
        lon, lat = fields.centres_lonlat[position]
        assert lon == pytest.approx(aoi.lon, abs=2e-6)
        assert lat == pytest.approx(aoi.whole_lonlat.centroid.coords[0][1], abs=2e-6)
    for batch in batches:
        assert batch.invalid == ()
        assert len(batch.fields) == batch.attributes.num_rows <= BATCH_ROWS
    return batches


PYTHON: dict[str, Callable[[], Any]] = {
    "shapely": lambda: SQUARE,
    "Geometry": lambda: Geometry(SQUARE, "EPSG:4326"),
    "AOI": lambda: s2cube.AOI("x", OVER),
    "AOIs": lambda: [s2cube.AOI(f"x{number}", shape) for number, shape in enumerate([OVER, SQUARE, PARTS, HOLE])],
    "several CRSs": lambda: [SQUARE, *(Geometry(each, "EPSG:32632") for each in FRAME.to_crs(32632).geometry), OTHER],
    "geometry dict": lambda: shapely.geometry.mapping(SQUARE),
    "GeoDataFrame": lambda: MANY,
    "projected GeoDataFrame": lambda: FRAME.to_crs(3035),
    "other degrees": lambda: FRAME.to_crs(4258),
    "over the antimeridian in metres": lambda: geopandas.GeoSeries([OVER], crs=4326).to_crs(32601),
    "long edges in metres": lambda: geopandas.GeoSeries([shapely.box(9, 50, 15, 50.1)], crs=4326).to_crs(3035),
    "index": lambda: FRAME.set_index("name"),
    "GeoSeries": lambda: geopandas.GeoSeries([SQUARE, OTHER], crs=4326, name="farm"),
    "box": lambda: (179.5, -17, -179.5, -16),
    "text of a box": lambda: "10, 50, 10.1, 50.1",
    "WKT": lambda: f"SRID=4326;{PARTS.wkt}",
    "GeoJSON": lambda: json.loads(MANY.to_json()),
    "list": lambda: [SQUARE, FRAME, s2cube.AOI("c", OTHER), (1, 2, 3, 4), [OVER, JUMP]],
    "iterator": lambda: iter([SQUARE, OTHER]),
}  # fmt: skip


@pytest.mark.parametrize("kind", PYTHON)
def test_what_python_has(kind: str) -> None:
    check_like_read_aois(PYTHON[kind])


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "gml"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields.{suffix}"
    frame = MANY.assign(geometry=shapely.force_2d(MANY.geometry)).iloc[[0, 2, 3, 4]]
    frame.to_file(path)
    batches = check_like_read_aois(lambda: path)
    assert [each for batch in batches for each in batch.attributes["n"].to_pylist()] == [1, 3, 4, 5]
    assert all("geometry" not in batch.attributes.column_names for batch in batches)


def test_layers_and_properties(tmp_path: Path) -> None:
    for layer, shape in (("north", SQUARE), ("south", OTHER)):
        frame = geopandas.GeoDataFrame({"crop": [layer]}, geometry=[shape], crs="EPSG:4326")
        frame.to_file(tmp_path / "f.gpkg", layer=layer)
    check_like_read_aois(lambda: tmp_path / "f.gpkg", layer="south", id_property="crop")
    check_like_read_aois(lambda: f"{tmp_path}/f.gpkg|layername=north")
    (tmp_path / "f.kml").write_text(KML)
    (batch,) = check_like_read_aois(lambda: tmp_path / "f.kml")
    assert list(batch.fields.ids) == ["My-field"]


COLUMNS: dict[str, dict[str, Any]] = {
    "texts": {"id": ["a", "b", "c", "d", "e"]},
    "integers": {"id": np.array([5, 4, 3, 2, 1], np.int16)},
    "floats": {"id": [1.5, 2, 3, 4, 5e20]},
    "a float is missing": {"id": [1, 2, 3, 4, np.nan], "name": list("abcde")},
    "a text is missing": {"id": ["a", "b", "c", "d", None], "name": list("abcde")},
    "a text is empty": {"id": ["a", "b", "c", "d", ""], "name": list("abcde")},
    "all are missing": {"id": [None] * 5},
    "integers with missing ones": {"id": pd.array([1, 2, None, 4, 5], "Int64"), "name": list("abcde")},
    "categories": {"id": pd.Categorical(["a", "b", "c", "d", "e"])},
    "categories of numbers": {"id": pd.Categorical([3, 4, 5, 6, 7])},
    "dates": {"id": pd.date_range("2024-01-01", periods=5, tz="UTC")},
    "bytes": {"id": [b"a", b"b", b"c", b"d", b"e"]},
    "no column": {"crop": list("abcde")},
}


class TestGeoParquet:
    @pytest.mark.parametrize("kind", COLUMNS)
    def test_ids(self, tmp_path: Path, kind: str) -> None:
        frame = geopandas.GeoDataFrame(COLUMNS[kind], geometry=list(MANY.geometry), crs="EPSG:4326")
        frame.to_parquet(tmp_path / "f.parquet", row_group_size=4)
        batches = check_like_read_aois(lambda: tmp_path / "f.parquet")
        assert [len(batch.fields) for batch in batches] == [3, 1, 1]

    @pytest.mark.parametrize("crs", [4326, 4258, 3035, 32633, "OGC:CRS84", "ESRI:102003"])
    @pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
    def test_crs(self, tmp_path: Path, crs: object, encoding: str) -> None:
        FRAME.to_crs(crs).to_parquet(tmp_path / "f.parquet", geometry_encoding=encoding, schema_version="1.1.0")
        check_like_read_aois(lambda: str(tmp_path / "f.parquet"))

    def test_a_crs_that_is_given(self, tmp_path: Path) -> None:
        geopandas.GeoDataFrame(FRAME.drop(columns="geometry"), geometry=list(FRAME.geometry)).to_parquet(
            tmp_path / "f.parquet"
        )
        check_like_read_aois(lambda: tmp_path / "f.parquet", crs=4326)
        with pytest.raises(AOIError, match="has no CRS"):
            read_fields(tmp_path / "f.parquet")

    def test_an_index_is_no_property(self, tmp_path: Path) -> None:
        FRAME.assign(crop="rye").set_index("name").to_parquet(tmp_path / "f.parquet")
        (batch,) = check_like_read_aois(lambda: tmp_path / "f.parquet")
        assert batch.attributes.column_names == ["crop"]

    def test_properties(self, tmp_path: Path) -> None:
        """The boxes of the rows are part of the geometry. Types are kept."""
        MANY.astype({"n": "int8"}).to_parquet(tmp_path / "f.parquet", write_covering_bbox=True)
        batches = check_like_read_aois(lambda: tmp_path / "f.parquet")
        table = pa.concat_tables([batch.attributes for batch in batches])
        assert table.schema.field("n").type == pa.int8()
        assert table.drop_columns("id").to_pydict() == {"crop": ["rye", None, "", "soy", "soy"], "n": [1, 2, 3, 4, 5]}

    def test_properties_without_columns(self, tmp_path: Path) -> None:
        FRAME[["geometry"]].to_parquet(tmp_path / "f.parquet")
        (batch,) = check_like_read_aois(lambda: tmp_path / "f.parquet")
        assert (batch.attributes.num_rows, batch.attributes.num_columns) == (2, 0)

    @pytest.mark.parametrize(
        ("frame", "options", "problem"),
        [
            (FRAME.iloc[:0], {}, "contains no features"),
            (FRAME, {"id_property": "x"}, "has no property 'x'. Its properties: name"),
            (FRAME.assign(x=["a", None]), {"id_property": "x"}, "a feature has no 'x'"),
            (FRAME, {"layer": "x"}, "GeoParquet has no layers"),
            (FRAME, {"crs": 32632}, "which is not the CRS EPSG:32632"),
            (FRAME.assign(name=["a", "A"]), {}, "features 'a' and 'A' would both be written as 'A'"),
            (MANY.assign(x=["ä", "1", "2", "Ä", "5"]), {"id_property": "x"}, "features 'ä' and 'Ä' would both"),
            (MANY.assign(id=["1", "2", "///", "4", "5"]), {}, "feature '///': has an id with no letter or digit"),
        ],
    )  # fmt: skip
    def test_errors_of_the_file(self, tmp_path: Path, frame: Any, options: dict[str, Any], problem: str) -> None:
        frame.to_parquet(tmp_path / "f.parquet")
        for read in (s2cube.read_aois, read_fields):
            with pytest.raises(AOIError, match=problem):
                read(tmp_path / "f.parquet", **options)

    def test_other_parquet_files(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "f.parquet")
        (tmp_path / "g.parquet").write_bytes(b"PAR1")
        for name in ("f", "g"):
            with pytest.raises(AOIError, match="cannot be read as a vector file"):
                read_fields(tmp_path / f"{name}.parquet")


with np.errstate(invalid="ignore"):
    NOT_A_NUMBER = shapely.from_wkt("POLYGON ((0 0, nan 1, 1 1, 0 0))")
SHAPES = [
    SQUARE, HOLE, PARTS, OVER, JUMP, BOWTIE, None, shapely.Polygon(), shapely.Point(1, 2),
    shapely.box(500, 10, 501, 95),
    shapely.force_3d(OTHER), shapely.box(-100, 10, 100, 11), shapely.GeometryCollection([SQUARE]),
    shapely.box(370, 10, 371, 11), NOT_A_NUMBER, shapely.box(800, 0, 801, 1),
    shapely.Polygon([(10, 80), (130, 80), (-110, 80)]),
]  # fmt: skip


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:4258"])
@settings(max_examples=20)
@given(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=9))
def test_invalid_areas_are_named_and_the_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, from_file: bool, crs: str, shapes: list[Any]
) -> None:
    ids = [f"f{number}" for number in range(len(shapes))]
    frame = geopandas.GeoDataFrame({"id": ids}, geometry=shapes, crs=crs)
    path = tmp_path_factory.mktemp("invalid") / "f.parquet"
    frame.to_parquet(path)
    found: dict[str, Any] = {}
    for batch in read_fields(path if from_file else frame):
        found |= {each.id: each.error.problem for each in batch.invalid}
        found |= dict(zip(batch.fields.ids, batch.fields.shapes, strict=True))
        assert batch.attributes["id"].to_pylist() == list(batch.fields.ids)
    assert found.keys() == set(ids)
    for number, name in enumerate(ids):
        try:
            expected: Any = s2cube.read_aoi(frame.iloc[[number]]).geometry.geom
        except AOIError as error:
            expected = error.problem
        assert found[name] == expected


def test_a_geometry_that_is_no_wkb(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    column = pa.array([b"\x01\x03", table["geometry"][1].as_py()])
    table = table.set_column(table.column_names.index("geometry"), table.schema.field("geometry"), column)
    pq.write_table(table, tmp_path / "f.parquet")
    (batch,) = read_fields(tmp_path / "f.parquet")
    assert [each.id for each in batch.invalid] == ["a"]
    assert list(batch.fields.ids) == ["b"]


def test_half_of_a_pair_of_surrogates() -> None:
    check_like_read_aois(lambda: FRAME.assign(name=["a\udc80", "b"]).astype({"name": object}))


class TestWithin:
    @pytest.fixture
    def frame(self) -> geopandas.GeoDataFrame:
        chosen = np.random.default_rng(1)
        west, south = np.sort(chosen.uniform(-179, 179.4, 200)), chosen.uniform(-60, 60, 200)
        shapes = list(shapely.box(west, south, west + 0.5, south + 0.5))
        return geopandas.GeoDataFrame({"id": range(200)}, geometry=shapes, crs="EPSG:4326")

    @pytest.mark.parametrize(
        "boxes",
        [[(10, -60, 40, 60), (100, 0, 120, 10)], [(170, -60, -170, 60)], [(170, -60, 190, 60)], []],
    )
    @pytest.mark.parametrize("covering", [True, False])
    @pytest.mark.parametrize("crs", [4326, 4258, 3857])
    def test_only_what_meets_the_boxes(
        self, tmp_path: Path, frame: geopandas.GeoDataFrame, boxes: Any, covering: bool, crs: int
    ) -> None:
        frame.to_crs(crs).to_parquet(tmp_path / "f.parquet", write_covering_bbox=covering, row_group_size=20)
        found = [each for batch in read_fields(tmp_path / "f.parquet", within=boxes) for each in batch.fields.ids]
        near = np.zeros(len(frame), bool)
        for west, south, east, north in boxes:
            for turn in (-360, 0, 360):
                end = east if east > west else east + 360
                near |= shapely.intersects(
                    shapely.box(west + turn, south, end + turn, north), frame.geometry.to_numpy()
                )
        assert found == [str(number) for number in np.flatnonzero(near)]
        assert 0 < len(found) < len(frame) or not boxes
        assert found == [each for batch in read_fields(frame, within=boxes) for each in batch.fields.ids]

    def test_others_are_not_decoded(
        self, tmp_path: Path, frame: geopandas.GeoDataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame.to_parquet(tmp_path / "f.parquet", write_covering_bbox=True, row_group_size=20)
        decoded, groups = [], []
        from_wkb, features = shapely.from_wkb, _geoparquet.GeoParquet._features
        monkeypatch.setattr(shapely, "from_wkb", lambda wkb, **how: decoded.append(len(wkb)) or from_wkb(wkb, **how))
        monkeypatch.setattr(
            _geoparquet.GeoParquet, "_features",
            lambda self, batch, first, within: groups.append(first // 20) or features(self, batch, first, within),
        )  # fmt: skip
        found = sum(len(batch.fields) for batch in read_fields(tmp_path / "f.parquet", within=[(10, -20, 20, 20)]))
        assert 0 < found <= sum(decoded) <= found + 2
        assert len(set(groups)) < 4

    def test_areas_without_a_geometry_are_always_named(self, tmp_path: Path, frame: geopandas.GeoDataFrame) -> None:
        frame.loc[3, "geometry"] = None
        frame.to_parquet(tmp_path / "f.parquet", write_covering_bbox=True, row_group_size=20)
        batches = list(read_fields(tmp_path / "f.parquet", within=[(170, -60, 180, 60)]))
        assert [each.id for batch in batches for each in batch.invalid] == ["3"]

    def test_over_the_antimeridian(self, tmp_path: Path) -> None:
        frame = geopandas.GeoDataFrame({"id": ["a", "b", "c"]}, geometry=[OVER, JUMP, SQUARE], crs="EPSG:4326")
        frame.to_parquet(tmp_path / "f.parquet", write_covering_bbox=True, row_group_size=1)
        for box in ((-180, -18, -179.95, -16), (179.95, -18, 180, -16)):
            batches = read_fields(tmp_path / "f.parquet", within=[box])
            assert [each for batch in batches for each in batch.fields.ids] == ["a", "b"]


class TestRemote:
    def test_https(self, tmp_path: Path, open_network: None) -> None:
        MANY.to_parquet(tmp_path / "fields.parquet", row_group_size=2)
        expected = s2cube.read_aois(tmp_path / "fields.parquet")
        with faulty(tmp_path) as server:
            batches = list(read_fields(f"{server.url}/fields.parquet"))
            assert [each for batch in batches for each in batch.fields.ids] == [aoi.id for aoi in expected]
            MANY[["geometry"]].to_parquet(tmp_path / "fields.parquet")
            batches = list(read_fields(f"{server.url}/fields.parquet"))
            assert batches[0].fields.ids[0] == "fields_1"
            with pytest.raises(AOIError, match="nothing.parquet: cannot be read"):
                read_fields(f"{server.url}/nothing.parquet", access=Access(retries=0))

    def test_only_some_row_groups_are_fetched(self, tmp_path: Path, open_network: None) -> None:
        west = np.arange(-170, 170, 0.05)
        rows = np.random.default_rng(1).bytes(len(west) * 100).hex()
        texts = [rows[number * 200 : number * 200 + 200] for number in range(len(west))]
        frame = geopandas.GeoDataFrame({"note": texts}, geometry=list(shapely.box(west, 0, west + 0.04, 1)), crs=4326)
        frame.to_parquet(tmp_path / "f.parquet", write_covering_bbox=True, row_group_size=500)
        access = Access()
        with faulty(tmp_path) as server:
            found = list(read_fields(f"{server.url}/f.parquet", within=[(10, 0, 11, 1)], access=access))
        assert 20 <= sum(len(batch.fields) for batch in found) <= 22
        assert access.usage.traffic.bytes < 0.3 * (tmp_path / "f.parquet").stat().st_size

    @pytest.mark.servers
    def test_s3(self, tmp_path: Path, s3: S3Store, keys: None) -> None:
        MANY.to_parquet(tmp_path / "f.parquet")
        obstore.put(s3, "areas/f.parquet", tmp_path / "f.parquet")
        batches = list(read_fields("s3://results/areas/f.parquet"))
        expected = [aoi.id for aoi in s2cube.read_aois(tmp_path / "f.parquet")]
        assert [each for batch in batches for each in batch.fields.ids] == expected


def test_columns_with_our_names() -> None:
    check_columns(["crop", "geometry"], {"aoi", "date"}, "f.parquet")
    with pytest.raises(
        AOIError, match="f.parquet: has a column 'Date', and s2cube writes a column of this name. Rename it"
    ):
        check_columns(["crop", "Date"], {"aoi", "date"}, "f.parquet")
