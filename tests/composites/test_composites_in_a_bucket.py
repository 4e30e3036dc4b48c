"""Composites in a bucket: interrupted and continued, with a late scene, and from daily images there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

import s2cube
from s2cube.composites.compute_composites import CompositeSummary, compute_composites
from s2cube.demo.archive import Archive
from s2cube.errors import WriteError
from s2cube.fetch import session
from s2cube.storage.output import Output
from support.buckets import names
from support.runs import EditItems
from support.servers import faulty

pytestmark = pytest.mark.usefixtures("keys", "fresh")


@pytest.fixture
def fresh() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


def fail_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bucket fail after some slices."""
    published, publish = list[str](), Output.publish

    def fail(self: Output, aoi_id: str, slice_id: str, folder: Path) -> str:
        if len(published) == count:
            raise WriteError(slice_id, "cannot be written", "Try again")
        published.append(slice_id)
        return publish(self, aoi_id, slice_id, folder)

    monkeypatch.setattr(Output, "publish", fail)


def config_of(archive: Archive, out: object, **settings: Any) -> s2cube.JobConfig:
    given = {"aoi": archive.aoi, "stac": archive.items, "out": out, "bands": "red,nir", "resolution": 60}
    return s2cube.load_config(given | settings, {})


def compute(archive: Archive, out: object, **settings: Any) -> CompositeSummary:
    return compute_composites(config_of(archive, out, **settings))


def in_bucket(s3: S3Store, name: str) -> dict[str, bytes]:
    """Return all files of composites but their Items, which contain times of writing."""
    found = [each for each in names(s3, name) if "_median/" in each and not each.endswith(".json")]
    return {each.rpartition("/")[2]: bytes(obstore.get(s3, f"{name}/{each}").bytes()) for each in found}


def in_folder(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.glob("farm/*_median/*") if path.suffix != ".json"]
    return {path.name: path.read_bytes() for path in found}


def test_stopped_continued_and_a_late_scene(
    archive: Archive, edited: EditItems, s3: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_out(items: list[dict[str, Any]]) -> None:
        items.remove(next(item for item in items if "20220614" in item["id"]))

    out, early = f"s3://results/{tmp_path.name}", edited(leave_out)
    with monkeypatch.context() as failing:
        fail_after(2, failing)
        with pytest.raises(WriteError):
            compute(archive, out, stac=early, slice_retries=0)
    continued = compute(archive, out, stac=early)
    assert len(continued.skipped) == 2
    assert continued.written
    expected = compute(archive, tmp_path / "early", stac=early).written
    assert len(continued.skipped) + len(continued.written) == len(expected)
    assert in_bucket(s3, tmp_path.name) == in_folder(tmp_path / "early")
    assert not compute(archive, out, stac=early).requests
    late = compute(archive, out)
    assert late.written == [f"{out}/farm/farm_202206_median/farm_202206_median.tif"]
    compute(archive, tmp_path / "late")
    assert in_bucket(s3, tmp_path.name) == in_folder(tmp_path / "late")


@pytest.mark.parametrize("whole_bytes", [64 << 20, 1], ids=["small", "large"])
def test_from_daily_images(
    whole_bytes: int, archive: Archive, s3: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2cube.inventory.stored_image._WHOLE_BYTES", whole_bytes)
    out = f"s3://results/{tmp_path.name}"
    compute(archive, tmp_path / "folder")
    with faulty(archive.items.parent) as server:
        given = {"stac": f"{server.url}/items.json"}
        s2cube.run(config_of(archive, out, **given), progress=False)
        session.reset()
        server.asked.clear()
        done = compute(archive, out, **given)
        assert done.written
        assert not [each.path for each in server.asked if each.path.endswith(".tif")]
    assert in_bucket(s3, tmp_path.name) == in_folder(tmp_path / "folder")
