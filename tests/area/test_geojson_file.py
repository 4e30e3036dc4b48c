"""GeoJSON files that are read without GDAL: GDAL is the oracle of their areas and ids, and reads all other files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

import s2cube
from s2cube.area import _geojson_file, vector_file
from s2cube.area._geojson_file import plain_features
from s2cube.area.features import Features, Options

SQUARE = shapely.box(10, 50, 10.1, 50.1)
CRS84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


def feature(**members: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"id": "a"}, "geometry": shapely.geometry.mapping(SQUARE)} | members


def collection(*features: Any, **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)} | members


def written(folder: Path, content: object, name: str = "area.geojson") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def by_gdal(path: Path, options: Options) -> Features:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "plain_features", lambda path, options: None)
        return vector_file.read_file(path, options)


def check_like_gdal(path: Path, options: Options | None = None) -> bool:
    """Compare the features with those of GDAL, if they are read without it; return whether they are."""
    options = options or Options()
    found = plain_features(path, options)
    if found is None:
        return False
    expected = by_gdal(path, options)
    assert list(found.names) == list(expected.names)
    assert found.crs == expected.crs
    for mine, theirs in zip(found.shapes, expected.shapes, strict=True):
        assert mine is not None
        assert shapely.get_type_id(mine) == shapely.get_type_id(theirs)
        assert np.array_equal(shapely.get_coordinates(mine), shapely.get_coordinates(theirs))
    return True


NUMBERS = st.floats(-80, 80, allow_nan=False) | st.decimals(-80, 80, places=17).map(str).map(float)
IDS = (
    st.none() | st.integers(-3, 2**40) | st.booleans() | st.floats(0, 9)
    | st.sampled_from(["", "a", "Müller 3", "2024-01-01", "12:30", "2024/1/1", "1", "007", "1e3", "nan", "[1]", "{}"])
)  # fmt: skip


@given(
    st.lists(st.tuples(IDS, IDS, IDS, IDS), min_size=1, max_size=3),
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.sampled_from([None, "id", "name", "field", "none"]),
    st.sets(st.sampled_from(["id", "name", "field", "outer"])),
)
def test_what_is_read_without_gdal_is_what_gdal_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], numbers: list[float],
    id_property: str | None, missing: set[str],
) -> None:  # fmt: skip
    a, b, c, d = numbers
    ring = [[a, b], [c, b], [c, d], [a, b]]
    features = []
    for own, name, field, outer in rows:
        values = {"id": own, "name": name, "field": field}
        members = {} if "outer" in missing or outer is None else {"id": outer}
        properties = {key: value for key, value in values.items() if key not in missing}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry, **members})
    path = written(tmp_path_factory.mktemp("geojson"), collection(*features))
    check_like_gdal(path, Options(id_property))


HOLE = shapely.geometry.mapping(SQUARE - shapely.box(10.02, 50.02, 10.05, 50.05))
PARTS = shapely.geometry.mapping(shapely.MultiPolygon([SQUARE, shapely.box(11, 51, 11.1, 51.1)]))


@pytest.mark.parametrize(
    "content",
    [
        collection(feature()),
        collection(feature(), name="fields", crs=CRS84, bbox=[10, 50, 10.1, 50.1]),
        collection(feature(properties={}), feature(properties={})),
        collection(feature(properties={})),
        collection(feature(id="x", properties={"crop": "soy", "sown": "2024-04-01"}), feature(id="y")),
        collection(feature(id=10, properties={}), feature(id=7, properties={})),
        collection(feature(properties={"id": 3}), feature(properties={"id": 4})),
        collection(feature(geometry=HOLE), feature(geometry=PARTS, properties={"id": "b"})),
    ],
)
def test_usual_files_are_read_without_gdal(tmp_path: Path, content: dict[str, Any]) -> None:
    assert check_like_gdal(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "[" * 100_000, json.dumps(collection(feature())) + "x",
        json.dumps(collection(feature(properties={"id": "\xff"})), ensure_ascii=False),
        feature(), shapely.geometry.mapping(SQUARE), collection(), collection(1), collection(feature(), features={}),
        collection(feature(), xy_coordinate_resolution=1e-7),
        collection(feature(), crs={"type": "name", "properties": {"name": "EPSG:32632"}}),
        collection(feature(geometry=None)), collection(feature(properties=None)), collection(feature(when="x")),
        collection(feature(geometry={"type": "Point", "coordinates": [1, 2]})),
        collection(feature(geometry={"type": "Polygon", "coordinates": []})),
        collection(feature(geometry={"type": "Polygon", "coordinates": [[]]})),
        collection(feature(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]})),
        collection(feature(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]})),
        collection(feature(geometry={"type": "Polygon", "coordinates": [[[0, 0, 5], [1, 0], [1, 1], [0, 0, 5]]]})),
        collection(feature(geometry={"type": "Polygon", "coordinates": [[[0, 0], ["1", 0], [1, 1], [0, 0]]]})),
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": '
        '{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 0], [1, 1], [0, 0]]]}}]}',
        collection(feature(properties={"id": "2024-01-01"})), collection(feature(properties={"id": 1.5})),
        collection(feature(properties={"id": 1}), feature(properties={"id": "b"})),
        collection(feature(properties={"id": 1}), feature(properties={"id": None})),
        collection(feature(properties={"id": True})), collection(feature(properties={"id": 2**31})),
    ],
    ids=lambda content: str(content)[:60],
)  # fmt: skip
def test_gdal_reads_everything_else(tmp_path: Path, content: object) -> None:
    name = "area.geojson"
    path = written(tmp_path, content, name)
    if isinstance(content, str) and "\xff" in content:
        path.write_bytes(content.encode("latin-1"))
    assert plain_features(path, Options()) is None


def test_options_of_gdal_are_left_to_it(tmp_path: Path) -> None:
    from odc.geo.crs import CRS

    path = written(tmp_path, collection(feature()))
    assert plain_features(path, Options(layer="area")) is None
    assert plain_features(path, Options(crs=CRS("EPSG:4326"))) is None
    assert plain_features(path, Options("nothing")) is None
    assert plain_features(written(tmp_path, collection(feature()), "area.gpkg"), Options()) is None
    assert plain_features(tmp_path / "nothing.geojson", Options()) is None


def test_gdal_reads_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, collection(feature()))
    size = path.stat().st_size
    monkeypatch.setattr(_geojson_file, "_MOST_BYTES", size)
    assert plain_features(path, Options()) is not None
    monkeypatch.setattr(_geojson_file, "_MOST_BYTES", size - 1)
    assert plain_features(path, Options()) is None


def test_areas_are_equal(tmp_path: Path) -> None:
    path = written(tmp_path, collection(feature(), name="fields", crs=CRS84))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "plain_features", lambda path, options: None)
        expected = s2cube.read_aoi(path)
    assert s2cube.read_aoi(path) == expected
