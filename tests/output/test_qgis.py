"""QGIS itself opens what is written."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rasterio

import s2cube
from s2cube.demo.archive import Archive
from s2cube.sentinel2 import QA_CLASSES

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).resolve().parents[1] / "support" / "in_qgis.py"


@pytest.fixture(scope="module")
def qgis() -> None:
    look = [PYTHON, "-c", "import qgis.core"]
    if not Path(PYTHON).exists() or subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip("QGIS is not installed; install Debian's packages python3-qgis and qgis-providers")


def in_qgis(path: Path, folder: Path) -> Any:
    """Open a copy of a slice in QGIS, which writes files beside the images."""
    shutil.copytree(path.parent, folder)
    qa = folder / f"{path.stem}_qa.tif"
    command = [PYTHON, str(SCRIPT), str(folder / path.name), str(qa), str(folder / "drawn.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "drawn.png").stat().st_size > 1000
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("qgis")
@pytest.mark.parametrize(("bands", "shown"), [(None, [1, 2, 3]), (["nir", "blue", "green", "red"], [4, 3, 2])])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_natural_colours_and_names_at_once(
    archive: Archive, tmp_path: Path, dtype: Any, bands: list[str] | None, shown: list[int]
) -> None:
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-06")
    settings: dict[str, Any] = {"bands": bands} if bands else {}
    (path,) = s2cube.write_cogs(s2cube.open_cube(items, aoi, dtype=dtype, **settings), tmp_path / "out")
    seen = in_qgis(Path(path), tmp_path / "seen")
    names = bands or ["red", "green", "blue", "nir", "swir16"]
    assert seen["names"] == [f"Band {number}: {name}" for number, name in enumerate(names, 1)]
    assert seen["shown"] == shown
    assert seen["limits"] == [[0, 0.3]] * 3
    wanted = [[each.name, [*each.colour, 255 if each.name != "outside" else 0]] for each in QA_CLASSES.values()]
    assert seen["legend"] == wanted
    assert len(wanted) == 6
    with rasterio.open(path) as cog:
        for number, (minimum, maximum, mean, _) in zip(cog.indexes, seen["statistics"], strict=True):
            values = cog.read(number, masked=True) * cog.scales[0]
            assert [minimum, maximum, mean] == pytest.approx([values.min(), values.max(), values.mean()], rel=1e-4)
