"""Bands of classes: the scene classification and the QA values, by plain counts of pixels and by GDAL."""

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
from odc.geo.geom import box
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import from_origin

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.errors import AssetMissingError
from s2cube.scenes.plan import make_plan
from s2cube.sentinel2 import QA, SCENE_CLASSES
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, open_int16, ramp, rectangle, scene, write_band

WHOLE = rectangle(0, -6000, 6000, 0)


def patches(seed: int, classes: tuple[int, ...] = tuple(range(12)), side: int = 3) -> np.ndarray:
    """Make a scene classification of patches of some pixels, with single pixels of other classes between them."""
    random = np.random.default_rng(seed)
    large = np.kron(random.choice(classes, (300 // side, 300 // side)), np.ones((side, side), int))
    return np.where(random.random((300, 300)) < 0.2, random.choice(classes, (300, 300)), large).astype("uint8")


def largest(pixels: np.ndarray, pixel_m: int, cell_m: int) -> np.ndarray:
    """Count the square metres, in squares of 10 m, of each class in each cell; return the class of the most."""
    fine = pixels.repeat(pixel_m // 10, axis=0).repeat(pixel_m // 10, axis=1)
    rows, columns = (length * 10 // cell_m for length in fine.shape)
    steps = cell_m // 10
    fine = fine[: rows * steps, : columns * steps].reshape(rows, steps, columns, steps)
    counts = np.array([(fine == value).sum(axis=(1, 3)) for value in range(1, 12)])
    return np.where(counts.max(axis=0) > 0, counts.argmax(axis=0) + 1, 0)


class TestLargestClass:
    @pytest.mark.parametrize("cell_m", [10, 20, 30, 40, 60, 100])
    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_by_counting_area(self, tmp_path: Path, cell_m: int, mask: str) -> None:
        classes = patches(cell_m)
        item = scene(tmp_path, scl=classes, blue=ramp(600, 10))
        want = largest(classes, 20, cell_m)
        packed = open_int16([item], WHOLE, bands=["scl", "blue"], resolution=cell_m, mask=mask)
        np.testing.assert_array_equal(packed[0, 0].values, np.where(want == 0, -9999, want))
        floats = s2cube.open_cube([item], WHOLE, bands=["SCL"], resolution=cell_m, mask=mask)
        np.testing.assert_array_equal(floats[0, 0].values, np.where(want == 0, np.nan, want).astype("float32"))

    @pytest.mark.parametrize("cell_m", [30, 60, 100])
    def test_is_the_mode_of_gdal(self, tmp_path: Path, cell_m: int) -> None:
        classes = patches(5, classes=(4, 5, 6, 9))
        item = scene(tmp_path, scl=classes)
        got = open_int16([item], WHOLE, bands=["scl"], resolution=cell_m)
        # GDAL does not weight the pixels of a mode by area in every version. Pixels of 10 m need no weight.
        write_band(tmp_path / "fine.tif", classes.repeat(2, axis=0).repeat(2, axis=1), 10)
        want = np.zeros(got.shape[-2:], "uint8")
        with rasterio.open(tmp_path / "fine.tif") as source:
            rasterio.warp.reproject(
                rasterio.band(source, 1), want, dst_transform=got.rio.transform(), dst_crs=EPSG,
                resampling=Resampling.mode,
            )  # fmt: skip
        fine = classes.repeat(2, axis=0).repeat(2, axis=1)
        steps, (rows, columns) = cell_m // 10, want.shape
        parts = fine[: rows * steps, : columns * steps].reshape(rows, steps, columns, steps)
        counts = np.sort([(parts == value).sum(axis=(1, 3)) for value in (4, 5, 6, 9)], axis=0)
        is_unique = counts[-1] > counts[-2]
        assert is_unique.mean() > 0.5
        np.testing.assert_array_equal(got[0, 0].values[is_unique], want[is_unique])

    @pytest.mark.parametrize("crs", ["EPSG:32615", "EPSG:5070"])
    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_in_another_crs_a_class_is_never_interpolated(self, tmp_path: Path, crs: str, mask: str) -> None:
        classes = patches(2, classes=(1, 11), side=20)
        item = scene(tmp_path, scl=classes)
        got = open_int16([item], rectangle(600, -5400, 5400, -600), bands=["scl"], crs=crs, mask=mask)
        inside = got.qa[0].values != QA.OUTSIDE
        assert set(np.unique(got[0, 0].values[inside])) == {1, 11}
        x, y = np.meshgrid(got.x.values, got.y.values)
        right, up = Transformer.from_crs(crs, EPSG, always_xy=True).transform(x, y)
        rows, columns = ((TOP_M - up) / 20).astype(int), ((right - LEFT_M) / 20).astype(int)
        at_centre = classes[rows.clip(0, 299), columns.clip(0, 299)]
        around = [classes[(rows + down).clip(0, 299), (columns + right).clip(0, 299)]
                  for down in (-1, 0, 1) for right in (-1, 0, 1)]  # fmt: skip
        is_uniform = np.all(np.array(around) == at_centre, axis=0) & inside
        assert is_uniform.sum() > 3000
        np.testing.assert_array_equal(got[0, 0].values[is_uniform], at_centre[is_uniform])


class TestNodata:
    def test_masks_hide_no_class(self, tmp_path: Path) -> None:
        classes = CLEAR.copy()
        for value in range(12):
            classes[12 * value : 12 * value + 12, 30:60] = value
        classes[200:, 250:] = 12
        item = scene(tmp_path, scl=classes, blue=ramp(600, 10))
        cube = open_int16([item], WHOLE, bands=["blue", "scl"], resolution=20, dilation=100).compute()
        np.testing.assert_array_equal(
            cube.sel(band="scl")[0].values, np.where(np.isin(classes, range(1, 12)), classes.astype(int), -9999)
        )
        assert (cube.sel(band="blue")[0].values[classes == 9] == -9999).all()

    def test_outside_the_polygon(self, tmp_path: Path) -> None:
        item = scene(tmp_path, scl=CLEAR, blue=ramp(600, 10))
        outline = AOI("aoi", rectangle(300, -3000, 3000, -300).geometry - rectangle(900, -1800, 1800, -900).geometry)
        cube = open_int16([item], outline, bands=["scl", "qa", "blue"]).compute()
        outside = cube.qa[0].values == QA.OUTSIDE
        assert 0 < outside.sum() < outside.size
        for band in range(3):
            np.testing.assert_array_equal(cube[0, band].values == -9999, outside)

    def test_other_bands_and_the_qa_image_do_not_change(self, tmp_path: Path) -> None:
        classes = patches(3)
        item = scene(tmp_path, scl=classes, blue=ramp(600, 10), swir16=ramp(300, 20))
        settings = {"mask_classes": (8, 9), "mask": "scl"}
        images = {}
        for bands in ("blue,swir16", "scl,blue,qa,swir16", "scl"):
            cube = s2cube.open_cube([item], WHOLE, bands=bands, **settings)
            (path,) = s2cube.write_cogs(cube, tmp_path / bands.replace(",", "-"))
            images[bands] = path
        plain, more, only = (
            [rasterio.open(each).read(), rasterio.open(str(each).replace(".tif", "_qa.tif")).read()]
            for each in images.values()
        )
        np.testing.assert_array_equal(more[0][[1, 3]], plain[0])
        # Class 0 is nodata of the band, and is no reason here that a cell is not clear.
        assert np.isnan(only[0]).any()
        np.testing.assert_array_equal(more[1], plain[1])
        np.testing.assert_array_equal(only[1], plain[1])

    def test_qa_is_the_coordinate(self, tmp_path: Path) -> None:
        item = scene(tmp_path, scl=patches(4), blue=ramp(600, 10))
        cube = s2cube.open_cube([item], rectangle(90, -3000, 2100, -600), bands=["QA", "blue"]).compute()
        assert set(np.unique(cube.qa.values)) >= {QA.CLEAR, QA.CLOUD, QA.SHADOW, QA.OTHER}
        np.testing.assert_array_equal(cube[:, 0].values, cube.qa.values)
        assert list(cube.band.values) == ["QA", "blue"]


class TestMosaic:
    def test_class_and_reflectance_are_of_one_scene(self, tmp_path: Path) -> None:
        """Where the first of two scenes has cloud, the second one is used, if it is clear there."""
        first, second = np.full((300, 300), 4, "uint8"), np.full((300, 300), 5, "uint8")
        first[:120, :120], second[60:180, :120] = 9, 8
        items = [
            scene(tmp_path, "a", 0, scl=first, blue=np.full((600, 600), 1000, "uint16")),
            scene(tmp_path, "b", 1, scl=second, blue=np.full((600, 600), 2000, "uint16")),
        ]
        cube = open_int16(items, WHOLE, bands=["blue", "scl"], resolution=20).compute()
        blue, classes = cube[0].values
        both = (first == 9) & (second == 8)
        np.testing.assert_array_equal(blue, np.where(both, -9999, np.where(first == 9, 2000, 1000)))
        np.testing.assert_array_equal(classes, np.where(both, 9, np.where(first == 9, 5, 4)))

    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_on_a_seam_all_parts_count(self, tmp_path: Path, mask: str) -> None:
        """The seam is inside the pixels' cells of 60 m: the class is that of the mosaic of both."""
        whole = patches(6, classes=(4, 5, 6, 7))
        west, east = whole.copy(), whole.copy()
        west[:, 151:], east[:, :151] = 0, 0
        items = [scene(tmp_path, "west", 0, scl=west), scene(tmp_path, "east", 1, scl=east)]
        for order in (items, items[::-1]):
            cube = open_int16(order, WHOLE, bands=["scl"], resolution=60, mask=mask)
            np.testing.assert_array_equal(cube[0, 0].values, largest(whole, 20, 60))

    def test_a_scene_that_covers_a_cell_comes_before_parts(self, tmp_path: Path) -> None:
        part, whole = np.full((300, 300), 4, "uint8"), np.full((300, 300), 5, "uint8")
        part[:, 152:] = 0
        items = [scene(tmp_path, "a", 0, scl=part), scene(tmp_path, "b", 1, scl=whole)]
        got = open_int16(items, WHOLE, bands=["scl"], resolution=60)[0, 0].values
        np.testing.assert_array_equal(got, np.where(np.arange(100) < 50, 4, 5) * np.ones((100, 1), int))

    def test_slices_on_different_grids_keep_their_order(self, tmp_path: Path) -> None:
        """The days have scenes in different zones, so their classes are read on different steps."""
        items: list[pystac.Item] = []
        to_zone = Transformer.from_crs(EPSG, 32615, always_xy=True)
        x, y = to_zone.transform(LEFT_M, TOP_M)
        corner = from_origin(round(x / 60) * 60 - 3000, round(y / 60) * 60 + 3000, 20, 20)
        for day, epsg in enumerate((32614, 32615, 32614)):
            item = scene(tmp_path, f"day{day}", scl=np.full((900, 900), 4 + day, "uint8"))
            if epsg != EPSG:
                write_band(Path(item.assets["scl"].href), np.full((900, 900), 4 + day, "uint8"), 20,
                           transform=corner, crs=epsg)  # fmt: skip
                item.properties["proj:epsg"] = epsg
            item.properties["datetime"] = f"2020-07-0{day + 1}T17:00:00Z"
            item.datetime = pystac.utils.str_to_datetime(item.properties["datetime"])
            items.append(item)
        cube = open_int16(items, rectangle(600, -5400, 5400, -600), bands=["scl"], crs=f"EPSG:{EPSG}").compute()
        assert [np.unique(each).tolist() for each in cube[:, 0, 5:-5, 5:-5].values] == [[4], [5], [6]]


def test_a_scene_without_the_layer_is_refused(tmp_path: Path) -> None:
    item = scene(tmp_path, blue=ramp(600, 10))
    with pytest.raises(AssetMissingError, match="no asset 'scl' .* without scl in --bands"):
        s2cube.open_cube([item], WHOLE, bands=["blue", "scl"], mask="none")
    cube = s2cube.open_cube([item], WHOLE, bands=["blue", "qa"], mask="none")
    assert cube.sel(band="qa").max() == QA.CLEAR


def test_the_recipe_does_not_depend_on_classes(tmp_path: Path) -> None:
    item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
    recipes = {
        make_plan([item], WHOLE, CubeSection.of({"bands": bands})).slices[0].recipe
        for bands in ("blue", "blue,scl", "scl,blue,qa")
    }
    assert len(recipes) == 1


def test_a_real_granule(real: Path) -> None:
    """Its pixels are 200 m wide. Cells begin inside them."""
    folder = real / "rasters" / "es_29RKH_20200219"
    content = json.loads((folder / "S2A_29RKH_20200219_0_L2A.json").read_text())
    for key, name in {"scl": "SCL", "blue": "B02"}.items():
        content["assets"][key]["href"] = str(folder / f"{name}.tif")
    item = pystac.Item.from_dict(content)
    left, top, side = 201_000, 2_799_000, 60_000
    with rasterio.open(folder / "SCL.tif") as file:
        assert file.res == (200, 200)
        classes, crs = file.read(1).repeat(20, axis=0).repeat(20, axis=1), str(file.crs)
        row, column = round((file.bounds.top - top) / 10), round((left - file.bounds.left) / 10)
    fine = classes[row : row + side // 10, column : column + side // 10]
    area = AOI("area", box(left, top - side, left + side, top, crs))
    for cell_m in (60, 100, 300):
        got = open_int16([item], area, bands=["scl"], resolution=cell_m, crs=crs)
        want = largest(fine, 10, cell_m)
        np.testing.assert_array_equal(got[0, 0].values, np.where(want == 0, -9999, want))
        assert {*np.unique(want)} - {0} <= SCENE_CLASSES.keys()
        assert len(np.unique(want)) >= 2
