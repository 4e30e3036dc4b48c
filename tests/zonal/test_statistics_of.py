"""Statistics of a notebook equal those of exactextract on the cube, for areas and scenes of all kinds."""

from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
from odc.geo.geom import Geometry

import s2cube
from s2cube.area.outline import in_crs
from support.field_scenes import CRS_OF_SCENES, FIELDS, NEXT_ZONE, areas, meeting, rows_of_cube

ALL = ("mean", "std", "median", "min", "max", "count", "p10", "p90")
SOURCES = {"aoi", "slice", "date", "time", "scenes", "recipe"}


def check_rows(items: list[pystac.Item], rows: pd.DataFrame, statistics: tuple[str, ...], **settings: Any) -> None:
    """Compare every row with exactextract."""
    crs = str(settings.pop("crs", CRS_OF_SCENES))
    crs = CRS_OF_SCENES if crs == "auto" else crs
    shapes = {name: in_crs(Geometry(shape, CRS_OF_SCENES), crs).geom for name, shape in FIELDS.items()}
    for _, group in rows.groupby([rows["time"], rows["scenes"].map(tuple)]):
        fields = {name: shapes[name] for name in group["aoi"]}
        want = rows_of_cube(items, group["scenes"].iloc[0], fields, statistics, crs, settings)
        found = group.set_index("aoi")
        assert {*found.columns} == {*want.columns} | SOURCES - {"aoi"}
        if settings.get("mask", "scl") == "none":
            assert found["cloud_percent"].isna().all()
            want["cloud_percent"] = np.nan
        for name in want:
            np.testing.assert_allclose(
                found[name].astype(float), want[name], rtol=1e-6, atol=1e-6 if name.endswith("_std") else 1e-9,
                err_msg=f"{name} {group['scenes'].iloc[0]}",
            )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resolution": 10},
        {"resolution": 20, "quality": "fast"},
        {"resolution": 100},
        {"resolution": 100, "quality": "fast"},
        {"crs": "auto", "dilation": 45},
        {"crs": NEXT_ZONE},
        {"crs": NEXT_ZONE, "resolution": 100, "dilation": 130},
        {"mask": "none"},
        {"group_by": "scene"},
        {"indices": ["NDVI"]},
        {"bands": None, "indices": ["NDVI", "BNDVI"]},
    ],
    ids=str,
)
def test_they_are_those_of_exactextract(items: list[pystac.Item], settings: dict[str, Any]) -> None:
    settings = {"bands": ["red", "swir16"], "crs": CRS_OF_SCENES} | settings
    rows = s2cube.statistics(items, areas(), statistics=ALL, **settings)
    met = {(name, item.id) for name, shape in FIELDS.items() for item in items if meeting(item, shape)}
    assert {(row.aoi, scene) for row in rows.itertuples() for scene in row.scenes} == met
    check_rows(items, rows, ALL, **settings)
