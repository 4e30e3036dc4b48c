"""Where items say that files lie: what real catalogues say is borne with, what is wrong fails by name."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import antimeridian
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geom import box
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import from_origin

import s2cube
from s2cube.demo.archive import PASSES
from s2cube.errors import SceneError
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import placement
from support.runs import CommandLine, EditItems, Job, of_day
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, ramp, rectangle, scene, write_band

SIDE_M = 109_800
TRANSFORM = [10, 0, LEFT_M, 0, -10, TOP_M]
WHOLE = box(LEFT_M, TOP_M - SIDE_M, LEFT_M + SIDE_M, TOP_M, f"EPSG:{EPSG}")


def file(
    east_m: float = 0, north_m: float = 0, pixel_m: float = 10, side_m: float = SIDE_M, epsg: int = EPSG
) -> Lattice:
    """A square file, from the corner of the granule."""
    side = round(side_m / pixel_m)
    return Lattice(CRS.from_epsg(EPSG), from_origin(LEFT_M + east_m, TOP_M + north_m, pixel_m, pixel_m), side, side)


def item(
    asset: dict[str, Any] | None = None, of_item: dict[str, Any] | None = None, geometry: Any = None
) -> pystac.Item:
    return pystac.Item.from_dict(
        {
            "type": "Feature", "stac_version": "1.0.0", "id": "S2X", "links": [], "bbox": [0, 0, 1, 1],
            "geometry": geometry, "assets": {"blue": {"href": "b.tif", **(asset or {})}},
            "properties": {"datetime": "2020-07-01T17:00:00Z", **(of_item or {})},
        }
    )  # fmt: skip


BBOX = [LEFT_M, TOP_M - SIDE_M, LEFT_M + SIDE_M, TOP_M]
MEMBERS: dict[str, dict[str, Any]] = {
    "proj:transform": {"proj:transform": TRANSFORM, "proj:shape": [10980, 10980]},
    "proj:transform, nine numbers": {"proj:transform": [*TRANSFORM, 0, 0, 1], "proj:shape": [10980, 10980]},
    "proj:transform without shape": {"proj:transform": TRANSFORM},
    "proj:bbox": {"proj:bbox": BBOX},
    "proj:bbox, three dimensions": {"proj:bbox": [*BBOX[:2], 0, *BBOX[2:], 100]},
}


class TestWhatItSays:
    @pytest.mark.parametrize("member", MEMBERS)
    @pytest.mark.parametrize("where", ["asset", "item"])
    @pytest.mark.parametrize(("east", "north"), [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1)])
    def test_more_than_a_pixel_apart(self, member: str, where: str, east: int, north: int) -> None:
        fields = MEMBERS[member]
        said = placement(item(fields) if where == "asset" else item(of_item=fields), "blue")
        for apart_m in (0, 5, 10):
            said.check("b.tif", file(east * apart_m, north * apart_m))
        for apart_m, words in ((11, "11 m apart"), (600, "600 m apart"), (50_000, "50,000 m apart")):
            with pytest.raises(SceneError) as caught:
                said.check("b.tif", file(east * apart_m, north * apart_m))
            assert caught.value.subject == "b.tif"
            assert caught.value.asset == "blue"
            text = str(caught.value)
            assert "its item S2X, asset blue, declares (600000, " in text
            assert f"({member.partition(',')[0].partition(' ')[0]}): {words}" in text
            assert f"is located at ({LEFT_M + east * apart_m}, " in text

    def test_of_the_asset_goes_before_that_of_the_item(self) -> None:
        elsewhere = {"proj:transform": [10, 0, 0, 0, -10, 0], "proj:shape": [10980, 10980]}
        placement(item(MEMBERS["proj:transform"], elsewhere), "blue").check("b.tif", file())
        with pytest.raises(SceneError, match="proj:transform"):
            placement(item(elsewhere, MEMBERS["proj:transform"]), "blue").check("b.tif", file())

    @pytest.mark.parametrize(("item_m", "file_m"), [(60, 10), (10, 60), (10, 320)])
    def test_the_coarser_pixel_counts(self, item_m: float, file_m: float) -> None:
        side = round(SIDE_M / item_m)
        fields = {"proj:transform": [item_m, 0, LEFT_M, 0, -item_m, TOP_M], "proj:shape": [side, side]}
        said, coarser = placement(item(fields), "blue"), max(item_m, file_m)
        # A file in larger pixels reaches a little beyond.
        more_m = file(pixel_m=file_m).width * file_m - SIDE_M
        said.check("b.tif", file(coarser - max(more_m, 0), pixel_m=file_m))
        with pytest.raises(SceneError, match="m apart"):
            said.check("b.tif", file(coarser + abs(more_m) + 1, pixel_m=file_m))

    @pytest.mark.parametrize("factor", [2, 3, 4, 7, 8, 10, 16, 32])
    @pytest.mark.parametrize("whole", [math.floor, math.ceil])
    def test_decimated_files_are_borne_with(self, factor: int, whole: Any) -> None:
        """Their extent may differ by what is less than a pixel of theirs."""
        said = placement(
            item({**MEMBERS["proj:transform"], "proj:bbox": BBOX}, geometry=WHOLE.to_crs(4326).json), "blue"
        )
        side = whole(10980 / factor)
        for pixel_m in (10 * factor, SIDE_M / side):
            small = Lattice(CRS.from_epsg(EPSG), from_origin(LEFT_M, TOP_M, pixel_m, pixel_m), side, side)
            said.check("b.tif", small)

    def test_parts_of_files_are_borne_with(self) -> None:
        fields = {**MEMBERS["proj:transform"], "proj:bbox": BBOX}
        said = placement(item(fields, geometry=WHOLE.to_crs(4326).json), "blue")
        for east, south in ((0, 0), (30_000, 70_000), (100_000, 0)):
            said.check("b.tif", file(east, -south, side_m=9_800))
        with pytest.raises(SceneError, match="600 m apart"):
            said.check("b.tif", file(100_600, side_m=9_800))
        # Where the footprint ends, parts may lie across its edge, and beyond it if the item tells of the whole.
        west = box(LEFT_M, TOP_M - SIDE_M, LEFT_M + 40_000, TOP_M, f"EPSG:{EPSG}").to_crs(4326).json
        placement(item(geometry=west), "blue").check("b.tif", file(36_000, -20_000, side_m=9_800))
        placement(item(fields, geometry=west), "blue").check("b.tif", file(80_000, -20_000, side_m=9_800))
        with pytest.raises(SceneError, match=r"\(geometry\)"):
            placement(item(geometry=west), "blue").check("b.tif", file(80_000, -20_000, side_m=9_800))
        # An item of a part, with the whole file.
        part = {"proj:transform": [10, 0, LEFT_M + 9000, 0, -10, TOP_M - 9000], "proj:shape": [500, 500]}
        placement(item(part), "blue").check("b.tif", file())

    def test_all_that_it_says_must_fit(self) -> None:
        away = {"proj:bbox": [LEFT_M + 600, TOP_M - SIDE_M, LEFT_M + 600 + SIDE_M, TOP_M]}
        with pytest.raises(SceneError, match=r"\(proj:bbox\): 600 m apart"):
            placement(item(MEMBERS["proj:transform"] | away), "blue").check("b.tif", file())

    def test_a_file_in_degrees(self) -> None:
        said = placement(item({"proj:bbox": [10, 40, 11, 41]}), "blue")
        degrees = Lattice(CRS.from_epsg(4326), from_origin(10, 41, 0.001, 0.001), 1000, 1000)
        said.check("b.tif", degrees)
        with pytest.raises(SceneError, match=r"declares \(10, 40, 11, 41\) \(proj:bbox\): 0.5 degrees apart"):
            said.check("b.tif", Lattice(degrees.crs, from_origin(10.5, 41, 0.001, 0.001), 1000, 1000))

    def test_a_crs_that_is_none(self) -> None:
        with pytest.raises(SceneError, match='S2X: has proj:code "EPSG:None", which is not an EPSG code'):
            placement(item(of_item={"proj:code": "EPSG:None"}), "blue").check("b.tif", file())
        with pytest.raises(SceneError, match="S2X: declares EPSG:99999, which is not a CRS"):
            placement(item(of_item={"proj:code": "EPSG:99999"}), "blue").check("b.tif", file())


class TestFootprint:
    def outlines(self) -> Iterator[Any]:
        """As catalogues draw a granule: by its corners, by many points, by its box, by what was seen of it, roughly."""
        whole = WHOLE.to_crs(4326).geom
        yield whole
        yield WHOLE.to_crs(4326, resolution=1000).geom
        yield whole.envelope
        yield shapely.MultiPolygon([whole])
        yield whole.buffer(0.0005)
        yield shapely.set_precision(whole, 0.001)
        yield shapely.set_precision(whole, 0.01)
        yield shapely.box(-180, -90, 180, 90)
        half = box(LEFT_M, TOP_M - SIDE_M, LEFT_M + 40_000, TOP_M - 30_000, f"EPSG:{EPSG}")
        yield half.to_crs(4326).geom

    def test_any_of_the_granule_is_borne_with(self) -> None:
        for outline in self.outlines():
            said = placement(item(geometry=shapely.geometry.mapping(outline)), "blue")
            said.check("b.tif", file())
            said.check("b.tif", file(pixel_m=320))

    @pytest.mark.parametrize("apart_m", [600, 50_000, 3_000_000])
    @pytest.mark.parametrize(("east", "north"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
    def test_elsewhere(self, apart_m: int, east: int, north: int) -> None:
        for outline in (WHOLE.to_crs(4326), WHOLE.to_crs(4326, resolution=1000)):
            said = placement(item(geometry=outline.json), "blue")
            with pytest.raises(
                SceneError, match=r"\) degrees, but its item S2X, asset blue, declares .*\(geometry\)"
            ) as caught:
                said.check("b.tif", file(east * apart_m, north * apart_m))
            told_m = float(str(caught.value).partition("(geometry): ")[2].partition(" m apart")[0].replace(",", ""))
            # In degrees, and to the nearest edge.
            assert abs(told_m - apart_m) < 0.05 * apart_m + 20 or apart_m > 1_000_000

    def test_of_a_part_that_was_seen(self) -> None:
        """It tells of less, but not of nothing."""
        west = box(LEFT_M, TOP_M - SIDE_M, LEFT_M + 40_000, TOP_M, f"EPSG:{EPSG}").to_crs(4326)
        said = placement(item(geometry=west.json), "blue")
        with pytest.raises(SceneError, match=r"\(geometry\): \d+ m apart"):
            said.check("b.tif", file(600))

    @pytest.mark.parametrize("epsg", [32660, 32601, 32760, 32701])
    @pytest.mark.parametrize("lat", [-17, 52, 66])
    @pytest.mark.parametrize("drawn", ["beyond 180", "jumping", "split", "below -180"])
    def test_over_the_antimeridian(self, epsg: int, lat: float, drawn: str) -> None:
        """A granule that begins a third of its side from it, in a zone of either side."""
        if (epsg // 100 == 327) != (lat < 0):
            lat = -lat
        to_zone = Transformer.from_crs(4326, epsg, always_xy=True)
        x, y = to_zone.transform(180, lat)
        lattice = Lattice(CRS.from_epsg(epsg), from_origin(x - SIDE_M / 3, y, 10, 10), 10980, 10980)
        corners = [lattice.transform @ each for each in ((0, 0), (10980, 0), (10980, 10980), (0, 10980))]
        lonlat = [Transformer.from_crs(epsg, 4326, always_xy=True).transform(*each) for each in corners]
        outline = shapely.Polygon([(lon % 360, lat) for lon, lat in lonlat])
        if drawn == "jumping":
            outline = shapely.Polygon([((lon + 180) % 360 - 180, lat) for lon, lat in lonlat])
        elif drawn == "split":
            outline = antimeridian.fix_polygon(outline, fix_winding=True, great_circle=False)
        elif drawn == "below -180":
            outline = shapely.affinity.translate(outline, -360)
        said = placement(item(geometry=shapely.geometry.mapping(outline)), "blue")
        said.check("b.tif", lattice)
        for east_m, north_m in ((600, 0), (-600, 0), (0, 600), (0, -600), (50_000, 0), (-50_000, 0)):
            moved = from_origin(x - SIDE_M / 3 + east_m, y + north_m, 10, 10)
            with pytest.raises(SceneError, match=r"\(geometry\)"):
                said.check("b.tif", Lattice(lattice.crs, moved, 10980, 10980))


JUNK = [
    None, "", "x", "10", 5, True, [], {}, ["10", "0", "600600", "0", "-10", "4500000"], [None] * 6, [math.nan] * 6,
    [math.inf] * 6, [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0], [0, 0, 0, 0, 0, 0], [10, 0, 1e300, 0, -10, -1e300],
    [True] * 6, [[10, 0], [0, 10]], [10, 0, 600600], {"0": 1}, [10**400] * 6,
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([10, -10, 4.5e6]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(["type", "coordinates"]), inner),
    max_leaves=20,
)


class TestJunk:
    @pytest.mark.parametrize("member", ["proj:transform", "proj:shape", "proj:bbox"])
    @pytest.mark.parametrize("junk", JUNK, ids=repr)
    def test_what_is_no_number_says_nothing(self, member: str, junk: Any) -> None:
        fields = {"proj:transform": TRANSFORM, "proj:shape": [10980, 10980], member: junk}
        for each in (item(fields), item(of_item=fields)):
            placement(each, "blue").check("b.tif", file())

    @pytest.mark.parametrize("shape", [[0, 0], [-5, 5], [10980], ["10980", 10980]])
    def test_without_a_shape_the_corner_counts(self, shape: Any) -> None:
        said = placement(item({"proj:transform": TRANSFORM, "proj:shape": shape}), "blue")
        said.check("b.tif", file())
        with pytest.raises(SceneError, match="600 m apart"):
            said.check("b.tif", file(600))

    @pytest.mark.parametrize(
        "geometry",
        [
            None, {}, {"type": "Polygon"}, {"coordinates": []}, {"type": "Polygon", "coordinates": None},
            {"type": "Polygon", "coordinates": [[]]}, {"type": "Polygon", "coordinates": [[[None, 4], [5, 6]]]},
            {"type": "Polygon", "coordinates": [[[math.nan, 4], [5, 6]]]},
            {"type": "Polygon", "coordinates": [[["1", "2"], [5, 6]]]},
            {"type": "Polygon", "coordinates": [[[600000, 4500000], [700000, 4500000]]]},
            {"type": "GeometryCollection", "geometries": []}, [], "x", 5,
        ],
    )  # fmt: skip
    def test_no_geometry_says_nothing(self, geometry: Any) -> None:
        strange = item()
        strange.geometry = geometry
        placement(strange, "blue").check("b.tif", file())

    @given(st.dictionaries(st.sampled_from(["proj:transform", "proj:shape", "proj:bbox"]), JSON), JSON, st.booleans())
    def test_nothing_else_goes_wrong(self, fields: dict[str, Any], geometry: Any, of_asset: bool) -> None:
        strange = item(fields) if of_asset else item(of_item=fields)
        strange.geometry = geometry
        said = placement(strange, "blue")
        with contextlib.suppress(SceneError):
            said.check("b.tif", file())


class TestRealItems:
    """Of each the file as it would be by its own item."""

    @pytest.fixture
    def items(self, real: Path) -> list[pystac.Item]:
        found = []
        for path in sorted([*real.rglob("*.json"), *real.rglob("*.geojson")]):
            content = json.loads(path.read_text())
            if isinstance(content, dict):
                features = [content] if content.get("type") == "Feature" else content.get("features") or []
                found += [pystac.Item.from_dict(each, migrate=False) for each in features]
        assert len(found) > 30
        return found

    @staticmethod
    def files(of: pystac.Item) -> Iterator[tuple[str, Lattice]]:
        for key, asset in of.assets.items():
            fields = of.properties | asset.extra_fields
            if "proj:transform" in asset.extra_fields and "data" in (asset.roles or ["data"]):
                crs = CRS.from_user_input(fields.get("proj:code") or fields["proj:epsg"])
                yield key, Lattice(crs, rasterio.Affine(*fields["proj:transform"][:6]), *fields["proj:shape"])

    def test_no_real_item_is_refused(self, items: list[pystac.Item]) -> None:
        count = 0
        for each in items:
            for key, lattice in self.files(each):
                said, whole = placement(each, key), lattice.transform
                assert said.footprint_lonlat
                said.check(key, lattice)
                # As test archives keep them: decimated, or a part.
                rows, columns = math.ceil(lattice.height / 16), math.ceil(lattice.width / 16)
                said.check(key, Lattice(lattice.crs, whole @ rasterio.Affine.scale(16), rows, columns))
                said.check(key, Lattice(lattice.crs, whole @ rasterio.Affine.translation(500, 700), 512, 512))
                count += 1
        assert count > 400

    def test_the_same_file_600_m_off_is(self, items: list[pystac.Item]) -> None:
        by_footprint = 0
        for each in items:
            key, lattice = next(self.files(each))
            said = placement(each, key)
            without = each.clone()
            for name in ("proj:transform", "proj:bbox"):
                without.assets[key].extra_fields.pop(name, None)
            for east, north in ((600, 0), (-600, 0), (0, 600), (0, -600)):
                moved = rasterio.Affine.translation(east, north) @ lattice.transform
                off = Lattice(lattice.crs, moved, lattice.height, lattice.width)
                with pytest.raises(SceneError, match="600 m apart"):
                    said.check(key, off)
                with contextlib.suppress(SceneError):
                    placement(without, key).check(key, off)
                    continue
                by_footprint += 1
        # Those that are seen to all edges say so by their footprint alone.
        assert by_footprint > 2 * len(items)

    def test_of_a_decimated_granule_every_file_fits(self, real: Path) -> None:
        folder = real / "rasters" / "es_29RKH_20200219"
        item = pystac.Item.from_file(str(folder / "S2A_29RKH_20200219_0_L2A.json"))
        keys = {Path(asset.href).name: key for key, asset in item.assets.items()}
        paths = [path for path in folder.glob("*.tif") if path.name in keys]
        assert len(paths) == 13
        for path in paths:
            with rasterio.open(path) as raster:
                placement(item, keys[path.name]).check(str(path), Lattice(raster.crs, raster.transform, *raster.shape))


class TestThroughTheCube:
    """Errors of 120 DN, and empty images, without a word: so it was."""

    def item(self, folder: Path, east_m: float, fields: dict[str, Any]) -> pystac.Item:
        """A file of 6 km that lies so far from where its item says."""
        made = scene(folder, blue=ramp(600, 10), scl=CLEAR)
        for key, pixels, pixel_m in (("blue", ramp(600, 10), 10), ("scl", CLEAR, 20)):
            corner = from_origin(LEFT_M + east_m, TOP_M, pixel_m, pixel_m)
            write_band(folder / f"scene_{key}.tif", pixels, pixel_m, transform=corner)
            made.assets[key].extra_fields |= fields
        return made

    @pytest.mark.slow
    @pytest.mark.parametrize("apart_m", [600, 50_000])
    @pytest.mark.parametrize("member", ["proj:transform", "proj:bbox", "geometry"])
    @pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:32615"])
    def test_a_file_elsewhere(self, tmp_path: Path, member: str, apart_m: int, crs: str) -> None:
        fields: dict[str, Any] = {
            "proj:transform": {"proj:transform": TRANSFORM, "proj:shape": [600, 600]},
            "proj:bbox": {"proj:bbox": [LEFT_M, TOP_M - 6000, LEFT_M + 6000, TOP_M]},
            "geometry": {},
        }[member]
        aoi = rectangle(1000, -5000, 5000, -1000)
        for mask, asset in (("none", "blue"), ("scl", "(blue|scl)")):
            cube = s2cube.open_cube([self.item(tmp_path, apart_m, fields)], aoi, bands=["blue"], mask=mask, crs=crs)
            declares = rf"its item scene, asset {asset}, declares .*\({member}\): [\d,]+ m apart"
            with pytest.raises(SceneError, match=rf"scene_{asset}\.tif: is located at .* {declares}"):
                cube.compute()
        cube = s2cube.open_cube([self.item(tmp_path, 0, fields)], aoi, bands=["blue"], crs=crs)
        assert (cube.values != -9999).mean() > 0.8

    def test_of_two_items_that_name_one_file(self, tmp_path: Path) -> None:
        right, wrong = self.item(tmp_path, 0, {}), self.item(tmp_path, 0, {"proj:transform": [10, 0, 0, 0, -10, 0]})
        wrong.id = "wrong"
        aoi = rectangle(1000, -5000, 5000, -1000)
        for items in ([right, wrong], [wrong, right]):
            with pytest.raises(SceneError, match="its item wrong, asset (blue|scl), declares"):
                s2cube.open_cube(items, aoi, bands=["blue"], group_by="scene").compute()

    @pytest.mark.parametrize("key", ["blue", "scl"])
    def test_fails_its_slice_by_name(self, s2cube_command: CommandLine, job: Job, edited: EditItems, key: str) -> None:
        def spoil(items: list[dict[str, Any]]) -> None:
            (item,) = (each for each in of_day(items, "20210724") if "14TNL" in each["id"])
            left, top = 562_020 + 600, 4_559_940
            item["assets"][key] |= {"proj:transform": [10, 0, left, 0, -10, top], "proj:shape": None}

        stac = edited(spoil)
        done = s2cube_command(*job("--bands", "blue", "--stac", stac))
        assert done.status == 3, done.err
        (failure,) = done.json["failed"]
        assert failure["slice"] == "corner_20210724"
        assert f"its item S2A_14TNL_20210724_0_L2A, asset {key}, declares" in failure["error"]
        assert "(proj:transform): " in failure["error"]
        assert len(done.json["written"]) == len(PASSES) - 1
        (kept,) = [json.loads(line) for line in (Path("out") / "failures.jsonl").read_text().splitlines()]
        assert kept["asset"] == key
        foreseen = s2cube_command(*job("--bands", "blue", "--stac", stac, "--headers", "--overwrite", command="plan"))
        assert f"asset {key}, declares" in foreseen.out + foreseen.err


def test_numbers_of_other_kinds_are_numbers() -> None:
    fields = {
        "proj:bbox": tuple(map(float, BBOX)),
        "proj:transform": [*map(float, TRANSFORM)],
        "proj:shape": (1e4, 1e4),
    }
    assert placement(item(fields), "blue").boxes == (
        ("proj:bbox", tuple(BBOX)),
        ("proj:transform", (LEFT_M, TOP_M - 1e5, LEFT_M + 1e5, TOP_M)),
    )
    assert np.isclose(placement(item(fields), "blue").pixel, 10)
