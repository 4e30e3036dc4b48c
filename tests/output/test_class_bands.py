"""Files of images with bands of classes: nobody scales or averages a class."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

import s2cube
from s2cube.demo.archive import Archive
from s2cube.sentinel2 import QA_CLASSES, SCENE_CLASSES
from support.scenes import ramp, rectangle, scene

WHOLE = rectangle(0, -18_000, 18_000, 0)
BANDS = ("scl", "blue", "qa")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images with 600 × 600 cells, so that they have an overview. The classes are 4 and 6: their mean is a class."""
    folder = tmp_path_factory.mktemp("classes")
    classes = np.random.default_rng(1).choice(np.array([4, 6], "uint8"), (900, 900))
    item = scene(folder, scl=classes, blue=ramp(1800, 10, 0.02, 0.01))
    paths = {}
    for dtype in ("int16", "float32"):
        for bands in (BANDS, ("scl",)):
            cube = s2cube.open_cube([item], WHOLE, bands=bands, dtype=dtype)
            (path,) = s2cube.write_cogs(cube, folder / dtype / str(len(bands)))
            paths[f"{dtype}-{len(bands)}"] = Path(path)
    return paths


def test_only_reflectance_has_a_scale_and_a_unit(written: dict[str, Path]) -> None:
    with rasterio.open(written["int16-3"]) as cog:
        assert cog.descriptions == BANDS
        assert cog.scales == (1, 0.0001, 1)
        assert cog.units == (None, "1", None)
        assert cog.tags(1)["CLASS_9"] == "cloud_high_probability"
        assert cog.tags(3)["CLASS_2"] == "shadow"
        assert not any(key.startswith("CLASS") for key in cog.tags(2))


@pytest.mark.parametrize("image", ["int16-3", "int16-1", "float32-3", "float32-1"])
def test_overviews_have_classes_that_are_there(written: dict[str, Path], image: str) -> None:
    with rasterio.open(written[image]) as cog:
        assert cog.overviews(1) == [2]
        assert set(np.unique(cog.read(1))) == {4, 6}
    with rasterio.open(written[image], overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) == {4, 6}


def test_the_item_has_the_classes(written: dict[str, Path]) -> None:
    item = json.loads(written["int16-3"].with_suffix(".json").read_text())
    scl, blue, qa = item["assets"]["data"]["bands"]
    assert [each["value"] for each in scl["classification:classes"]] == list(SCENE_CLASSES)
    assert [each["name"] for each in qa["classification:classes"]] == [
        each.name for value, each in QA_CLASSES.items() if value != 255
    ]
    assert (blue["raster:scale"], blue["unit"]) == (0.0001, "1")
    assert not {"raster:scale", "raster:offset", "unit"} & (scl.keys() | qa.keys())
    assert "classification:classes" not in blue
    assert [band["name"] for band in item["assets"]["data"]["bands"]] == list(BANDS)


def test_an_output_is_opened_with_the_same_classes(written: dict[str, Path]) -> None:
    out = written["int16-3"].parents[2]
    again = s2cube.open_output(out)
    assert again.dtype == "float32"
    assert set(np.unique(again.sel(band="scl"))) == {4, 6}
    with rasterio.open(written["int16-3"]) as cog:
        np.testing.assert_allclose(again.sel(band="blue")[0], cog.read(2) / 10_000, rtol=1e-6)


def test_the_picture_has_the_colours_of_the_classes_or_is_of_reflectance(written: dict[str, Path]) -> None:
    with rasterio.open(written["int16-1"].with_suffix(".png")) as picture:
        found = {tuple(each) for each in picture.read().reshape(4, -1).T.tolist()}
    assert found == {(*SCENE_CLASSES[value].colour, 255) for value in (4, 6)}
    with rasterio.open(written["int16-3"].with_suffix(".png")) as picture:
        red, green, _, opacity = picture.read()
        assert (red == green).all()
        assert len(np.unique(red)) > 5
        assert (opacity == 255).all()


def test_the_demo_by_the_names_of_any_catalogue(archive: Archive, tmp_path: Path) -> None:
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-06")
    images = []
    for name in ("scl", "SCL", "SCL_20m"):
        (path,) = s2cube.write_cogs(s2cube.open_cube(items, aoi, bands=["red", name]), tmp_path / name)
        with rasterio.open(path) as cog:
            assert cog.descriptions == ("red", name)
            images.append(cog.read())
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])
    assert {8.0, 9.0} <= set(np.unique(images[0][1]))
