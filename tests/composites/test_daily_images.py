"""Daily images that lie in the output are read instead of the archive: the same files, without the archive."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import s2cube
from s2cube.composites.compute_composites import CompositeSummary, compute_composites, plan_composites
from s2cube.demo.archive import Archive
from s2cube.fetch import session
from s2cube.jobs.forecasts import forecast
from s2cube.storage.output import Output
from support.servers import Faulty, faulty

METHODS = [
    {"method": "median"}, {"method": "mean", "min_count": 2}, {"method": "geomedian"}, {"method": "medoid"},
    {"method": "best", "score": "NDVI"},
]  # fmt: skip


class Job:
    """Runs and composites of the demo's farm, from an archive that counts what is read."""

    def __init__(self, archive: Archive, server: Faulty, out: Path) -> None:
        self._server, self.out = server, out
        self._given = {
            "aoi": archive.aoi, "stac": f"{server.url}/items.json", "out": out, "bands": "red,nir", "resolution": 60,
            "indices": "NDVI", "dilation": 100,
        }  # fmt: skip

    def config(self, **settings: Any) -> s2cube.JobConfig:
        return s2cube.load_config(self._given | settings, {})

    def run(self, **settings: Any) -> list[str]:
        return s2cube.run(self.config(**settings), progress=False).written

    def compose(self, **settings: Any) -> CompositeSummary:
        session.reset()
        self._server.asked.clear()
        return compute_composites(self.config(period="year", **settings))

    @property
    def files_read(self) -> set[str]:
        """Paths of the files of the archive that were read."""
        return {each.path for each in self._server.reads if each.path.endswith(".tif")}


@pytest.fixture(scope="module")
def server(archive: Archive) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as found:
        yield found


@pytest.fixture(scope="module")
def images(archive: Archive, server: Faulty, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with all daily images. Tests copy it."""
    out = tmp_path_factory.mktemp("daily") / "out"
    Job(archive, server, out).run()
    return out


@pytest.fixture
def job(archive: Archive, server: Faulty, images: Path, tmp_path: Path) -> Iterator[Job]:
    shutil.copytree(images, tmp_path / "out")
    yield Job(archive, server, tmp_path / "out")
    session.reset()


def composites_of(out: Path) -> dict[str, bytes]:
    """Return all files of composites but their Items, which contain times of writing."""
    found = [path for path in out.glob("farm/farm_????_*/*") if path.suffix != ".json"]
    return {path.name: path.read_bytes() for path in found}


def from_the_archive(job: Job, **settings: Any) -> dict[str, bytes]:
    job.compose(out=job.out.parent / "of-archive", **settings)
    assert job.files_read
    return composites_of(job.out.parent / "of-archive")


@pytest.mark.parametrize("settings", METHODS, ids=lambda each: each["method"])
def test_same_files_without_the_archive(job: Job, settings: dict[str, Any]) -> None:
    expected = from_the_archive(job, **settings)
    summary = job.compose(**settings)
    assert summary.written
    # One request reads one daily image.
    assert (job.files_read, summary.requests) == (set(), len(list(job.out.glob("farm/farm_????????/*_qa.tif"))))
    assert composites_of(job.out) == expected


def test_a_large_area(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = from_the_archive(job)
    monkeypatch.setattr("s2cube.workers._composites.is_small", lambda geobox: False)
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 32)
    monkeypatch.setattr("s2cube.workers._composite_days.stack_in_memory", lambda: 1000)
    job.compose()
    assert job.files_read == set()
    assert composites_of(job.out) == expected


def test_only_missing_days_are_read_from_the_archive(job: Job) -> None:
    expected = from_the_archive(job)
    every = job.files_read
    day, *_ = sorted(job.out.glob("farm/farm_2022????"))
    shutil.rmtree(day)
    job.compose()
    assert job.files_read == {name for name in every if day.name[-8:] in name}
    assert composites_of(job.out) == expected


def test_an_image_of_other_settings_is_not_used(job: Job) -> None:
    job.compose(dilation=0)
    assert job.files_read
    job.compose(dtype="float32")
    assert job.files_read


def test_an_image_without_the_bands_is_not_used(archive: Archive, job: Job, tmp_path: Path) -> None:
    job.run(indices="none", out=tmp_path / "other")
    job.compose(out=tmp_path / "other")
    assert job.files_read


def test_a_damaged_image_is_not_used(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    expected = from_the_archive(job)
    image, *_ = sorted(job.out.glob("farm/farm_2022????/farm_2022????.tif"))
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 255
    image.write_bytes(bytes(content))
    job.compose()
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert f"{image} differs from the checksum in its Item; the archive is read instead" in warning
    assert {name for name in job.files_read if image.stem[-8:] not in name} == set()
    assert job.files_read
    assert composites_of(job.out) == expected


def test_a_large_image_is_compared_with_its_checksum(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """GDAL reads its tiles. The damage is in pixels without nodata, which GDAL does not notice."""
    monkeypatch.setattr("s2cube.inventory.stored_image._WHOLE_BYTES", 1)
    expected = from_the_archive(job)
    job.compose()
    assert job.files_read == set()
    assert composites_of(job.out) == expected
    image, *_ = sorted(job.out.glob("farm/farm_2022????/farm_2022????.tif"))
    content = bytearray(image.read_bytes())
    content[-1] ^= 255
    image.write_bytes(bytes(content))
    for path in job.out.glob("farm/*_median"):
        shutil.rmtree(path)
    job.compose()
    assert "differs from the checksum" in caplog.text
    assert job.files_read
    assert composites_of(job.out) == expected


def test_overwrite_reads_the_archive(job: Job) -> None:
    job.compose(overwrite=True)
    assert job.files_read


@pytest.mark.parametrize("score", [{}, {"score": "-time"}], ids=str)
def test_first_reads_only_masks_from_the_archive(job: Job, score: dict[str, str]) -> None:
    expected = from_the_archive(job, method="first", **score)
    of_archive = job.files_read
    summary = job.compose(method="first", **score)
    assert summary.written
    assert job.files_read == {name for name in of_archive if "scl" in name.lower()}
    assert job.files_read < of_archive
    assert composites_of(job.out) == expected


def test_the_forecast_does_not_count_them(job: Job) -> None:

    config = job.config(period="year")
    assert forecast(plan_composites(config, Output.at(job.out)), headers=False).total.requests == 0
    empty = Output.at(job.out.parent / "empty")
    assert forecast(plan_composites(config, empty), headers=False).total.requests > 0
