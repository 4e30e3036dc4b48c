"""Composites and daily images lie in one output: whoever reads one kind does not trip over the other."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import s2cube
from s2cube.demo.archive import PASSES, Archive
from s2cube.inventory._items_table import read_items_table
from s2cube.inventory.catalog import write_catalog
from s2cube.inventory.verification import verify
from s2cube.jobs import pipeline
from s2cube.storage.output import Output
from support.composites import add, facts_of
from support.items import validate
from support.runs import in_this_process

DAYS = [f"farm_{each.time:%Y%m%d}" for each in PASSES]
COMPOSITE = "farm_202406_medoid"


def config(archive: Archive, out: Path, **more: Any) -> Any:
    given = {"aoi": str(archive.aoi), "stac": str(archive.items), "out": str(out), "bands": "red,nir"}
    return s2cube.load_config(given | {"resolution": 120} | more, {})


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_compute", in_this_process)


@pytest.fixture(scope="module")
def days(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run."""
    out = tmp_path_factory.mktemp("days") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_compute", in_this_process)
        s2cube.run(config(archive, out))
    return out


@pytest.fixture
def out(days: Path, tmp_path: Path) -> Path:
    """The same, and a composite."""
    shutil.copytree(days, tmp_path / "out")
    add(tmp_path / "out", facts_of())
    write_catalog(Output.at(tmp_path / "out"), {"farm"})
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_the_catalogue_lists_both(out: Path, days: Path) -> None:
    collection = json.loads((out / "farm" / "collection.json").read_text())
    validate(collection, "Collection")
    assert "one image a time slice and one composite a period" in collection["description"]
    ids = [link["href"].split("/")[1] for link in collection["links"] if link["rel"] == "item"]
    assert ids == sorted([*DAYS, COMPOSITE])
    assert set(collection["item_assets"]) >= {"data", "qa", "count", "date", "thumbnail"}
    documents = [json.loads(path.read_text()) for path in sorted(out.glob("*/*/*.json"))]
    assert read_items_table(Output.at(out)) == documents
    begin, end = collection["extent"]["temporal"]["interval"][0]
    assert (begin[:10], end) == (f"{min(each.time for each in PASSES):%Y-%m-%d}", "2024-06-30T23:59:59Z")


def test_the_timeline_has_the_days_only(out: Path, days: Path) -> None:
    assert (out / "farm" / "timeline.png").read_bytes() == (days / "farm" / "timeline.png").read_bytes()
    sheet: Any = Image.open(out / "farm" / "timeline.png")
    assert len(json.loads(sheet.text["s2cube"])["pictures"]) == len(PASSES)


def test_verify_counts_both(out: Path, days: Path) -> None:
    found = verify(Output.at(out))
    assert found.is_whole
    assert found.checked == verify(Output.at(days)).checked + 5


@pytest.mark.parametrize("more", [{}, {"overwrite": True}, {"bands": "red"}])
def test_a_run_leaves_it_as_it_was(out: Path, archive: Archive, more: dict[str, Any]) -> None:
    before = contents(out / "farm" / COMPOSITE)
    done = s2cube.run(config(archive, out, **more))
    assert sorted([*(path.parent.name for path in map(Path, done.written)), *done.skipped]) == DAYS
    assert len(done.skipped) == (0 if more else len(DAYS))
    assert not done.failed
    assert contents(out / "farm" / COMPOSITE) == before
    assert verify(Output.at(out)).is_whole


def test_the_first_run_beside_a_composite(archive: Archive, tmp_path: Path) -> None:
    add(tmp_path / "out", facts_of())
    assert len(s2cube.run(config(archive, tmp_path / "out")).written) == len(DAYS)
    ids = [key[1] for key in Output.at(tmp_path / "out").items()]
    assert ids == sorted([*DAYS, COMPOSITE])
    rows = read_items_table(Output.at(tmp_path / "out"))
    assert rows is not None
    assert [row["id"] for row in rows] == ids


@pytest.mark.parametrize("has_table", [True, False])
def test_open_output_opens_the_days(out: Path, days: Path, has_table: bool) -> None:
    if not has_table:
        (out / "items.parquet").unlink()
    cube, only_days = s2cube.open_output(out), s2cube.open_output(days)
    assert isinstance(cube, xr.DataArray)
    assert isinstance(only_days, xr.DataArray)
    assert cube["slice"].values.tolist() == DAYS
    np.testing.assert_array_equal(cube.values, only_days.values)
