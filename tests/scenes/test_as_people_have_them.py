"""Areas and scenes as people have them in Python: what a search, a cube and a run take."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import shapely
import xarray as xr

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.errors import AOIError, ConfigError, SearchError
from s2cube.jobs import pipeline
from s2cube.jobs._overwrite import job_digest
from s2cube.stac.source import to_items
from support.runs import CommandLine, in_this_process

DAY = "2022-05-20"


@pytest.fixture
def farm(archive: Archive) -> AOI:
    return s2cube.read_aoi(archive.aoi)


@pytest.fixture
def halves(farm: AOI) -> tuple[shapely.Polygon, shapely.Polygon]:
    """The farm's box, cut in two. The first half is only in the first of the archive's two tiles of a day."""
    west, south, east, north = farm.bounds_lonlat
    middle = (west + east) / 2
    return shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)


@pytest.fixture
def items(archive: Archive, farm: AOI) -> list[pystac.Item]:
    return s2cube.search(farm, stac=archive.items, datetime=DAY)


class TestAreas:
    @pytest.mark.parametrize("kind", ["path", "text", "frame", "geometry", "geometry in metres", "box", "AOI"])
    def test_a_search(self, archive: Archive, farm: AOI, items: list[pystac.Item], kind: str) -> None:
        frame = geopandas.read_file(archive.aoi)
        areas: dict[str, tuple[Any, Any]] = {
            "path": (archive.aoi, None), "text": (str(archive.aoi), None), "frame": (frame, None),
            "geometry": (frame.geometry[0], None), "geometry in metres": (frame.to_crs(32614).geometry[0], 32614),
            "box": (farm.bounds_lonlat, None), "AOI": (farm, None),
        }  # fmt: skip
        area, crs = areas[kind]
        found = s2cube.search(area, crs=crs, stac=archive.items, datetime=date(2022, 5, 20))
        assert [item.id for item in found] == [item.id for item in items]

    def test_scenes_of_several_areas_are_found_once(
        self, archive: Archive, halves: tuple[shapely.Polygon, shapely.Polygon]
    ) -> None:
        def ids(area: Any, **criteria: Any) -> list[str]:
            return [item.id for item in s2cube.search(area, stac=archive.items, **criteria)]

        each = [ids(half) for half in halves]
        both = ids(list(halves))
        assert len(set(both)) == len(both) > 0
        assert set(both) == {*each[0], *each[1]}
        assert both == [scene for scene in ids(shapely.union_all(halves)) if scene in both]
        newest = [ids(half, max_items=1) for half in halves]
        assert set(ids(list(halves), max_items=1)) == {*newest[0], *newest[1]}

    def test_a_cube(self, archive: Archive, farm: AOI, items: list[pystac.Item]) -> None:
        of_aoi = s2cube.open_cube(items, farm, bands="red", resolution=60)
        of_path = s2cube.open_cube(items, archive.aoi, bands="red", resolution=60)
        xr.testing.assert_identical(of_aoi, of_path)
        metres = geopandas.read_file(archive.aoi).to_crs(32614).geometry[0]
        in_metres = s2cube.open_cube(items, metres, aoi_crs=32614, bands="red", resolution=60)
        assert in_metres.odc.geobox == of_aoi.odc.geobox
        with pytest.raises(AOIError, match="not degrees"):
            s2cube.open_cube(items, metres, crs=32614, bands="red")

    def test_several_areas_are_no_cube(
        self, items: list[pystac.Item], halves: tuple[shapely.Polygon, shapely.Polygon]
    ) -> None:
        with pytest.raises(AOIError, match="contains 2 features, not one: area_1, area_2. .* one at a time"):
            s2cube.open_cube(items, halves, bands="red")


class TestRun:
    @pytest.fixture
    def settings(self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(pipeline, "_compute", in_this_process)
        out = tmp_path / "out"
        return {"stac": archive.items, "datetime": DAY, "bands": "red", "resolution": 60, "out": out, "aoi": "no.gpkg"}

    def test_areas_of_python(
        self, settings: dict[str, Any], halves: tuple[shapely.Polygon, shapely.Polygon], tmp_path: Path
    ) -> None:
        frame = geopandas.GeoDataFrame({"id": ["w", "e"], "plot": ["p1", "p2"]}, geometry=list(halves), crs=4326)
        frame.to_file(tmp_path / "halves.gpkg")
        config = load_config(settings, {})
        summary = s2cube.run(config, aoi=frame)
        assert sorted(Path(path).name for path in summary.written) == ["e_20220520.tif", "w_20220520.tif"]
        assert s2cube.run(config, aoi=frame.to_crs(32614)).written == []
        again = s2cube.run(load_config(settings | {"aoi": str(tmp_path / "halves.gpkg")}, {}))
        assert (again.written, len(again.skipped)) == ([], 2)
        named = s2cube.run(load_config(settings | {"aoi_id": "plot"}, {}), aoi=frame.iloc[:1])
        assert [Path(path).name for path in named.written] == ["p1_20220520.tif"]
        utm = frame.to_crs(32614).geometry[0]
        assert len(s2cube.run(config, aoi=utm, crs="EPSG:32614").written) == 1
        with pytest.raises(AOIError, match="no.gpkg: there is no such file"):
            s2cube.run(config)

    def test_the_journal_of_an_overwrite_knows_the_areas(
        self, settings: dict[str, Any], halves: tuple[shapely.Polygon, shapely.Polygon]
    ) -> None:
        config = load_config(settings, {})
        west, east = (s2cube.AOI("half", half) for half in halves)
        other = load_config(settings | {"aoi": "other.gpkg", "out": "other"}, {})
        assert job_digest(config, [west]) == job_digest(other, [west])
        assert len({job_digest(config, areas) for areas in ([west], [east], [west, east], [])}) == 4
        assert job_digest(config, [west]) != job_digest(config, [s2cube.AOI("another", halves[0])])
        assert job_digest(config, [west]) != job_digest(load_config(settings | {"bands": "nir"}, {}), [west])

    def test_no_configuration(self) -> None:
        with pytest.raises(ConfigError, match="is a dict, not a JobConfig. Make one by s2cube.load_config"):
            s2cube.run({"bands": "red"})  # type: ignore[arg-type]


ITEMS: dict[str, Callable[[list[pystac.Item]], Any]] = {
    "tuple": tuple,
    "iterator": iter,
    "ItemCollection": pystac.ItemCollection,
    "dict of an ItemCollection": lambda items: pystac.ItemCollection(items).to_dict(),
    "dicts": lambda items: [item.to_dict() for item in items],
    "a dict and an Item": lambda items: [items[0].to_dict(), *items[1:]],
    "path": lambda items: saved(items, Path("scenes.json")),
    "text of a path": lambda items: str(saved(items, Path("scenes.geojson"))),
    "stac-geoparquet": lambda items: saved(iter(items), Path("scenes.parquet")),
}


def saved(items: Any, path: Path) -> Path:
    s2cube.save_items(items, path)
    return path


@pytest.mark.parametrize("kind", ITEMS)
def test_scenes(items: list[pystac.Item], archive: Archive, kind: str) -> None:
    given = ITEMS[kind](items)
    xr.testing.assert_equal(
        s2cube.open_cube(given, archive.aoi, bands="red", resolution=300).compute(),
        s2cube.open_cube(items, archive.aoi, bands="red", resolution=300).compute(),
    )


def test_one_scene(items: list[pystac.Item]) -> None:
    for given in (items[0], items[0].to_dict(), [items[0]]):
        assert [item.id for item in to_items(given)] == [items[0].id]


def test_the_signature_of_a_link_does_not_come_in(items: list[pystac.Item]) -> None:
    content = items[0].to_dict()
    content["assets"]["red"]["href"] = "https://x.blob.core.windows.net/a.tif?se=2&sig=SECRET"
    (item,) = to_items(content)
    assert item.assets["red"].href == "https://x.blob.core.windows.net/a.tif"


@pytest.mark.parametrize("empty", [[], (), iter([]), {"type": "FeatureCollection", "features": []}])
def test_no_scenes(archive: Archive, empty: Any) -> None:
    with pytest.raises(SearchError, match="farm: no scene to open"):
        s2cube.open_cube(empty, archive.aoi)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "are of the type NoneType, not scenes. Give a list of pystac Items"),
        (5, "are of the type int"),
        (b"x", "are of the type bytes"),
        (AOI("x", shapely.box(0, 0, 1, 1)), "are of the type AOI"),
        (["x"], "contain a str at position 1, not a scene"),
        (iter(["x"]), "contain a str at position 1"),
        ({"a": 1}, "are a dict that is neither an Item nor an ItemCollection"),
        ({"type": "FeatureCollection", "features": 5}, "are an ItemCollection whose features are not a list"),
    ],
)
def test_what_is_no_scene(archive: Archive, given: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^items: {problem}"):
        s2cube.open_cube(given, archive.aoi)


@pytest.mark.parametrize("given", [5, ["x"]])
def test_what_is_no_scene_is_not_saved(given: Any) -> None:
    with pytest.raises(ConfigError, match="^items: "):
        s2cube.save_items(given, "x.json")


def test_a_file_without_scenes(archive: Archive) -> None:
    with pytest.raises(SearchError, match="nowhere.json: cannot be read"):
        s2cube.open_cube("nowhere.json", archive.aoi)


class TestChunks:
    @pytest.mark.parametrize("chunks", [50, -1, "auto", {"x": 50, "y": 40}, {"x": (100, 54)}, {"x": None}, {}])
    def test_as_xarray_has_them(self, items: list[pystac.Item], farm: AOI, chunks: Any) -> None:
        plain = s2cube.open_cube(items, farm, bands="red", resolution=60)
        cube = s2cube.open_cube(items, farm, bands="red", resolution=60, chunks=chunks)
        assert cube.chunks == plain.chunk(chunks).chunks
        assert cube.qa.chunks == plain.qa.chunk({key: value for key, value in zip(
            cube.dims, cube.chunks or (), strict=True) if key != "band"}).chunks  # fmt: skip
        assert cube.scenes.chunks is None
        np.testing.assert_equal(cube.encoding, plain.encoding)

    def test_the_pixels_stay(self, items: list[pystac.Item], farm: AOI, tmp_path: Path) -> None:
        cube = s2cube.open_cube(items, farm, bands="red", resolution=60, chunks={"x": 50, "y": 40})
        np.testing.assert_array_equal(cube.values, s2cube.open_cube(items, farm, bands="red", resolution=60).values)
        assert len(s2cube.write_cogs(cube, tmp_path / "out")) == 1

    @pytest.mark.parametrize("chunks", [0, -2, True, 1.5, "foo", [5], {"z": 1}, {"x": 1.5}, {"y": (1, 2)}, object()])
    def test_no_chunks(self, items: list[pystac.Item], farm: AOI, chunks: Any) -> None:
        with pytest.raises(ConfigError, match=r"^chunks: .* \(time, band, y, x\)$"):
            s2cube.open_cube(items, farm, bands="red", resolution=60, chunks=chunks)


def test_a_box_on_the_command_line(archive: Archive, farm: AOI, s2cube_command: CommandLine) -> None:
    words = ("--stac", archive.items, "--datetime", DAY, "--json")
    expected = s2cube_command("search", "--aoi", archive.aoi, *words).json["scenes"]
    box = ",".join(map(str, farm.bounds_lonlat))
    assert box.startswith("-")
    for area in (box, farm.geometry_lonlat.geom.wkt, json.dumps(farm.geometry_lonlat.json)):
        done = s2cube_command("search", "--aoi", area, *words)
        assert (done.status, done.json["scenes"]) == (0, expected)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "is not named, and there is no file aoi.geojson. Name your area by --aoi"),
        (("--aoi", "no.gpkg"), "no.gpkg: there is no such file. Check the path"),
        (("--aoi", "1,2,3"), "is not a box of 4 numbers"),
        (("--aoi", "POLYGON((1 2"), "the WKT text: cannot be read"),
        (("--aoi", "two.gpkg"), "has several layers with polygons: a, b. Choose one of them by --aoi-layer"),
        (("--aoi", "two.gpkg", "--aoi-layer", "c"), "has no layer 'c'. Its layers: a, b"),
        (("--aoi", "1,2,3,4", "--aoi-layer", "c"), "has no layer 'c'"),
    ],
)
def test_bad_areas_on_the_command_line(
    archive: Archive, s2cube_command: CommandLine, tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    for layer in ("a", "b"):
        geopandas.GeoSeries([shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "two.gpkg", layer=layer)
    done = s2cube_command("plan", "--stac", archive.items, *words)
    assert done.status == 2
    assert problem in done.err
    assert "layer parameter" not in done.err
