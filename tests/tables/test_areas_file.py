"""The file of areas is GeoParquet 1.1 that other libraries read; areas of earlier runs remain."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from s2cube.area.aoi import AOI
from s2cube.errors import OutputError
from s2cube.fields.fields import Fields
from s2cube.storage.output import Output
from s2cube.tables.areas_file import write_areas
from s2cube.tables.table import Table


def fields(**shapes: shapely.Polygon) -> Fields:
    return Fields.of_aois([AOI(name, shape) for name, shape in shapes.items()])


def columns(**values: list[object]) -> pa.Table:
    return pa.table(values)


def test_geopandas_reads_it(tmp_path: Path) -> None:
    box, hole = (
        shapely.box(12, 47.5, 12.01, 47.51),
        shapely.box(13, 47, 13.1, 47.1) - shapely.box(13.01, 47.01, 13.02, 47.02),
    )
    write_areas(Output.at(tmp_path), [(fields(a=box, b=hole), columns(crop=["maize", None], year=[2023, 2024]))])
    found = geopandas.read_parquet(tmp_path / "areas.parquet").set_index("aoi")
    assert found.crs == "OGC:CRS84"
    assert found["crop"].tolist() == ["maize", None]
    assert found.geometry["a"].equals(box)
    assert found.geometry["b"].equals(hole)
    near = geopandas.read_parquet(tmp_path / "areas.parquet", bbox=(11, 47, 12.5, 48))
    assert near["aoi"].tolist() == ["a"]
    geo = json.loads(pq.read_schema(tmp_path / "areas.parquet").metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["bbox"] == [12, 47, 13.1, 47.51]


def test_an_area_over_the_antimeridian_is_cut(tmp_path: Path) -> None:
    write_areas(Output.at(tmp_path), [(fields(a=shapely.box(179.9, -17, 180.1, -16.9)), columns())])
    shape = geopandas.read_parquet(tmp_path / "areas.parquet").geometry[0]
    assert shape.bounds == (-180, -17, 180, -16.9)
    assert shape.area == pytest.approx(0.02)


def test_areas_of_earlier_runs_remain(tmp_path: Path) -> None:
    output = Output.at(tmp_path)
    old = fields(a=shapely.box(12.1, 47.6, 12.11, 47.61), b=shapely.box(12.1, 47.6, 12.11, 47.61))
    write_areas(output, [(old, columns(crop=["maize", "rye"], code=[1, 2]))])
    new = fields(b=shapely.box(13.6, 47.6, 13.61, 47.61), c=shapely.box(12.1, 47.6, 12.11, 47.61))
    write_areas(output, [(new, columns(code=["x", "y"]))])
    found = geopandas.read_parquet(tmp_path / "areas.parquet").set_index("aoi").sort_index()
    assert found["code"].tolist() == ["1", "x", "y"]
    assert found["crop"].tolist() == ["maize", None, None]
    assert found.geometry["b"].bounds[0] == 13.6


def test_rows_of_fields_follow_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over the antimeridian, where the boxes of the file are those of both parts."""
    moved: list[dict[str, tuple[str, str]]] = []
    monkeypatch.setattr(Table, "move", lambda table, squares: moved.append(squares))
    west, across, east = (shapely.box(x, -17, x + 0.2, -16.9) for x in (179.2, 179.85, 180.7))
    for shapes in ({"a": west, "b": across, "c": west}, {"a": across, "b": east, "c": west}, {"a": west}):
        write_areas(Output.at(tmp_path), [(fields(**shapes), columns())])
    assert moved == [
        {"a": ("s170e1790", "s170e1795"), "b": ("s170e1795", "s170w1795")}, {"a": ("s170e1795", "s170e1790")}
    ]  # fmt: skip


def test_the_column_of_the_ids_may_be_called_aoi(tmp_path: Path) -> None:
    write_areas(Output.at(tmp_path), [(fields(a=shapely.box(12, 47, 12.1, 47.1)), columns(aoi=[7], AOI=[8]))])
    assert geopandas.read_parquet(tmp_path / "areas.parquet").columns.tolist() == ["aoi", "geometry"]


def test_a_file_that_is_not_ours(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": np.arange(3)}), tmp_path / "areas.parquet")
    with pytest.raises(OutputError, match="is not a file of areas of s2cube"):
        write_areas(Output.at(tmp_path), [(fields(a=shapely.box(12, 47, 12.1, 47.1)), columns())])
