"""Indices from the command line to the files, and back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import spyndex

import s2cube
from s2cube.demo.archive import Archive
from s2cube.spectral_indices import known_indices
from support.items import validate
from support.runs import CommandLine, Outcome

Command = Callable[..., Outcome]


@pytest.fixture
def run(s2cube_command: CommandLine, archive: Archive, small_aoi: Path) -> Command:
    """Run a job of one day in this process."""
    words = ["--aoi", small_aoi, "--stac", archive.items, "--datetime", "2022-06", "--json"]
    return lambda *more, command="run": s2cube_command(command, *words, *more)


class TestList:
    def test_table(self, s2cube_command: CommandLine) -> None:
        done = s2cube_command("indices")
        assert done.status == 0
        assert f"{len(known_indices())} indices." in done.err
        assert "…" not in done.out
        done = s2cube_command("indices", "--search", "ndvi")
        (row,) = (line for line in done.out.splitlines() if line.startswith("NDVI "))
        facts = (
            "Normalized Difference Vegetation Index",
            "(nir-red)/(nir+red)",
            "nir red",
            spyndex.indices.NDVI.reference,
        )
        assert all(fact in row for fact in facts)

    def test_json(self, s2cube_command: CommandLine) -> None:
        found = s2cube_command("indices", "--json", "--search", "SWIR16").json
        assert found["count"] == len(found["indices"]) > 10
        assert all("swir16" in each["bands"] for each in found["indices"])
        (ndmi,) = (each for each in found["indices"] if each["name"] == "NDMI")
        assert ndmi == {
            "name": "NDMI", "long_name": "Normalized Difference Moisture Index", "formula": "(nir-swir16)/(nir+swir16)",
            "bands": ["nir", "swir16"], "domain": "vegetation", "reference": spyndex.indices.NDMI.reference,
        }  # fmt: skip

    def test_nothing_found(self, s2cube_command: CommandLine) -> None:
        done = s2cube_command("indices", "--search", "nothing like this", "--json")
        assert (done.status, done.json) == (0, {"indices": [], "count": 0})


class TestMistakes:
    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_an_unknown_name(self, run: Command, command: str) -> None:
        done = run("--indices", "NDVX,EVI", command=command)
        assert done.status == 2
        assert "--indices: index 'NDVX' is unknown" in done.err
        assert "Did you mean NDVI" in done.err

    def test_what_sentinel_2_lacks(self, run: Command) -> None:
        done = run("--indices", "NDBaI")
        assert done.status == 2
        assert "needs a thermal band" in done.err

    def test_neither_bands_nor_indices(self, run: Command) -> None:
        done = run("--bands", "none")
        assert done.status == 2
        assert "neither bands nor indices. Set --bands or --indices" in done.err

    def test_names_the_variable(self, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S2CUBE_CUBE__INDICES", "NDVX")
        assert "S2CUBE_CUBE__INDICES: index 'NDVX' is unknown" in run().err


class TestRun:
    def test_files_and_item(self, run: Command) -> None:
        done = run("--bands", "red,nir,scl", "--indices", "ndvi,EVI")
        assert done.status == 0, done.err
        (path,) = map(Path, done.json["written"])
        with rasterio.open(path) as cog:
            assert cog.descriptions == ("red", "nir", "scl", "NDVI", "EVI")
            assert cog.scales == (0.0001, 0.0001, 1, 0.0001, 0.0001)
            assert (cog.units[3], cog.nodata, cog.dtypes[3]) == ("1", -9999, "int16")
            assert cog.colorinterp[3] == rasterio.enums.ColorInterp.undefined
            red, nir, _, ndvi, _ = cog.read().astype(float)
            assert int(cog.tags(4)["STATISTICS_MAXIMUM"]) == ndvi.max()
        valid = ndvi != -9999
        np.testing.assert_array_equal(valid, red != -9999)
        # Computed before the bands are rounded, so that they may differ by a little more than a half.
        assert np.abs(1e4 * (nir - red)[valid] / (nir + red)[valid] - ndvi[valid]).max() < 15
        item = json.loads(path.with_suffix(".json").read_text())
        validate(item, "Feature")
        of_index = item["assets"]["data"]["bands"][3]
        assert of_index["name"] == "NDVI"
        assert of_index["description"] == known_indices()["NDVI"].description
        assert (of_index["raster:scale"], of_index["unit"], of_index["nodata"]) == (0.0001, "1", -9999)
        assert of_index["statistics"]["maximum"] == ndvi.max()
        assert "eo:common_name" not in of_index
        assert "description" not in item["assets"]["data"]["bands"][0]
        assert not {"bands", "indices"} & set(item["properties"]["s2cube:settings"])
        collection = pystac.Collection.from_file(str(path.parents[1] / "collection.json"))
        assert [each["name"] for each in collection.summaries.lists["bands"]] == ["red", "nir", "scl", "NDVI", "EVI"]

    def test_resuming(self, run: Command) -> None:
        words = ["--bands", "red", "--indices"]
        (slice_id,) = (Path(path).stem for path in run(*words, "NDVI").json["written"])
        for same in ("NDVI", "ndvi"):
            again = run(*words, same)
            assert (again.json["written"], again.json["skipped"], again.json["requests"]) == ([], [slice_id], 0)
        plan = run(*words, "NDVI,EVI", command="plan")
        assert plan.json["todo"] == [slice_id]
        assert "bands was red,NDVI, is now red,NDVI,EVI" in plan.err
        assert len(run(*words, "NDVI,EVI").json["written"]) == 1
        assert len(run(*words, "EVI,NDVI").json["written"]) == 1
        assert len(run("--bands", "red").json["written"]) == 1

    def test_opened_verified_and_written_again(self, run: Command, s2cube_command: CommandLine, tmp_path: Path) -> None:
        run("--bands", "none", "--indices", "NDVI,SEVI", "--dtype", "float32")
        assert s2cube_command("verify", "out").status == 0
        opened = s2cube.open_output("out", bands=["NDVI"])
        computed = s2cube.open_output("out").sel(band="NDVI")
        np.testing.assert_array_equal(opened.sel(band="NDVI"), computed)
        assert float(computed.max()) > 0.5
        # The cube of a notebook is the image of the run.
        aoi, items = s2cube.read_aoi(tmp_path / "corner.geojson"), opened["scenes"].values
        archive_items = s2cube.search(aoi, stac=str(self.archive.items), datetime="2022-06")
        assert [each.id for each in archive_items] == "\n".join(items).splitlines()
        cube = s2cube.open_cube(archive_items, aoi, bands="none", indices=["NDVI", "SEVI"])
        (path,) = map(Path, s2cube.write_cogs(cube, "notebook"))
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to("notebook")).read_bytes()
        again = run("--bands", "none", "--indices", "NDVI,SEVI", "--dtype", "float32", "--out", "notebook")
        assert again.json["written"] == []
        # What is computed from an index is not that index.
        (path,) = map(Path, s2cube.write_cogs(cube.sel(band=["NDVI"]) * 2, "notebook", name="twice"))
        (band,) = json.loads(path.with_suffix(".json").read_text())["assets"]["data"]["bands"]
        assert band["name"] == "NDVI"
        assert "description" not in band

    @pytest.fixture(autouse=True)
    def _archive(self, archive: Archive) -> None:
        self.archive = archive

    def test_int16_becomes_floats_when_opened(self, run: Command) -> None:
        run("--bands", "none", "--indices", "NDVI")
        packed, floats = s2cube.open_output("out", dtype="int16"), s2cube.open_output("out")
        assert floats.dtype == "float32"
        valid = packed.values != -9999
        np.testing.assert_allclose(floats.values[valid], packed.values[valid] / 1e4, atol=1e-7)
        assert np.isnan(floats.values[~valid]).all()

    def test_a_warning_counts_what_int16_cannot_store(self, run: Command) -> None:
        done = run("--bands", "none", "--indices", "SEVI,NDVI", "--out", "packed")
        floats = run("--bands", "none", "--indices", "SEVI,NDVI", "--dtype", "float32", "--out", "floats")
        counts = []
        for result, is_valid in ((done, lambda cells: cells != -9999), (floats, np.isfinite)):
            with rasterio.open(result.json["written"][0]) as cog:
                counts.append(np.count_nonzero(is_valid(cog.read(1))))
        lost = counts[1] - counts[0]
        assert lost > 0
        (line,) = (each for each in done.err.splitlines() if "±3.2767" in each)
        assert f"{lost} of SEVI;" in line
        assert line.startswith("warning: corner_20220614: ")
