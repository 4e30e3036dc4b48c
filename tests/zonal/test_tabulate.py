"""The table of statistics: its schema, its sources, and which rows a later run computes again."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pystac
import pytest
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

import s2cube
from s2cube.errors import AOIError
from s2cube.jobs.results import TableSummary
from s2cube.zonal.tabulate import tabulate
from support.field_scenes import CRS_OF_SCENES, FIELDS, areas, later, write_areas_file, write_items

NAMES = ("off_the_lattice", "twin", "hole", "past_the_corner", "larger_than_a_block")

SMALL = {name: FIELDS[name] for name in NAMES[:4] if name != "hole"}

STATISTICS = "mean,std,median,min,max,count,p90"

Tabulate = Callable[..., TableSummary]


def table(out: Path = Path("out")) -> pd.DataFrame:
    """Read the table with another library."""
    found: pd.DataFrame = pyarrow.dataset.dataset(out / "statistics").to_table().to_pandas()
    assert found["slice"].is_unique
    return found.set_index("slice").sort_index()


@pytest.fixture
def run(items: list[pystac.Item]) -> Tabulate:
    """Write the fields and the scenes, and run the command in this process."""

    def run(
        fields: Mapping[str, BaseGeometry] = SMALL, scenes: Sequence[pystac.Item] = (),
        columns: Mapping[str, Sequence[object]] | None = None, **settings: Any,
    ) -> TableSummary:  # fmt: skip
        write_areas_file(Path("areas.parquet"), fields, columns)
        write_items(Path("items.json"), scenes or items)
        given = {"aoi": "areas.parquet", "aoi_id": "name", "stac": "items.json", "bands": "red", "out": "out"}
        return tabulate(s2cube.load_config(given | {"crs": CRS_OF_SCENES, "statistics": "mean,p10"} | settings, {}))

    return run


def test_it_is_that_of_a_notebook_whatever_the_data_type(run: Tabulate, items: list[pystac.Item]) -> None:
    found = {}
    for dtype in ("int16", "float32"):
        summary = run({name: FIELDS[name] for name in NAMES}, out=dtype, dtype=dtype)
        assert (summary.failed, summary.skipped, summary.rows) == ([], [], len(table(Path(dtype))))
        found[dtype] = table(Path(dtype))
    pd.testing.assert_frame_equal(found["int16"], found["float32"], check_exact=True)
    rows = s2cube.statistics(items, areas(NAMES), bands=["red"], crs=CRS_OF_SCENES, statistics=["mean", "p10"])
    rows = rows.set_index("slice").sort_index()
    assert (rows["date"].dt.date == found["int16"]["date"]).all()
    # The key of the recipe has the settings of the search.
    recipes = [each["recipe"].str.rpartition("-")[0] for each in (rows, found["int16"])]
    pd.testing.assert_series_equal(*recipes)
    for each in (rows, found["int16"]):
        each["scenes"] = each["scenes"].map(list)
    pd.testing.assert_frame_equal(
        rows.drop(columns=["recipe", "date"]), found["int16"].drop(columns=["recipe", "date"]), check_exact=True,
        check_dtype=False,
    )  # fmt: skip


def test_schema_and_order(run: Tabulate) -> None:
    summary = run(indices="NDVI", statistics=STATISTICS)
    names = [f"{band}_{each}" for band in ("red", "NDVI") for each in STATISTICS.split(",")]
    expected = {
        "aoi": pa.string(), "slice": pa.string(), "date": pa.date32(), "time": pa.timestamp("us", "UTC"),
        "cells": pa.float64(), "clear_percent": pa.float32(), "cloud_percent": pa.float32(),
        **dict.fromkeys(names, pa.float32()), "scenes": pa.list_(pa.string()), "recipe": pa.string(),
    }  # fmt: skip
    assert [Path(path).name[-15:] for path in summary.written] == ["_202007.parquet"]
    for path in summary.written:
        rows = pa.parquet.read_table(path)
        assert dict(zip(rows.schema.names, rows.schema.types, strict=True)) == expected
        assert rows.schema.names == [*expected]
        frame = rows.to_pandas()
        assert frame[["aoi", "date"]].equals(frame.sort_values(["aoi", "date"], ignore_index=True)[["aoi", "date"]])


def test_a_masked_day_and_a_day_without_cloud_masks(run: Tabulate) -> None:
    run(statistics="mean,count,p10")
    row = table().loc["twin_20200703"]
    assert (row["red_count"], row["clear_percent"], row["cloud_percent"]) == (0, 0, 100)
    assert pd.isna(row["red_mean"])
    assert pd.isna(row["red_p10"])
    assert row["scenes"].tolist() == ["cloudy"]
    assert table().loc["twin_20200702", "scenes"].tolist() == ["this_zone", "next_zone"]
    assert "past_the_corner_20200705" not in table().index
    run(mask="none")
    assert table()["cloud_percent"].isna().all()
    assert table().loc["twin_20200703", "clear_percent"] > 0


def test_days_are_solar_days(run: Tabulate, items: list[pystac.Item]) -> None:
    """The scenes are at 98 degrees west: 06:30 UTC is 23:58 of the day before there."""
    (one,) = (item for item in items if item.id == "one")
    assert one.datetime
    run(scenes=[later(one, hours=13, minutes=30)], fields={"twin": FIELDS["twin"]})
    assert table().index.tolist() == ["twin_20200701"]
    assert table()["date"].tolist() == [date(2020, 7, 1)]
    assert table()["time"].tolist() == [pd.Timestamp("2020-07-02T06:30:00Z")]


class TestLaterRun:
    """What a later run computes, and what it keeps."""

    def test_nothing_is_new(self, run: Tabulate) -> None:
        rows = run().rows
        before = {path: path.stat().st_mtime_ns for path in Path("out/statistics").iterdir()}
        summary = run()
        assert (summary.rows, summary.requests, summary.bytes, summary.written) == (0, 0, 0, [])
        assert summary.skipped == table().index.tolist()
        assert len(summary.skipped) == rows
        assert {path: path.stat().st_mtime_ns for path in Path("out/statistics").iterdir()} == before

    @pytest.mark.parametrize("settings", [{"statistics": "std"}, {"bands": "swir16"}, {"indices": "NDVI"}], ids=str)
    def test_columns_are_added(self, run: Tabulate, settings: dict[str, str]) -> None:
        run()
        before = table()
        run(**settings)
        after = table()
        assert {*before.columns} < {*after.columns}
        pd.testing.assert_frame_equal(after[["red_mean", "red_p10"]], before[["red_mean", "red_p10"]])
        added = [*{*after.columns} - {*before.columns}]
        assert (after[added].notna().any(axis=1) == (after["clear_percent"] > 0)).all()
        again = run(**settings)
        assert (again.rows, again.requests) == (0, 0)

    @pytest.mark.parametrize(
        "settings",
        [
            {"bands": "swir16,red"}, {"bands": "red"}, {"bands": "nir", "statistics": "p10"},
            {"bands": "none", "indices": "NDVI"}, {"statistics": "p10,mean"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_the_table_has_is_not_computed(self, run: Tabulate, settings: dict[str, Any]) -> None:
        """Whatever the order of bands and statistics: the rows keep their columns."""
        run(bands="red,nir,swir16", indices="NDVI")
        before = table()
        summary = run(**{"bands": "red,nir,swir16"} | settings)
        assert (summary.rows, summary.requests, len(summary.skipped)) == (0, 0, len(before))
        pd.testing.assert_frame_equal(table(), before)

    def test_a_file_of_one_band_is_replaced(self, run: Tabulate, items: list[pystac.Item]) -> None:
        """Only commands that read it compute rows again; and then values of the other bands remain."""
        run(bands="red,swir16")
        scenes = [item.clone() for item in items]
        scenes[0].assets["swir16"].extra_fields["file:checksum"] = "1220" + "0" * 64
        assert run(bands="red", scenes=scenes).rows == 0
        is_touched = table()["scenes"].map(lambda each: "one" in each)
        assert run(bands="swir16", scenes=scenes).rows == is_touched.sum() > 0
        assert table()["red_mean"].notna().tolist() == (table()["clear_percent"] > 0).tolist()
        assert run(bands="red,swir16", scenes=scenes).rows == 0

    def test_other_settings_replace(self, run: Tabulate) -> None:
        run(bands="red,swir16")
        run(dilation=60)
        assert table()["swir16_mean"].isna().all()
        run(bands="red,swir16", out="other", dilation=60)
        pd.testing.assert_series_equal(table()["red_mean"], table(Path("other"))["red_mean"])

    def test_a_scene_that_is_processed_again(self, run: Tabulate, items: list[pystac.Item]) -> None:
        run()
        before = table()
        scenes = [item.clone() for item in items]
        scenes[0].properties["s2:processing_baseline"] = "03.00"
        summary = run(scenes=scenes)
        is_touched = before["scenes"].map(lambda each: "one" in each)
        assert summary.rows == is_touched.sum() > 0
        assert ((table()["recipe"] != before["recipe"]) == is_touched).all()
        assert summary.skipped == before.index[~is_touched].tolist()

    def test_a_field_that_is_new_or_edited(self, run: Tabulate) -> None:
        run(SMALL)
        before = table()
        summary = run(SMALL | {"hole": FIELDS["hole"]})
        assert summary.rows == (table()["aoi"] == "hole").sum() == 5
        summary = run(SMALL | {"twin": FIELDS["twin"].buffer(-40)})
        after = table()
        assert summary.rows == 5
        assert (after.loc[after["aoi"] == "twin", "cells"] < before.loc[before["aoi"] == "twin", "cells"]).all()
        others = before.index[before["aoi"] != "twin"]
        pd.testing.assert_frame_equal(after.loc[others], before.loc[others])

    def test_a_field_that_moves_to_another_square(self, run: Tabulate, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its rows of days that are not asked for move, too, and are computed again later."""
        monkeypatch.setattr("s2cube.tables.table._SQUARE_DEG", 0.1)
        run({"a": FIELDS["twin"], "b": FIELDS["twin"]}, datetime="2020-07-01/2020-07-03")
        old = table()
        (file,) = Path("out/statistics").iterdir()
        moved = {"a": FIELDS["past_the_corner"], "b": FIELDS["twin"]}
        assert run(moved, datetime="2020-07-01").rows == 1
        new = table()
        assert (new["cells"] != old["cells"]).to_dict() == {name: name == "a_20200701" for name in old.index}
        assert {*pyarrow.parquet.read_table(file)["aoi"].to_pylist()} == {"b"}
        assert run(moved, datetime="2020-07-01/2020-07-03").rows == 2
        assert table()["cells"].groupby(table()["aoi"]).nunique().to_dict() == {"a": 1, "b": 1}

    def test_a_scene_that_the_search_no_longer_finds(
        self, run: Tabulate, items: list[pystac.Item], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The catalogue has it, but far away. Rows of other fields beside them are computed."""
        run(SMALL)
        before = table()
        scenes = [item.clone() for item in items]
        for item in scenes:
            if item.id == "next_zone":
                item.geometry, item.bbox = mapping(box(0, 0, 1, 1)), [0, 0, 1, 1]
        summary = run(SMALL | {"new": FIELDS["twin"]}, scenes=scenes)
        assert summary.rows == 5
        assert len(summary.skipped) == len(before)
        assert "new rows would lack scenes, such as next_zone" in caplog.text
        pd.testing.assert_frame_equal(table().loc[before.index], before)
        assert table().loc["new_20200702", "scenes"].tolist() == ["this_zone"]
        run(SMALL, scenes=scenes, overwrite=True)
        assert table().loc["twin_20200702", "scenes"].tolist() == ["this_zone"]

    def test_a_scene_that_the_catalogue_has_withdrawn(self, run: Tabulate, items: list[pystac.Item]) -> None:
        run(SMALL)
        before = table()
        scenes = [item for item in items if item.id != "next_zone"]
        summary = run(SMALL, scenes=scenes)
        is_touched = before["scenes"].map(lambda each: "next_zone" in each)
        assert summary.rows == is_touched.sum() > 0
        run(SMALL, scenes=scenes, out="anew")
        pd.testing.assert_frame_equal(table(), table(Path("anew")))


def test_columns_of_the_file(run: Tabulate) -> None:
    fields = {"twin": FIELDS["twin"]}
    with pytest.raises(AOIError, match="has a column 'Red_Mean'"):
        run(fields, columns={"Red_Mean": [1]})
    run(fields, columns={"crop": ["rye"]})
    found = geopandas.read_parquet("out/areas.parquet")
    assert found[["aoi", "crop"]].values.tolist() == [["twin", "rye"]]
