"""Masks: which cells are valid and why not, against polygons and plain loops."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scenes import CLEAR, EPSG, LEFT_M, TOP_M, ramp, rectangle, scene

import s2cube
from s2cube.config import CubeSection
from s2cube.cube import steps_per_cell
from s2cube.mask import screen


def layers(steps: int = 1, nests: bool = True, **of: np.ndarray) -> xr.Dataset:
    data = {name: (("scene", "y", "x"), classes) for name, classes in of.items()}
    return xr.Dataset(data, {"nests": ("scene", [nests])}, {"steps": steps, "step_m": 10}).chunk()


class TestMask:
    @given(st.integers(1, 15), st.integers(0, 10_000))
    def test_one_masked_step_masks_its_cell(self, steps: int, seed: int) -> None:
        classes = (
            np.random.default_rng(seed).choice([4, 5, 6, 7, 11, 8, 2], size=(1, 4 * steps, 5 * steps)).astype("uint8")
        )
        got = screen(layers(steps, scl=classes), CubeSection(), (1,), 0).covered.values[0]
        for row in range(4):
            for column in range(5):
                cell = classes[0, row * steps : (row + 1) * steps, column * steps : (column + 1) * steps]
                assert got[row, column] == (8 not in cell)

    @pytest.mark.parametrize("masked", range(12))
    def test_default_classes(self, tmp_path: Path, masked: int) -> None:
        classes = CLEAR.copy()
        classes[0:1, 2:3] = masked  # one 20 m pixel, 40…60 m from the left: in the second cell only
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        image = s2cube.open_cube([item], rectangle(0, -600, 600, 0), bands=["blue"])[0, 0].values
        assert (image[0, 1] == -9999) == (masked in {0, 1, 3, 8, 9, 10})
        assert (np.delete(image.ravel(), 1) != -9999).all()

    @pytest.mark.parametrize(
        ("resolution_m", "crs"),
        [(each, "EPSG:32614") for each in (10, 20, 30, 40, 60, 100, 300, 45, 16, 22, 28, 33)]
        + [(30, "EPSG:32615"), (30, "EPSG:5070")],
    )
    def test_no_source_pixel_is_missed(self, tmp_path: Path, resolution_m: float, crs: str) -> None:
        """Cells that overlap a cloudy pixel, by their polygons."""
        classes = np.random.default_rng(3).choice([4, 9], p=[0.995, 0.005], size=(300, 300)).astype("uint8")
        item = scene(tmp_path, blue=ramp(600, 10), scl=classes)
        cube = s2cube.open_cube(
            [item], rectangle(600, -2400, 2400, -600), bands=["blue"], resolution=resolution_m, crs=crs
        )
        # What the polygon cuts off is masked with it.
        plain = s2cube.open_cube(
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

    def test_steps_divide_the_classification(self) -> None:
        for resolution_m, steps in ((10, 1), (20, 1), (30, 3), (40, 2), (60, 3), (100, 5), (300, 15), (45, 5), (50, 5)):
            grid = GeoBox.from_bbox((0, 0, 900, 900), "EPSG:32614", resolution=resolution_m)
            assert steps_per_cell(grid) == steps, resolution_m
