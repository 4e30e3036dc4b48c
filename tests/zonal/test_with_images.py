"""A run that writes images and statistics has the rows of `stats`, the images of `run`, and reads each tile once."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pystac
import pytest

import s2cube
from s2cube.config.sections import JobConfig
from s2cube.errors import AOIError
from s2cube.fetch import session
from s2cube.jobs import pipeline
from s2cube.jobs.job import Job
from s2cube.jobs.results import Summary
from s2cube.storage.lease import Lease
from s2cube.tables.writer import TableWriter
from s2cube.workers.results import SliceResult
from s2cube.zonal.tabulate import tabulate
from support.field_scenes import CRS_OF_SCENES, FIELDS, write_areas_file, write_items

SMALL = ("off_the_lattice", "sliver", "within_a_cell")
LARGE = ("larger_than_a_block",)
STATISTICS = "mean,std,count,p90"


def config(out: str, **settings: Any) -> JobConfig:
    given = {"aoi": "areas.parquet", "aoi_id": "name", "stac": "items.json", "bands": "red,swir16", "out": out}
    return s2cube.load_config(given | {"crs": CRS_OF_SCENES, "resolution": 30} | settings, {})


def table(out: str) -> pd.DataFrame:
    found: pd.DataFrame = pyarrow.dataset.dataset(f"{out}/statistics").to_table().to_pandas()
    assert found["slice"].is_unique
    return found.set_index("slice").sort_index()


def images(out: str) -> dict[str, bytes]:
    """Return the files of all slices, but the Items, which have the time when they were made."""
    return {path.name: path.read_bytes() for path in Path(out).rglob("*") if path.suffix in (".tif", ".png")}


Both = Callable[..., Summary]


@pytest.fixture
def both(items: list[pystac.Item]) -> Both:
    write_items(Path("items.json"), items)

    def both(names: Sequence[str], out: str = "both", **settings: Any) -> Summary:
        write_areas_file(Path("areas.parquet"), {name: FIELDS[name] for name in names})
        session.reset()
        given = {"statistics": STATISTICS} | settings
        return s2cube.run(config(out, **{key: value for key, value in given.items() if value}), progress=False)

    return both


@pytest.mark.parametrize(
    "settings",
    [{"dilation": 60}, {"bands": "none", "indices": "NDVI", "mask": "none", "dtype": "float32"}],
    ids=str,
)
@pytest.mark.parametrize("names", [SMALL, LARGE], ids=["small", "large"])
def test_rows_images_and_reads(both: Both, names: Sequence[str], settings: dict[str, Any]) -> None:
    summary = both(names, **settings)
    plain = both(names, "images", **settings | {"statistics": ""})
    session.reset()
    rows = tabulate(config("rows", statistics=STATISTICS, **settings))
    assert (summary.failed, rows.failed, plain.failed) == ([], [], [])
    assert summary.rows == rows.rows == len(table("both")) == len(summary.written)
    pd.testing.assert_frame_equal(table("both"), table("rows"), check_exact=True)
    assert images("both") == images("images")
    assert len(images("both")) >= 2 * len(summary.written)
    # Threads join reads as they happen to meet, so the number of requests differs by some.
    assert summary.bytes == plain.bytes
    assert summary.requests == pytest.approx(plain.requests, rel=0.25)
    # The areas need nearly all tiles of the images. A patch of several areas needs no other tile.
    assert 0.9 * plain.bytes <= rows.bytes <= 1.02 * plain.bytes


@pytest.mark.parametrize("names", [SMALL, LARGE], ids=["small", "large"])
def test_slices_that_are_rejected_have_rows(both: Both, names: Sequence[str]) -> None:
    summary = both(names, max_aoi_cloud=12)
    plain = both(names, "images", max_aoi_cloud=12, statistics="")
    tabulate(config("rows", statistics=STATISTICS))
    assert summary.rejected == plain.rejected
    assert {each["slice"] for each in summary.rejected} >= {f"{names[0]}_20200703"}
    assert images("both") == images("images")
    pd.testing.assert_frame_equal(table("both"), table("rows"), check_exact=True)
    again = both(names, max_aoi_cloud=12)
    assert (again.rows, again.written) == (0, [])


def test_images_that_are_there_get_rows(both: Both) -> None:
    names = (*SMALL[:1], *LARGE)
    both(names, statistics="")
    before = images("both")
    summary = both(names)
    assert (summary.written, summary.rows) == ([], len(summary.skipped))
    tabulate(config("rows", statistics=STATISTICS))
    pd.testing.assert_frame_equal(table("both"), table("rows"), check_exact=True)
    assert images("both") == before
    again = both(names)
    assert (again.rows, again.requests) == (0, 0)
    more = both(names, statistics="median")
    assert more.rows == summary.rows
    assert table("both")["red_mean"].equals(table("rows")["red_mean"])


def test_overwrite_that_is_killed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images are written, and not yet their rows: the next run writes these, too."""
    names, compute = SMALL[:2], pipeline._compute
    both(names)
    whole = table("both")
    for path in Path("both/statistics").iterdir():
        rows = pa.parquet.read_table(path)
        old = pa.array([-1] * rows.num_rows, pa.float32())
        pa.parquet.write_table(rows.set_column(rows.column_names.index("red_mean"), rows.field("red_mean"), old), path)

    def two(job: Job, lease: Lease) -> Iterator[SliceResult]:
        yield from islice(compute(job, lease), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_compute", two)
        patch.setattr(TableWriter, "flush", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            both(names, overwrite=True)
    assert (table("both")["red_mean"] == -1).all()
    summary = both(names, overwrite=True)
    assert (len(summary.skipped), len(summary.written), summary.rows) == (2, len(whole) - 2, len(whole))
    pd.testing.assert_frame_equal(table("both"), whole)


def test_columns_of_the_file(both: Both) -> None:
    both(["twin"], "other", statistics="")
    for columns, found in (({"Date": [1]}, "has a column 'Date'"), ({"crop": ["rye"]}, None)):
        write_areas_file(Path("areas.parquet"), {"twin": FIELDS["twin"]}, columns)
        if found:
            with pytest.raises(AOIError, match=found):
                s2cube.run(config("both", statistics="mean"), progress=False)
        else:
            s2cube.run(config("both", statistics="mean"), progress=False)
    assert geopandas.read_parquet("both/areas.parquet")[["aoi", "crop"]].values.tolist() == [["twin", "rye"]]
