"""Statistics of a notebook equal those of exactextract on the cube, for areas and scenes of all kinds."""

from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import shapely
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry

import s2cube
from s2cube.area.aoi import AOI
from s2cube.area.outline import in_crs
from s2cube.errors import SliceError
from support.field_scenes import CRS_OF_SCENES, FIELDS, NEXT_ZONE, areas, meeting, placed, rows_of_cube
from support.zonal import star

ALL = ("mean", "std", "median", "min", "max", "count", "p10", "p90")
SOURCES = {"aoi", "slice", "date", "time", "scenes", "recipe"}


def check_rows(items: list[pystac.Item], rows: pd.DataFrame, statistics: tuple[str, ...], **chosen: Any) -> None:
    """Compare every row with exactextract."""
    crs = str(chosen.pop("crs", CRS_OF_SCENES))
    crs = CRS_OF_SCENES if crs == "auto" else crs
    shapes = {name: in_crs(Geometry(shape, CRS_OF_SCENES), crs).geom for name, shape in FIELDS.items()}
    for _, group in rows.groupby([rows["time"], rows["scenes"].map(tuple)]):
        fields = {name: shapes[name] for name in group["aoi"]}
        want = rows_of_cube(items, group["scenes"].iloc[0], fields, statistics, crs, chosen)
        found = group.set_index("aoi")
        assert {*found.columns} == {*want.columns} | SOURCES - {"aoi"}
        if chosen.get("mask", "scl") == "none":
            assert found["cloud_percent"].isna().all()
            want["cloud_percent"] = np.nan
        for name in want:
            np.testing.assert_allclose(
                found[name].astype(float), want[name], rtol=1e-6, atol=1e-6 if name.endswith("_std") else 1e-9,
                err_msg=f"{name} {group['scenes'].iloc[0]}",
            )  # fmt: skip


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"resolution": 10, "bands": ["red"]},
        {"resolution": 20, "quality": "fast", "mask": "none"},
        {"resolution": 100, "quality": "fast"},
        {"crs": "auto", "dilation": 45, "indices": ["NDVI"]},
        {"crs": NEXT_ZONE, "resolution": 100, "dilation": 130},
        {"group_by": "scene", "crs": NEXT_ZONE},
        {"bands": None, "indices": ["NDVI", "BNDVI"]},
    ],
    ids=str,
)
def test_they_are_those_of_exactextract(items: list[pystac.Item], chosen: dict[str, Any]) -> None:
    chosen = {"bands": ["red", "swir16"], "crs": CRS_OF_SCENES} | chosen
    rows = s2cube.statistics(items, areas(), statistics=ALL, **chosen)
    met = {(name, item.id) for name, shape in FIELDS.items() for item in items if meeting(item, shape)}
    assert {(row.aoi, scene) for row in rows.itertuples() for scene in row.scenes} == met
    check_rows(items, rows, ALL, **chosen)


def test_order_and_company_of_areas_change_nothing(items: list[pystac.Item]) -> None:
    chosen: dict[str, Any] = {"bands": ["red"], "crs": CRS_OF_SCENES, "statistics": ALL}
    names = [name for name in FIELDS if name != "larger_than_a_block"]
    together = s2cube.statistics(items, areas(names), **chosen)
    backwards = s2cube.statistics(items[::-1], areas(names[::-1]), **chosen)
    pd.testing.assert_frame_equal(together, backwards, check_exact=True)
    twin, same = (together[together["aoi"] == name].iloc[:, 2:-2] for name in ("twin", "on_the_lattice"))
    assert twin.reset_index(drop=True).equals(same.reset_index(drop=True))
    for name in ("sliver", "over_blocks"):
        alone = s2cube.statistics(items, areas([name]), **chosen)
        expected = together[together["aoi"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, expected, check_exact=True)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.floats(0, 4500), y=st.floats(-4500, 0), radii=st.lists(st.floats(5, 300), min_size=3, max_size=7),
    cut=st.floats(-100, 100), turn=st.floats(0, 6),
)  # fmt: skip
def test_any_field(items: list[pystac.Item], x: float, y: float, radii: list[float], cut: float, turn: float) -> None:
    """Two halves weigh as the whole, the mean is between them and within minimum and maximum."""
    whole = placed(star(x, y, radii, turn))
    left = whole & shapely.box(whole.bounds[0] - 1, whole.bounds[1] - 1, whole.centroid.x + cut, whole.bounds[3] + 1)
    parts = {"whole": whole, "left": left, "right": whole - left}
    assume(whole.is_valid and all(part.area > 1 for part in parts.values()))
    aois = [AOI(name, Geometry(shape, CRS_OF_SCENES)) for name, shape in parts.items()]
    rows = s2cube.statistics(
        items[:1], aois, bands=["red"], crs=CRS_OF_SCENES, statistics=["mean", "count", "min", "max"]
    )
    found = rows.set_index("aoi").select_dtypes("number").astype(float)
    if "whole" not in found.index or found.loc["whole", "red_count"] == 0:
        return
    halves = found.loc[[name for name in ("left", "right") if name in found.index]].fillna(0)
    total = (halves["red_count"] * halves["red_mean"]).sum() / halves["red_count"].sum()
    assert halves["red_count"].sum() == pytest.approx(found.loc["whole", "red_count"], rel=1e-4, abs=1e-4)
    assert total == pytest.approx(found.loc["whole", "red_mean"], rel=1e-4)
    clear = (halves["clear_percent"] * halves["cells"]).sum() / found.loc["whole", "cells"]
    assert clear == pytest.approx(found.loc["whole", "clear_percent"], rel=1e-4, abs=1e-2)
    for _, row in found[found["red_count"] > 0].iterrows():
        assert row["red_min"] - 1e-7 <= row["red_mean"] <= row["red_max"] + 1e-7


def test_a_file_that_cannot_be_read_is_an_error(items: list[pystac.Item]) -> None:
    (item,) = (each.clone() for each in items if each.id == "one")
    item.assets["red"].href = "missing.tif"
    with pytest.raises(SliceError, match="twin_20200701"):
        s2cube.statistics([item], areas(["twin"]), bands=["red"])


def test_no_scene_meets_the_areas(items: list[pystac.Item]) -> None:
    rows = s2cube.statistics(items, shapely.box(0, 0, 0.01, 0.01), bands="red", statistics="mean")
    assert (len(rows), rows.columns[7]) == (0, "red_mean")
