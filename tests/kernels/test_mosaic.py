"""Granules of one day become one image: seams, overlaps, zones, order; ramps tell what every cell must hold."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geom import box
from pyproj import Transformer
from rasterio.enums import Resampling

from s2cube.area.aoi import AOI
from s2cube.kernels.mask import final_qa
from s2cube.sentinel2 import QA
from support.scenes import CLEAR, LEFT_M, TOP_M, open_int16, ramp, rectangle, scene, write_band


def at_centres(cube: xr.DataArray, east: float = 0.5, south: float = 0.25) -> np.ndarray:
    """What `ramp` has at the centre of each cell, which is its mean over the cell."""
    return 1000 + east * (cube.x.values[np.newaxis, :] - LEFT_M) + south * (TOP_M - cube.y.values[:, np.newaxis])


def halves(folder: Path, left_to: int, right_from: int, scl: np.ndarray | None = None) -> list[pystac.Item]:
    """One ramp cut into two granules of 10 m pixels, which end and begin at these columns."""
    pixels, classes = ramp(600, 10), CLEAR if scl is None else scl
    made = []
    for second, (name, first, last) in enumerate((("west", 0, left_to), ("east", right_from, 600))):
        item = scene(folder, name, second, blue=pixels, scl=classes)
        for key, layer, size in (("blue", pixels, 10), ("scl", classes, 20)):
            part = layer[:, first * 10 // size : last * 10 // size]
            corner = rasterio.transform.from_origin(LEFT_M + 10 * first, TOP_M, size, size)
            write_band(Path(item.assets[key].href), part, size, transform=corner)
        made.append(item)
    return made


class TestSeam:
    """Two granules side by side: no line between them, and no cell but its mean."""

    @pytest.mark.parametrize("resolution_m", [30, 45, 60, 100, 300])
    @pytest.mark.parametrize(("left_to", "right_from"), [(300, 300), (306, 306), (330, 270), (302, 300)])
    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_ramp_goes_on(self, tmp_path: Path, resolution_m: float, left_to: int, right_from: int, mask: str) -> None:
        items = halves(tmp_path, left_to, right_from)
        aoi = rectangle(1500, -3000, 4500, -1500)
        cube = open_int16(items, aoi, bands=["blue"], resolution=resolution_m, mask=mask).compute()
        seen = cube.qa[0].values == QA.CLEAR
        np.testing.assert_array_equal(seen, cube.qa[0].values != QA.OUTSIDE)
        assert np.abs(cube[0, 0].values - at_centres(cube))[seen].max() <= 1

    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_each_side_has_its_own_offset(self, tmp_path: Path, mask: str) -> None:
        west, east = halves(tmp_path, 306, 306)
        east.properties["s2:processing_baseline"] = "05.10"
        pixels = ramp(600, 10)[:, 306:] + 1000
        corner = rasterio.transform.from_origin(LEFT_M + 3060, TOP_M, 10, 10)
        write_band(Path(east.assets["blue"].href), pixels, 10, transform=corner)
        aoi = rectangle(1500, -3000, 4500, -1500)
        cube = open_int16([west, east], aoi, bands=["blue"], resolution=100, mask=mask).compute()
        assert np.abs(cube[0, 0].values - at_centres(cube)).max() <= 1

    def test_a_seam_within_a_pixel_of_the_classification(self, tmp_path: Path) -> None:
        """Bands part at 3010 m, classes at 3020 m: each band pixel counts once, by its own area."""
        column = np.arange(600)
        one, other = np.where(column < 301, 1000, 0), np.where(column < 301, 0, 9000)
        classes = np.where(np.arange(300) < 151, 4, 0)
        items = [
            scene(
                tmp_path, name, number, blue=np.broadcast_to(pixels, (600, 600)).astype("uint16"),
                scl=np.broadcast_to(seen, (300, 300)).astype("uint8"),
            )
            for number, (name, pixels, seen) in enumerate((("a", one, classes), ("b", other, 4 - classes)))
        ]  # fmt: skip
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], resolution=100)
        assert (cube[0, 0, :, 15] == 0.1 * 1000 + 0.9 * 9000).all()

    def test_no_more_of_a_cell_than_the_classification_sees(self, tmp_path: Path) -> None:
        """The first band is whole, but a third of it is no data by its classes; there the second has the pixels."""
        classes = CLEAR.copy()
        classes[:, 2::3] = 0
        right = np.zeros((600, 600), "uint16")
        right[:, np.arange(600) % 6 >= 4] = 4000
        one = scene(tmp_path, "a", blue=np.full((600, 600), 1000, "uint16"), scl=classes)
        other = scene(tmp_path, "b", 10, blue=right, scl=(4 - classes).astype("uint8"))
        cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"], resolution=60)
        assert (cube.values == 2 / 3 * 1000 + 1 / 3 * 4000).all()

    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_a_gap_stays_a_gap(self, tmp_path: Path, mask: str) -> None:
        items = halves(tmp_path, 294, 306)
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], mask=mask).compute()
        want = np.full(cube.shape[-2:], QA.CLEAR, int)
        want[:, 48:52] = QA.NO_DATA
        np.testing.assert_array_equal(np.where(cube[0, 0] == -9999, QA.NO_DATA, QA.CLEAR), want)
        if mask == "scl":
            np.testing.assert_array_equal(cube.qa[0], want)

    def test_strips_of_a_datatake(self, tmp_path: Path) -> None:
        """Two products of one tile, each with no data beyond a slanting line that they share."""
        row, column = np.mgrid[:600, :600]
        first = column * 10 + 0.3 * row * 10 < 3500
        fine = np.mgrid[:300, :300]
        classes_first = fine[1] * 20 + 0.3 * fine[0] * 20 < 3500
        pixels = ramp(600, 10)
        one = scene(tmp_path, "a", blue=np.where(first, pixels, 0), scl=np.where(classes_first, 4, 0).astype("uint8"))
        other = scene(
            tmp_path, "b", 9, blue=np.where(first, 0, pixels), scl=np.where(classes_first, 0, 4).astype("uint8")
        )
        for mask in ("scl", "none"):
            cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"], mask=mask)
            values = cube[0, 0].values
            assert (values != -9999).all()
            # In a cell that is cut obliquely each pixel counts once. The classification is coarser than the band: where
            # it says no data of a pixel that is there, the mean lacks it, which a column of pixels bounds.
            assert np.abs(values - at_centres(cube)).max() <= (1 if mask == "none" else 5)

    @pytest.mark.parametrize("cut", [302, 304, 306])
    @pytest.mark.parametrize("resolution_m", [60, 100, 300])
    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_strips_in_the_overlap_of_two_tiles(self, tmp_path: Path, cut: int, resolution_m: float, mask: str) -> None:
        """Each strip is shown by two tiles: what both show of a cell is one ground, not two parts."""
        items = []
        for tile in ("one", "two"):
            (tmp_path / tile).mkdir()
            items += halves(tmp_path / tile, cut, cut)
        for number, item in enumerate(items):
            item.id = f"scene-{number}"
        cube = open_int16(
            items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], resolution=resolution_m, mask=mask
        ).compute()
        assert np.abs(cube[0, 0].values - at_centres(cube)).max() <= 1

    def test_the_edge_of_the_swath_is_masked_however_often_it_is_seen(self, tmp_path: Path) -> None:
        """Two granules that overlap both end with the swath: twice a part of a cell is no whole."""
        pixels, classes = ramp(600, 10), CLEAR.copy()
        pixels[:, 301:], classes[:, 151:] = 0, 0
        items = [scene(tmp_path, name, number, blue=pixels, scl=classes) for number, name in enumerate("ab")]
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"]).compute()
        np.testing.assert_array_equal(cube[0, 0] != -9999, np.broadcast_to(np.arange(100) < 50, (50, 100)))

    def test_cloud_in_a_part_of_a_cell(self, tmp_path: Path) -> None:
        """Of a cell that lies on the seam half is clouded: what the other granule sees of it is not enough."""
        items = halves(tmp_path, 300, 300)
        cloudy = CLEAR[:, :150].copy()
        cloudy[75, 149] = 9
        write_band(Path(items[0].assets["scl"].href), cloudy, 20)
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], resolution=100).compute()
        assert cube.x.values[15] == LEFT_M + 3050
        assert cube.qa[0, 0, 14] == QA.CLOUD
        assert (cube.qa[0] == QA.CLOUD).sum() == 1

    def test_cloud_on_one_side_of_a_cut_cell(self, tmp_path: Path) -> None:
        items = halves(tmp_path, 306, 306)
        cloudy = CLEAR[:, :153].copy()
        cloudy[75, 152] = 9
        write_band(Path(items[0].assets["scl"].href), cloudy, 20)
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], resolution=100).compute()
        assert cube.qa[0, 0, 15] == QA.CLOUD
        assert cube[0, 0, 0, 15] == -9999
        assert (cube[0, 0] == -9999).sum() == 1

    def test_cloud_that_only_one_granule_shows(self, tmp_path: Path) -> None:
        """What is left of the clouded granule in a cell is not used, though the other shows the clouded part clear."""
        items = halves(tmp_path, 306, 304)
        cloudy = CLEAR[:, :153].copy()
        cloudy[75, 152] = 9
        write_band(Path(items[0].assets["scl"].href), cloudy, 20)
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], resolution=100).compute()
        assert cube.qa[0, 0, 15] == QA.CLOUD
        assert (cube[0, 0] == -9999).sum() == 1


class TestOverlap:
    def test_first_valid_pixel_wins_in_a_fixed_order(self, tmp_path: Path) -> None:
        left = np.full((600, 600), 1000, "uint16")
        left[:, 330:] = 0
        right = np.full((600, 600), 2000, "uint16")
        right[:, :270] = 0
        clouds = CLEAR.copy()
        clouds[:, :15] = 9
        one = scene(tmp_path, "a", blue=left, scl=clouds)
        other = scene(tmp_path, "b", 10, blue=right, scl=CLEAR)
        aoi = rectangle(0, -6000, 6000, 0)
        cube = open_int16([one, other], aoi, bands=["blue"])
        want = np.full((200, 200), -9999)
        want[:, 10:110] = 1000
        want[:, 110:] = 2000
        np.testing.assert_array_equal(cube[0, 0].values, want)
        np.testing.assert_array_equal(open_int16([other, one], aoi, bands=["blue"]).values, cube.values)

    def test_each_scene_has_its_own_offset(self, tmp_path: Path) -> None:
        old = np.full((600, 600), 1500, "uint16")
        old[:, 300:] = 0
        one = scene(tmp_path, "a", blue=old, scl=CLEAR)
        other = scene(tmp_path, "b", blue=np.full((600, 600), 2500, "uint16"), scl=CLEAR)
        other.properties["s2:processing_baseline"] = "05.10"
        cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"])
        assert (cube.values == 1500).all()

    def test_no_doubled_average(self, tmp_path: Path) -> None:
        """Where two granules see a cell whole, one of them gives its value."""
        one = scene(tmp_path, "a", blue=np.full((600, 600), 1000, "uint16"), scl=CLEAR)
        other = scene(tmp_path, "b", 10, blue=np.full((600, 600), 2000, "uint16"), scl=CLEAR)
        cube = open_int16([other, one], rectangle(0, -6000, 6000, 0), bands=["blue"])
        assert (cube.values == 1000).all()

    def test_whole_wins_over_a_part(self, tmp_path: Path) -> None:
        """The first granule ends within a cell that the second sees whole."""
        left = np.full((600, 600), 1000, "uint16")
        left[:, 301:] = 0
        one = scene(tmp_path, "a", blue=left)
        other = scene(tmp_path, "b", 10, blue=np.full((600, 600), 2000, "uint16"))
        cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"], mask="none")
        assert (cube[0, 0, :, :100] == 1000).all()
        assert (cube[0, 0, :, 100:] == 2000).all()

    def test_what_the_classification_calls_no_data_gives_no_pixel(self, tmp_path: Path) -> None:
        """Though the band holds numbers there: the other scene sees it clear."""
        half = CLEAR.copy()
        half[:, 150:] = 0
        one = scene(tmp_path, "a", blue=np.full((600, 600), 9000, "uint16"), scl=half)
        other = scene(tmp_path, "b", 10, blue=np.full((600, 600), 2000, "uint16"), scl=CLEAR)
        cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"])
        assert (cube[0, 0, :, :100] == 9000).all()
        assert (cube[0, 0, :, 100:] == 2000).all()

    def test_a_cloud_reaches_over_the_seam(self, tmp_path: Path) -> None:
        """Each granule knows its own clouds; what lies nearer than the dilation is masked on either side."""
        cloudy = CLEAR.copy()
        cloudy[:, 148:150] = 9  # 2960 to 3000 m, where the western granule ends
        items = halves(tmp_path, 300, 300, cloudy)
        cube = open_int16(items, rectangle(1500, -3000, 4500, -1500), bands=["blue"], dilation=95).compute()
        masked = np.flatnonzero((cube[0, 0] == -9999).all("y"))
        # Cells 2940 to 3090 m are clouded or nearer than 95 m; that is from 2865 m on, and to 3095 m.
        assert list(cube.x.values[masked] - LEFT_M - 15) == list(range(2850, 3091, 30))
        assert (cube[0, 0] == -9999).sum() == 50 * len(masked)

    def test_no_data_that_a_mask_does_not_tell(self, tmp_path: Path) -> None:
        """By probability alone, a scene without data counts as cloudless: why the pixel is missing is still told."""
        half = np.full((600, 600), 1000, "uint16")
        half[:, 300:] = 0
        probability = np.zeros((300, 300), "uint8")
        probability[:, 225:] = 90
        nothing = np.zeros((300, 300), "uint8")
        one = scene(tmp_path, "a", blue=half, scl=CLEAR, cloud=nothing)
        other = scene(tmp_path, "b", 10, blue=np.full((600, 600), 2000, "uint16"), scl=CLEAR, cloud=probability)
        aoi = rectangle(0, -6000, 6000, 0)
        (image,) = open_int16([one, other], aoi, bands=["blue"], mask="cloud").compute()
        want = np.repeat([1000, 2000, -9999], [100, 50, 50])
        np.testing.assert_array_equal(image[0], np.broadcast_to(want, (200, 200)))
        reasons = np.repeat([QA.CLEAR, QA.CLEAR, QA.CLOUD], [100, 50, 50])
        np.testing.assert_array_equal(
            final_qa((image == -9999).any("band").values, image.qa.values), np.broadcast_to(reasons, (200, 200))
        )

    def test_a_cell_under_cloud_is_not_told_by_its_rim(self, tmp_path: Path) -> None:
        """By probability alone: the western granule holds a fifth of a cell, the eastern one sees it under cloud."""
        items = halves(tmp_path, 302, 300)
        for item, first, last, percent in ((items[0], 0, 151, 0), (items[1], 150, 300, 90)):
            path = tmp_path / f"{item.id}_cloud.tif"
            corner = rasterio.transform.from_origin(LEFT_M + 20 * first, TOP_M, 20, 20)
            write_band(path, np.full((300, last - first), percent, "uint8"), 20, transform=corner)
            item.add_asset("cloud", pystac.Asset(str(path)))
        aoi = rectangle(1500, -3000, 4500, -1500)
        (image,) = open_int16(items, aoi, bands=["blue"], resolution=100, mask="cloud").compute()
        assert (image[0, :, :15] != -9999).all()
        assert (image[0, :, 15:] == -9999).all()
        assert (final_qa((image == -9999).any("band").values, image.qa.values)[:, 15:] == QA.CLOUD).all()

    def test_the_same_part_twice_is_taken_once(self, tmp_path: Path) -> None:
        """At the edge of a swath that two granules show, and no mask: the first gives what there is."""
        part = np.full((600, 600), 1000, "uint16")
        part[:, 302:] = 0
        one = scene(tmp_path, "a", blue=part)
        other = scene(tmp_path, "b", 10, blue=2 * part)
        cube = open_int16([one, other], rectangle(0, -6000, 6000, 0), bands=["blue"], mask="none")
        assert (cube[0, 0, :, :101] == 1000).all()
        assert (cube[0, 0, :, 101:] == -9999).all()

    @pytest.mark.slow
    @settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 10_000))
    def test_the_order_of_the_answer_does_not_matter(self, tmp_path: Path, seed: int) -> None:
        random = np.random.default_rng(seed)
        items = []
        for number in range(3):
            pixels = random.integers(1, 5000, (60, 60)).astype("uint16")
            pixels[random.random((60, 60)) < 0.3] = 0
            classes = random.choice([4, 4, 4, 4, 9, 0], size=(30, 30)).astype("uint8")
            item = scene(tmp_path, f"{seed}-{number}", number % 2, blue=pixels, scl=classes)
            item.properties["s2:processing_baseline"] = random.choice(["02.14", "04.00"])
            items.append(item)
        aoi = rectangle(0, -600, 600, 0)
        one, *others = (
            open_int16(list(each), aoi, bands=["blue"], resolution=45).compute() for each in permutations(items)
        )
        for other in others:
            assert other.values.tobytes() == one.values.tobytes()
            assert other.qa.values.tobytes() == one.qa.values.tobytes()
            assert list(other.scenes.values) == list(one.scenes.values)


class TestZones:
    """An AOI over two UTM zones: granules of both, in the grid of one."""

    @pytest.fixture
    def items(self, tmp_path: Path) -> list[pystac.Item]:
        """At 96° west, the border of zones 14 and 15; one smooth field of values that both granules sample."""
        made = []
        for second, (name, epsg) in enumerate((("east", 32615), ("west", 32614))):
            to_zone = Transformer.from_crs(4326, epsg, always_xy=True)
            x, y = to_zone.transform(-96.0, 41.0)
            left, top = round(x / 60) * 60 - 3000, round(y / 60) * 60 + 3000
            columns, rows = np.meshgrid(left + 10 * np.arange(600) + 5, top - 10 * np.arange(600) - 5)
            lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(columns, rows)
            pixels = self.field(lon, lat)
            classes = np.full((300, 300), 4, "uint8")
            if name == "west":
                pixels[:, 330:], classes[:, 165:] = 0, 0
            else:
                pixels[:, :270], classes[:, :135] = 0, 0
            item = scene(tmp_path, name, second, blue=pixels, scl=classes)
            item.properties["proj:epsg"] = epsg
            item.geometry = box(left, top - 6000, left + 6000, top, f"EPSG:{epsg}").to_crs("EPSG:4326").json
            for key, layer, size in (("blue", pixels, 10), ("scl", classes, 20)):
                corner = rasterio.transform.from_origin(left, top, size, size)
                write_band(Path(item.assets[key].href), layer, size, transform=corner, crs=epsg)
            made.append(item)
        return made

    @staticmethod
    def field(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        return np.round(3000 + 40_000 * (lon + 96) + 30_000 * (lat - 41)).astype("uint16")

    @pytest.fixture
    def aoi(self) -> AOI:
        return AOI("border", box(-96.015, 40.99, -95.985, 41.01, "EPSG:4326"))

    @pytest.mark.parametrize("crs", ["auto", "EPSG:32614", "EPSG:32615", "EPSG:5070"])
    @pytest.mark.parametrize("mask", ["scl", "none"])
    def test_one_field_without_a_seam(self, items: list[pystac.Item], aoi: AOI, crs: str, mask: str) -> None:
        cube = open_int16(items, aoi, bands=["blue"], crs=crs, mask=mask).compute()
        inside = cube.qa[0].values != QA.OUTSIDE
        x, y = np.meshgrid(cube.x.values, cube.y.values)
        lon, lat = Transformer.from_crs(str(cube.odc.geobox.crs), 4326, always_xy=True).transform(x, y)
        off = np.abs(cube[0, 0].values - self.field(lon, lat).astype(int))[inside]
        assert (cube[0, 0].values[inside] != -9999).all()
        # 10 m are 5 DN here: a warp that is half a pixel off would show.
        assert off.max() <= 2
        assert set(cube.scenes.item().splitlines()) == {"east", "west"}

    def test_what_needs_no_warp_comes_first(self, items: list[pystac.Item], aoi: AOI) -> None:
        for crs, first in (("EPSG:32614", "west"), ("EPSG:32615", "east")):
            cube = open_int16(items, aoi, bands=["blue"], crs=crs)
            assert cube.scenes.item().splitlines()[0] == first
            # Whichever fills the mosaic first, the slice has the time of its earliest scene.
            assert cube.time.values[0] == np.datetime64("2020-07-01T17:00:00")

    def test_warped_cells_are_gdals(self, items: list[pystac.Item], aoi: AOI) -> None:
        (west,) = (item for item in items if item.id == "west")
        cube = open_int16([west], aoi, bands=["blue"], crs="EPSG:32615", mask="none").compute()
        want = np.zeros(cube.shape[-2:], "float32")
        with rasterio.open(west.assets["blue"].href) as source:
            rasterio.warp.reproject(
                rasterio.band(source, 1), want, dst_transform=cube.rio.transform(), dst_crs="EPSG:32615",
                resampling=Resampling.average, dst_nodata=0,
            )  # fmt: skip
        got = cube[0, 0].values
        judged = (got != -9999) & (want > 0)
        assert judged.sum() > 2000
        assert np.abs(got - want)[judged].max() <= 1
