"""The weights of fields are kept for all days, within a limit of memory."""

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pystac
import pytest

import s2cube
from s2cube.fetch import session
from s2cube.products.coverage import Coverage
from s2cube.workers import _fields, memory
from s2cube.zonal.tabulate import tabulate
from support.field_scenes import CRS_OF_SCENES, FIELDS, write_areas_file, write_items
from support.tables import rows_of


@pytest.fixture
def computed(items: list[pystac.Item], monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """How often the weights of each patch are computed; and files of areas and scenes."""
    write_areas_file(Path("areas.parquet"), FIELDS)
    write_items(Path("items.json"), items)
    counts, compute = Counter[Any](), _fields.coverage
    monkeypatch.setattr(
        _fields, "coverage", lambda shapes, geobox: counts.update([shapes[0]]) or compute(shapes, geobox)
    )
    return counts


def table(out: str) -> pd.DataFrame:
    given = {"aoi": "areas.parquet", "aoi_id": "name", "stac": "items.json", "bands": "red", "threads": "1"}
    assert tabulate(s2cube.load_config(given | {"crs": CRS_OF_SCENES, "out": out}, {})).failed == []
    return rows_of(out)


def kept_bytes() -> int:
    """Return the size of all weights that are kept."""
    arrays = [each for each in gc.get_objects() if isinstance(each, Coverage)]
    return sum(each.nbytes for each in arrays)


def test_computed_once_for_all_days(computed: Counter[Any]) -> None:
    assert table("out")["date"].nunique() > 1
    assert len(computed) > 1
    assert set(computed.values()) == {1}
    assert 0 < kept_bytes() < 1_000_000


@pytest.mark.parametrize("limit_bytes", [0, 2000])
def test_within_a_limit(computed: Counter[Any], monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    expected = table("out")
    computed.clear()
    monkeypatch.setattr(memory, "_MOST_WEIGHTS_BYTES", limit_bytes)
    session.reset()
    gc.collect()
    found = table("limited")
    assert max(computed.values()) > 1
    assert kept_bytes() <= limit_bytes
    pd.testing.assert_frame_equal(found, expected)
