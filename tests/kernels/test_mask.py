"""Masks: which cells are valid and why not, against polygons and plain loops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio.warp
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geom import box
from rasterio.transform import from_origin

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import read_grid, read_grids
from s2cube.errors import AssetMissingError
from s2cube.kernels.mask import Screened, Steps, screen, within
from s2cube.scenes.plan import make_plan
from s2cube.sentinel2 import QA
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, open_int16, ramp, rectangle, scene, write_band


def masks(classes: np.ndarray, steps: int, step_m: float = 10, dilation_m: float = 0) -> Screened:
    """Screen one scene by its scene classification, dims (scene, y, x), without a halo."""
    config = CubeSection.of({"dilation": dilation_m})
    return screen({"scl": classes}, Steps(steps, step_m, (True,), halo_cells=0), config)


class TestMask:
    @given(st.integers(1, 15), st.integers(0, 10_000))
    def test_one_masked_step_masks_its_cell(self, steps: int, seed: int) -> None:
        classes = (
            np.random.default_rng(seed).choice([4, 5, 6, 7, 11, 8, 2], size=(1, 4 * steps, 5 * steps)).astype("uint8")
        )
        got = masks(classes, steps).covered
        for row in range(4):
            for column in range(5):
                cell = classes[0, row * steps : (row + 1) * steps, column * steps : (column + 1) * steps]
                assert got[row, column] == (8 not in cell)

    @pytest.mark.parametrize("masked", range(12))
    def test_default_classes(self, tmp_path: Path, masked: int) -> None:
        classes = CLEAR.copy()
        classes[0:1, 2:3] = masked  # one 20 m pixel, 40…60 m from the left: in the second cell only
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        image = open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"])[0, 0].values
        assert (image[0, 1] == -9999) == (masked in {0, 1, 3, 8, 9, 10})
        assert (np.delete(image.ravel(), 1) != -9999).all()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("resolution_m", "crs"),
        [(each, "EPSG:32614") for each in (10, 20, 30, 40, 60, 100, 300, 45, 16, 22, 28, 33)]
        + [(30, "EPSG:32615"), (30, "EPSG:5070"), (20, "EPSG:32615"), (60, "EPSG:32615"), (100, "EPSG:5070")],
    )
    def test_no_source_pixel_is_missed(self, tmp_path: Path, resolution_m: float, crs: str) -> None:
        """Cells that overlap a cloudy pixel, by their polygons."""
        classes = np.random.default_rng(3).choice([4, 9], p=[0.995, 0.005], size=(300, 300)).astype("uint8")
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = open_int16([item], rectangle(600, -2400, 2400, -600), bands=["blue"], resolution=resolution_m, crs=crs)
        # What the polygon cuts off is masked with it.
        plain = open_int16(
            [item], rectangle(600, -2400, 2400, -600), bands=["blue"], resolution=resolution_m, crs=crs, mask="none"
        )
        seen, masked = plain[0, 0].values != -9999, cube[0, 0].values == -9999
        rows, columns = np.nonzero(classes == 9)
        corners = [(LEFT_M + 20 * columns, TOP_M - 20 * rows - 20), (LEFT_M + 20 * columns + 20, TOP_M - 20 * rows)]
        clouds = shapely.union_all(shapely.box(*corners[0], *corners[1]))
        clouds = geopandas.GeoSeries([clouds], crs=EPSG).to_crs(crs)[0]
        half = resolution_m / 2
        x_m, y_m = np.meshgrid(cube.x.values, cube.y.values)
        cells = shapely.box(x_m - half, y_m - half, x_m + half, y_m + half)
        shapely.prepare(clouds)
        # A millimetre less, for a pixel that only touches a cell is not under it.
        touched = shapely.intersects(clouds, shapely.buffer(cells, -0.001))
        assert (touched & seen).any()
        assert not (touched & seen & ~masked).any()
        nests = crs == "EPSG:32614" and resolution_m % 10 == 0
        reach_m = 0 if nests else 15
        wider = clouds.buffer(reach_m)
        assert not (masked & seen & ~shapely.intersects(wider, cells)).any()
        if nests:
            np.testing.assert_array_equal(masked[seen], touched[seen])

    def test_steps_divide_the_classification(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(10, 10), scl=CLEAR)
        for resolution_m, steps in ((10, 1), (20, 1), (30, 3), (40, 2), (60, 3), (100, 5), (300, 15), (45, 5), (50, 5)):
            config = CubeSection.of({"bands": "blue", "resolution": resolution_m})
            plan = make_plan([item], rectangle(0, -900, 900, 0), config)
            assert read_grid(plan.geobox, plan.scenes, 0).steps == steps, resolution_m
            # In another CRS no step may be as wide as a pixel.
            config = CubeSection.of({"bands": "blue", "resolution": resolution_m, "crs": "EPSG:5070"})
            plan = make_plan([item], rectangle(0, -900, 900, 0), config)
            assert resolution_m / read_grid(plan.geobox, plan.scenes, 0).steps <= 10

    @pytest.mark.parametrize("resolution_m", [30, 60])
    def test_a_slice_does_not_depend_on_others(self, tmp_path: Path, resolution_m: float) -> None:
        """Neither on their CRS, by which masks are read on finer steps, nor on how many there are."""
        settings: dict[str, Any] = {"bands": ["blue"], "resolution": resolution_m, "crs": f"EPSG:{EPSG}"}
        items = []
        for day, epsg in ((1, EPSG), (2, EPSG + 1), (3, EPSG + 1), (4, EPSG)):
            classes = np.random.default_rng(day).choice([4, 9], p=[0.99, 0.01], size=(300, 300)).astype("uint8")
            item = scene(tmp_path, f"day{day}", blue=ramp(600, 10) + np.uint16(day), scl=classes)
            item.datetime = item.datetime and item.datetime.replace(day=day)
            items.append(item)
            if epsg != EPSG:
                item.properties["proj:epsg"] = epsg
                ((left, *_), (top, *_)) = rasterio.warp.transform(EPSG, epsg, [LEFT_M], [TOP_M])
                bounds = rasterio.warp.transform_bounds(epsg, 4326, left, top - 6000, left + 6000, top)
                item.geometry = box(*bounds, "EPSG:4326").json
                for key, pixel_m in (("blue", 10), ("scl", 20)):
                    pixels = ramp(600, 10) + np.uint16(day) if key == "blue" else classes
                    transform = from_origin(left, top, pixel_m, pixel_m)
                    write_band(Path(item.assets[key].href), pixels, pixel_m, crs=epsg, transform=transform)
        aoi = rectangle(1500, -3000, 3000, -1500)
        cube = open_int16(items, aoi, **settings).compute()
        assert cube.sizes["time"] == len(items)
        for item, image in zip(items, cube, strict=True):
            (alone,) = open_int16([item], aoi, **settings).compute()
            np.testing.assert_array_equal(image.qa, alone.qa)
            np.testing.assert_array_equal(image, alone)
            assert image.scenes.item() == item.id
        geobox = make_plan(items, aoi, CubeSection.of(settings)).geobox
        grids = read_grids(geobox, [[item] for item in items], 0)
        for item, grid in zip(items, grids, strict=True):
            assert replace(grid, chunks=read_grid(geobox, [item], 0).chunks) == read_grid(geobox, [item], 0)


def overlaps(cube: xr.DataArray, bounds: tuple[float, float, float, float], within_m: float = 0) -> np.ndarray:
    """Tell which cells share an area with a rectangle, grown by a distance."""
    half_m = abs(float(cube.x[1] - cube.x[0])) / 2 + within_m - 1e-6
    left, bottom, right, top = bounds
    x, y = np.meshgrid(cube.x, cube.y)
    return np.asarray((x > left - half_m) & (x < right + half_m) & (y > bottom - half_m) & (y < top + half_m))


def cloud_polygons(classes: np.ndarray, *which: int) -> shapely.Geometry:
    rows, columns = np.nonzero(np.isin(classes, which))
    left, top = LEFT_M + 20 * columns, TOP_M - 20 * rows
    return shapely.union_all(shapely.box(left, top - 20, left + 20, top))


def cells_of(cube: xr.DataArray) -> np.ndarray:
    x_m, y_m = np.meshgrid(cube.x.values, cube.y.values)
    half = (cube.x.values[1] - cube.x.values[0]) / 2
    return shapely.box(x_m - half, y_m - half, x_m + half, y_m + half)


def test_ground_is_what_fills_a_cell_alone() -> None:
    classes = np.array([[[4, 4, 6, 6, 4, 6], [4, 4, 6, 6, 4, 4]]], "uint8")
    assert masks(classes, 2).ground.tolist() == [[[4, 6, 0]]]


class TestDilation:
    @given(st.integers(0, 10_000), st.integers(0, 700), st.floats(0.01, 0.2))
    def test_within_is_by_the_distance_of_areas(self, seed: int, hundredths: int, share: float) -> None:
        distance = hundredths / 100
        hit = np.random.default_rng(seed).random((12, 15)) < share
        y, x = np.mgrid[:12, :15]
        squares = shapely.box(x, y, x + 1, y + 1)
        want = hit.copy()
        if hit.any() and distance > 0:
            want |= shapely.distance(squares, shapely.union_all(squares[hit])) < distance - 1e-9
        np.testing.assert_array_equal(within(hit, distance), want)

    @pytest.mark.slow
    @given(st.integers(0, 10_000), st.floats(0, 60), st.floats(0, 60))
    def test_more_dilation_never_masks_less(self, seed: int, one_m: float, other_m: float) -> None:
        classes = np.random.default_rng(seed).choice([4, 3, 9, 0, 1], p=[0.9, 0.03, 0.03, 0.02, 0.02], size=(1, 20, 24))
        less, more = (masks(classes.astype("uint8"), 2, dilation_m=each) for each in sorted((one_m, other_m)))
        assert (less.covered | ~more.covered).all()
        assert ((less.reason != QA.CLOUD) | (more.reason == QA.CLOUD)).all()

    @pytest.mark.parametrize(("resolution_m", "dilation_m"), [(26, 130), (26, 260), (29, 145), (25, 125), (30, 150)])
    def test_what_is_just_as_far_is_not_masked(self, resolution_m: float, dilation_m: int) -> None:
        """Also where a step is no finite decimal: 26 m in 3 steps."""
        steps = 3
        classes = np.full((1, 60 * steps, 60 * steps), 4, "uint8")
        classes[0, 0, 0] = 9
        reason = masks(classes, steps, resolution_m / steps, dilation_m).reason[0]
        # The cloud ends with the first step: a cell further on begins that far from it.
        first_clear = np.arange(60) * resolution_m - resolution_m / steps >= dilation_m - 1e-6
        np.testing.assert_array_equal(reason[0] == QA.CLEAR, first_clear)

    @pytest.mark.parametrize("dilation_m", [0, 15, 20, 50, 130])
    @pytest.mark.parametrize("chunk", [6144, 300])
    def test_by_polygons_with_clouds_outside_the_aoi(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dilation_m: float, chunk: int
    ) -> None:
        """What comes nearer than the distance is masked, nothing else; however the grid is cut into chunks."""
        monkeypatch.setattr("s2cube.cube.chunks._STEP_PIXELS", chunk)
        classes = np.random.default_rng(7).choice([4, 9, 3], p=[0.9985, 0.001, 0.0005], size=(300, 300)).astype("uint8")
        # Beside the AOI, which begins 600 m from the edges: 40 m and 100 m away from it.
        classes[150, 27], classes[24, 200] = 9, 3
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = open_int16([item], rectangle(600, -2400, 2400, -600), bands=["blue"], dilation=dilation_m).compute()
        cells = cells_of(cube)
        near = {}
        for reason, which in ((QA.CLOUD, (9,)), (QA.SHADOW, (3,))):
            distance_m = shapely.distance(cells, cloud_polygons(classes, *which))
            inner = shapely.intersection(cells, cloud_polygons(classes, *which))
            near[reason] = (distance_m < dilation_m) | (shapely.area(inner) > 0)
        want = np.where(near[QA.CLOUD], QA.CLOUD, np.where(near[QA.SHADOW], QA.SHADOW, QA.CLEAR))
        np.testing.assert_array_equal(cube.qa[0].values, want)
        np.testing.assert_array_equal(cube[0, 0].values == -9999, want != QA.CLEAR)

    def test_no_cloud_is_told_where_nothing_was_seen(self, tmp_path: Path) -> None:
        classes = CLEAR.copy()
        classes[:, 60:], classes[:, 57:60] = 0, 9
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = open_int16([item], rectangle(600, -1200, 1800, -600), bands=["blue"], dilation=100)
        row = cube.qa[0, 0].values
        # Clouded from 1140 to 1200 m, within 100 m from 1040 m on; beyond 1200 m there is no data.
        assert list(row) == [QA.CLEAR] * 14 + [QA.CLOUD] * 6 + [QA.NO_DATA] * 20

    def test_beside_the_aoi_matters(self, tmp_path: Path) -> None:
        """The halo alone: without it no cloud is there at all."""
        classes = CLEAR.copy()
        classes[:, 29] = 9  # 580 to 600 m; the AOI begins at 600 m
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        aoi = rectangle(600, -1200, 1200, -600)
        widths = {
            dilation_m: int((open_int16([item], aoi, bands=["blue"], dilation=dilation_m)[0, 0, 5] == -9999).sum())
            for dilation_m in (0, 10, 30, 31, 90)
        }
        assert widths == {0: 0, 10: 1, 30: 1, 31: 2, 90: 3}


class TestLayers:
    """Each source of a mask, one masked pixel at 40 to 60 m from the left: in the second cell only."""

    @pytest.fixture
    def aoi(self) -> AOI:
        return rectangle(0, -600, 600, 0)

    @pytest.mark.parametrize(
        ("percent", "settings", "reason"),
        [
            (41, {"mask": "cloud"}, QA.CLOUD),
            (41, {"mask": "scl,cloud"}, QA.CLOUD),
            (40, {"mask": "cloud"}, QA.CLEAR),
            (11, {"mask": "cloud", "max_cloud_probability": 10}, QA.CLOUD),
            (41, {"mask": "snow"}, QA.OTHER),
            (41, {"mask": ["scl", "snow"]}, QA.OTHER),
            (41, {"mask": ["snow", "cloud"]}, QA.CLOUD),
            (100, {"mask": "snow", "max_snow_probability": 100}, QA.CLEAR),
        ],
    )
    def test_probabilities(self, tmp_path: Path, aoi: AOI, percent: int, settings: dict[str, Any], reason: QA) -> None:
        probability = np.zeros((300, 300), "uint8")
        probability[0, 2] = percent
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR, cloud=probability, snow=probability)
        cube = open_int16([item], aoi, bands=["blue"], **settings).compute()
        assert cube.qa[0, 0, 1] == reason
        assert (cube[0, 0, 0, 1] == -9999) == (reason != QA.CLEAR)
        assert (np.delete(cube.qa.values.ravel(), 1) == QA.CLEAR).all()

    @pytest.mark.parametrize(("bits", "reason"), [(1024, 1), (2048, 1), (3072, 1), (512, 0), (4096, 0), (0, 0)])
    def test_qa60(self, tmp_path: Path, aoi: AOI, bits: int, reason: int) -> None:
        qa60 = np.zeros((100, 100), "uint16")
        qa60[1, 1] = bits  # 60 m: two cells each way
        item = scene(tmp_path, blue=ramp(600, 10), qa60=qa60)
        cube = open_int16([item], aoi, bands=["blue"], mask="qa60").compute()
        want = np.zeros((20, 20), int)
        want[2:4, 2:4] = reason
        np.testing.assert_array_equal(cube.qa[0].values, want)

    @pytest.mark.parametrize(("epsg", "top_m"), [(32614, 4_500_000), (32714, 9_400_000)])
    @pytest.mark.parametrize("resolution_m", [7.5, 10, 15, 20, 22.5, 30, 45, 60, 100])
    def test_qa60_far_from_its_corner(self, tmp_path: Path, epsg: int, top_m: int, resolution_m: float) -> None:
        """70 km: every cell that overlaps a cloudy pixel is masked, and none that is farther than a step from one."""
        qa60 = np.zeros((1830, 1830), "uint16")
        cloudy = np.random.default_rng(5).random((20, 20)) < 0.1
        qa60[1170:1190, 1170:1190] = np.where(cloudy, 1024, 0)
        left, top = LEFT_M + 70_200, top_m - 70_200
        item = scene(tmp_path, blue=np.full((120, 120), 1000, "uint16"), qa60=qa60)
        write_band(tmp_path / "scene_qa60.tif", qa60, 60, crs=epsg, transform=from_origin(LEFT_M, top_m, 60, 60))
        blue = np.full((120, 120), 1000, "uint16")
        write_band(tmp_path / "scene_blue.tif", blue, 10, crs=epsg, transform=from_origin(left, top, 10, 10))
        granule = box(LEFT_M, top_m - 109_800, LEFT_M + 109_800, top_m, f"EPSG:{epsg}").to_crs("EPSG:4326")
        item.geometry, item.bbox = granule.json, list(granule.boundingbox)
        item.properties["proj:epsg"] = epsg
        aoi = AOI("aoi", box(left + 200, top - 1000, left + 1000, top - 200, f"EPSG:{epsg}"))
        cube = open_int16([item], aoi, bands=["blue"], mask="qa60", resolution=resolution_m).compute()
        hidden, near = np.zeros((2, *cube.shape[2:]), bool)
        step_m = 10 if resolution_m not in (20, 60, 100) else 20
        for row, column in np.argwhere(cloudy):
            clouds = left + 60 * column, top - 60 * row - 60, left + 60 * column + 60, top - 60 * row
            hidden |= overlaps(cube, clouds)
            near |= overlaps(cube, clouds, step_m)
        masked, inside = cube.qa[0].values == QA.CLOUD, cube.qa[0].values != QA.OUTSIDE
        assert (masked[inside] >= hidden[inside]).all()
        assert (masked[inside] <= near[inside]).all()
        if resolution_m in (10, 20, 30, 60, 100):
            np.testing.assert_array_equal(masked[inside], hidden[inside])
        assert 0 < hidden[inside].mean() < 1

    @pytest.mark.parametrize("layer", ["cloud", "snow", "qa60"])
    def test_a_layer_that_is_not_served(self, tmp_path: Path, aoi: AOI, layer: str) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        with pytest.raises(AssetMissingError, match=f"scene: has no asset '{layer}' .* Ask for --mask scl, or none"):
            open_int16([item], aoi, bands=["blue"], mask=["scl", layer])

    @pytest.mark.parametrize("masked", range(12))
    def test_classes_of_ones_own(self, tmp_path: Path, aoi: AOI, masked: int) -> None:
        classes = np.resize(np.arange(12, dtype="uint8"), (300, 300)).repeat(2, 0).repeat(2, 1)[:300, :300].copy()
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = open_int16([item], aoi, bands=["blue"], mask_classes=[masked]).compute()
        clouds = cloud_polygons(classes, masked)
        want = shapely.area(shapely.intersection(cells_of(cube), clouds)) > 0
        np.testing.assert_array_equal(cube[0, 0].values == -9999, want)
        reasons = {0: QA.NO_DATA, 3: QA.SHADOW, 7: QA.CLOUD, 8: QA.CLOUD, 9: QA.CLOUD, 10: QA.CLOUD}
        assert set(np.unique(cube.qa.values[0][want])) == {reasons.get(masked, QA.OTHER)}

    def test_what_is_no_scene_class_is_no_data(self, tmp_path: Path, aoi: AOI) -> None:
        classes = CLEAR.copy()
        classes[0, 2] = 12
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = open_int16([item], aoi, bands=["blue"]).compute()
        assert cube.qa[0, 0, 1] == QA.NO_DATA
        assert cube[0, 0, 0, 1] == -9999

    def test_reasons_stand_in_order(self, tmp_path: Path, aoi: AOI) -> None:
        """A cell of which parts are hidden in several ways is told by the most telling one."""
        classes = CLEAR.copy()
        classes[0, :2], classes[0, 3:5], classes[0, 6:8] = (9, 3), (3, 1), (1, 0)
        classes[0, 9:11] = (0, 4)
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        qa = open_int16([item], aoi, bands=["blue"]).qa[0, 0].values
        assert list(qa[:8]) == [QA.CLOUD, QA.SHADOW, QA.SHADOW, QA.OTHER, QA.OTHER, QA.NO_DATA, QA.NO_DATA, QA.CLEAR]
