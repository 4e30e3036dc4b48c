"""Fields in a temporary file: what goes in comes out by key."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from s2cube.area.aoi import AOI
from s2cube.errors import WriteError
from s2cube.fields.fields import Fields
from s2cube.fields.spool import FieldSpool

SHAPES = [
    shapely.box(10, 50, 10.1, 50.1), shapely.box(179.9, -17, 180.1, -16),
    shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]),
]  # fmt: skip
FIELDS = Fields.of_aois([AOI(f"Feld-{number}-ä", SHAPES[number % 3]) for number in range(30)])
PIECES = st.lists(st.lists(st.integers(0, 29), max_size=8), max_size=5)


@pytest.mark.parametrize("keys", [np.arange(30) % 4 - 1, np.array([f"k{number % 7}" for number in range(30)])])
@settings(max_examples=20, deadline=None)
@given(PIECES)
def test_fields_by_key(keys: Any, pieces: list[list[int]]) -> None:
    with FieldSpool() as spool:
        for piece in pieces:
            spool.add(FIELDS.take(np.array(piece, int)), keys[piece])
        added = [position for piece in pieces for position in piece]
        assert spool.keys().tolist() == sorted({keys[position].item() for position in added})
        for key in spool.keys().tolist():
            found, right = spool.fields(key), FIELDS.take(np.array([each for each in added if keys[each] == key]))
            assert found.crs == right.crs
            assert found.ids.tolist() == right.ids.tolist()
            assert shapely.equals_exact(found.shapes, right.shapes, 0).all()
            assert np.array_equal(found.bounds_lonlat, right.bounds_lonlat)
            assert np.array_equal(found.centres_lonlat, right.centres_lonlat)
        with pytest.raises(KeyError):
            spool.fields("nothing" if keys.dtype.kind == "U" else 99)


def test_its_file_is_deleted(tmp_path: Path) -> None:
    with FieldSpool(tmp_path) as spool:
        spool.add(FIELDS, np.zeros(30, int))
        assert len(spool.fields(0)) == 30
        assert list(tmp_path.rglob("*.arrow"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write_batch(self, batch: pa.RecordBatch) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", lambda *_: Full())
    with FieldSpool(tmp_path) as spool, pytest.raises(WriteError, match="No space left on device.*TMPDIR"):
        spool.add(FIELDS, np.zeros(30, int))
    assert list(tmp_path.iterdir()) == []


def test_one_crs_by_key() -> None:
    other = Fields(FIELDS.ids, FIELDS.shapes, "EPSG:4258", FIELDS.bounds_lonlat, FIELDS.centres_lonlat)
    with FieldSpool() as spool:
        spool.add(FIELDS, np.zeros(30, int))
        spool.add(other, np.arange(30))
        assert spool.fields(5).crs == "EPSG:4258"
        with pytest.raises(ValueError, match="the fields of 0 have several CRSs: EPSG:4258, EPSG:4326"):
            spool.fields(0)
        with pytest.raises(ValueError, match="is already read"):
            spool.add(other, np.arange(30))
