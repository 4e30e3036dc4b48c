"""Searching: a real STAC API asked by the command line, files, and servers that fail or ignore the question."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pystac
import pytest
import shapely
from odc.geo.geom import box
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import SearchSection
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import ConfigError, SceneError, SearchError
from s2cube.fetch import http as web
from s2cube.scenes.search import find_scenes, open_catalogue
from s2cube.stac._items import from_features
from support import servers
from support.apis import EVERYWHERE, Server
from support.runs import CommandLine

NEBRASKA = (-98.23, 41.07, -98.17, 41.13)
MANY = 250


def copies(item: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Make scenes of 2024, one every 8 hours, whose cloud cover goes round from 0 to 99."""
    for position in range(number):
        day, part = divmod(position, 3)
        instant = datetime(2024, 1, 1, 8 * part, tzinfo=UTC).toordinal() + day
        properties = item["properties"] | {
            "datetime": f"{datetime.fromordinal(instant):%Y-%m-%d}T{8 * part:02}:00:00Z",
            "eo:cloud_cover": position % 100,
        }
        del properties["s2:datatake_id"]
        yield item | {"id": f"copy{position:03}", "properties": properties}


@pytest.fixture(scope="session")
def api(archive_items: list[dict[str, Any]], archive_url: str) -> Iterator[str]:
    items = json.loads(json.dumps(archive_items))
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = archive_url + asset["href"].removeprefix(".")
    elsewhere = json.loads(json.dumps(items[0])) | {"id": "other", "collection": "another"}
    collections = [
        {
            "type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "other",
            "links": [], "extent": EVERYWHERE.to_dict(),
        }
        for name in ("sentinel-2-l2a", "another")
    ]  # fmt: skip
    with servers.stac_api(collections, [*items, elsewhere, *copies(items[0], MANY)]) as url:
        yield url


@pytest.fixture
def farm(archive: Archive) -> AOI:
    return s2cube.read_aoi(archive.aoi)


def scenes(items: list[pystac.Item]) -> list[str]:
    return [item.id for item in items]


class TestRealAPI:
    def ask(self, command: CommandLine, api: str, archive: Archive, *words: object) -> list[str]:
        done = command("search", "--stac", api, "--aoi", archive.aoi, "--json", *words)
        assert done.status == 0, done.err
        found: list[str] = done.json["scenes"]
        return found

    def test_collection_and_dates(self, s2cube_command: CommandLine, api: str, archive: Archive) -> None:
        summer = self.ask(s2cube_command, api, archive, "--datetime", "2022-06/2022-07")
        assert summer == [
            "S2A_14TNL_20220614_0_L2A", "S2A_14TPL_20220614_0_L2A",
            "S2A_14TNL_20220709_0_L2A", "S2A_14TPL_20220709_0_L2A",
        ]  # fmt: skip

    def test_paging(self, s2cube_command: CommandLine, api: str, archive: Archive) -> None:
        found = self.ask(s2cube_command, api, archive, "--datetime", "2024")
        # The first is of midnight UTC, so in Nebraska it is of the last day of 2023.
        assert found == [f"copy{position:03}" for position in range(1, MANY)]

    def test_cloud_cover(self, s2cube_command: CommandLine, api: str, archive: Archive) -> None:
        found = self.ask(s2cube_command, api, archive, "--datetime", "2024", "--max-cloud", "10")
        assert found == [f"copy{position:03}" for position in range(1, MANY) if position % 100 <= 10]

    def test_newest_first(self, s2cube_command: CommandLine, api: str, archive: Archive) -> None:
        found = self.ask(s2cube_command, api, archive, "--max-items", "3", "--max-cloud", "10")
        assert found == ["copy208", "copy209", "copy210"]

    @pytest.mark.parametrize("number", [3, 60])
    @pytest.mark.parametrize("given", [{}, {"datetime": "2022-06/2022-07"}, {"max_items": 2}, {"max_cloud": 5}])
    def test_several_areas_get_what_each_gets_alone(
        self, api: str, farm: AOI, number: int, given: dict[str, Any]
    ) -> None:
        """Their boxes, or the cells of a lattice around them, are asked for as one shape; one area is far away."""
        west, south, east, north = farm.whole_lonlat.geom.bounds
        chosen = random.Random(number)
        corners = [
            (chosen.uniform(west - 0.5, east + 0.5), chosen.uniform(south - 0.5, north + 0.5)) for _ in range(number)
        ]
        fields = [shapely.box(x, y, x + 0.01, y + 0.01) for x, y in [*corners, (10, 50)]]
        aois = [farm, *(AOI(f"f{position}", field) for position, field in enumerate(fields))]
        search = SearchSection.of({"stac": api} | given)
        catalogue = open_catalogue(search)
        together = find_scenes(aois, search, catalogue)
        assert {len(each) for each in together} > {0}
        for aoi, of_area in zip([*aois[:6], aois[-1]], [*together[:6], together[-1]], strict=True):
            (alone,) = find_scenes([aoi], search, catalogue)
            assert [each.item.to_dict() for each in of_area] == [each.item.to_dict() for each in alone]

    def test_newest_costs_no_more_pages_than_it_needs(
        self, api: str, farm: AOI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def counted(url: str, *words: Any, **named: Any) -> web.Answer:
            asked.append(url)
            return web.send_request(url, *words, **named)

        monkeypatch.setattr("s2cube.stac.catalogue_io.send_request", counted)
        assert len(s2cube.search(farm, stac=api, max_items=5)) == 5
        assert sum(href.endswith("/search") for href in asked) == 1

    def test_geometry_not_its_box(self, api: str, archive: Archive) -> None:
        west, south, east, north = geopandas.read_file(archive.aoi).total_bounds
        # An L round the archive: its box meets every granule, the shape none.
        away = shapely.box(west - 3, south - 3, east + 3, north + 3) - shapely.box(
            west - 2, south - 2, east + 4, north + 4
        )
        from odc.geo.geom import Geometry

        assert s2cube.search(AOI("L", Geometry(away, "EPSG:4326")), stac=api) == []

    def test_what_was_found_feeds_a_run(
        self, s2cube_command: CommandLine, api: str, archive: Archive, scheduler: str, tmp_path: Path
    ) -> None:
        """A run by the same API, over HTTP-served COGs."""
        frame = geopandas.GeoDataFrame(geometry=[shapely.box(*NEBRASKA)], crs="EPSG:4326")
        frame.to_file(tmp_path / "aoi.geojson")
        words = ["run", "--aoi", "aoi.geojson", "--stac", api, "--collection", "sentinel-2-l2a", "--json"]
        words += [
            "--datetime",
            "2022-05-01/2022-07-31",
            "--bands",
            "blue,swir16",
            "--crs",
            "EPSG:32614",
            "--out",
            "out",
        ]
        done = s2cube_command(*words, "--scheduler", scheduler)
        assert done.status == 0, done.err
        assert [Path(path).name for path in done.json["written"]] == [
            "aoi_20220520.tif", "aoi_20220614.tif", "aoi_20220709.tif",
        ]  # fmt: skip
        item = pystac.Item.from_file(str(tmp_path / "out/aoi/aoi_20220520/aoi_20220520.json"))
        sources = [link.href for link in item.links if link.rel == "derived_from"]
        assert sources == [
            f"{api}/collections/sentinel-2-l2a/items/S2A_{tile}_20220520_0_L2A" for tile in ("14TNL", "14TPL")
        ]

    def test_unknown_collection(self, api: str, farm: AOI) -> None:
        with pytest.raises(
            SearchError, match=r"has no collection 'sentinel-3'. Its collections: another, sentinel-2-l2a"
        ):
            s2cube.search(farm, stac=api, collection="sentinel-3")


class TestFiles:
    def test_table(self, s2cube_command: CommandLine, archive: Archive) -> None:
        done = s2cube_command("search", "--stac", archive.items, "--aoi", archive.aoi)
        lines = done.out.splitlines()
        assert lines[0].split() == ["scene", "area", "time", "(UTC)", "cloud", "%", "tile", "baseline"]
        number = sum(len(each.tiles) for each in PASSES)
        assert len(lines) == 1 + number
        facts = ["S2A_14TNL_20210724_0_L2A", "farm", "2021-07-24", "17:19", "0.0", "MGRS-14TNL", "03.01"]
        assert lines[1].split() == facts
        assert f"{number} scenes." in done.err

    def test_scenes_of_several_areas_are_sorted_by_time(
        self, s2cube_command: CommandLine, archive: Archive, tmp_path: Path
    ) -> None:
        """The east lies in one tile, the west in the other; a scene is one line, with all its areas."""
        left, bottom = 565000, 4549000
        fields = [shapely.box(left + n, bottom, left + n + 300, bottom + 300) for n in (5000, 0, 400, 800, 1200)]
        ids = ["east", "w1", "w2", "w3", "w4"]
        geopandas.GeoDataFrame({"id": ids}, geometry=fields, crs="EPSG:32614").to_file(tmp_path / "fields.gpkg")
        words = ["search", "--stac", archive.items, "--aoi", tmp_path / "fields.gpkg"]
        found = s2cube_command(*words, "--json").json
        times = [each["datetime"] for each in found["found"]]
        assert times == sorted(times)
        assert found["count"] == len(times) == len(set(found["scenes"]))
        assert [each["id"] for each in found["found"]] == found["scenes"]
        first = found["found"][0]
        assert first == {
            "id": "S2A_14TNL_20210724_0_L2A", "aois": ["w1", "w2", "w3", "w4"], "datetime": "2021-07-24T17:19:31.000Z",
            "cloud_percent": 0.0, "tile": "14TNL", "baseline": "03.01",
        }  # fmt: skip
        table = s2cube_command(*words)
        assert "w1, w2, w3 and 1 more" in table.out.splitlines()[1]
        assert f"{found['count']} scenes of 5 areas." in table.err

    @pytest.mark.parametrize("name", ["found.geojson", "found.json", "found.parquet"])
    def test_saved_scenes_are_a_catalogue_again(
        self, s2cube_command: CommandLine, archive: Archive, farm: AOI, tmp_path: Path, name: str
    ) -> None:
        done = s2cube_command("search", "--stac", archive.items, "--aoi", archive.aoi, "--save", name)
        assert done.status == 0, done.err
        before = s2cube.search(farm, stac=str(archive.items))
        after = s2cube.search(farm, stac=str(tmp_path / name))
        assert scenes(after) == scenes(before)
        for one, other in zip(before, after, strict=True):
            assert one.datetime == other.datetime
            assert one.properties["s2:processing_baseline"] == other.properties["s2:processing_baseline"]
            assert {key: asset.href for key, asset in one.assets.items()} == {
                key: asset.href for key, asset in other.assets.items()
            }

    def test_saved_geojson_is_read_by_geopandas(self, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        s2cube.save_items(s2cube.search(farm, stac=str(archive.items)), tmp_path / "x.geojson")
        assert len(geopandas.read_file(tmp_path / "x.geojson")) == 11

    def test_saving_in_no_known_format(self, s2cube_command: CommandLine, archive: Archive) -> None:
        done = s2cube_command("search", "--stac", archive.items, "--aoi", archive.aoi, "--save", "found.xlsx")
        assert done.status == 2
        assert "Use .geojson, .json, .parquet or .geoparquet" in done.err

    def test_static_catalogue(self, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        items = s2cube.search(farm, stac=str(archive.items))
        catalog = pystac.Catalog("static", "of the demo")
        extent = pystac.Extent.from_items(items)
        collection = pystac.Collection("sentinel-2-l2a", "of the demo", extent)
        catalog.add_child(collection)
        collection.add_items([item.clone() for item in items])
        catalog.normalize_and_save(str(tmp_path / "static"), pystac.CatalogType.SELF_CONTAINED)
        for entry in ("catalog.json", "sentinel-2-l2a/collection.json"):
            found = s2cube.search(farm, stac=str(tmp_path / "static" / entry), max_cloud=1)
            assert scenes(found) == scenes(s2cube.search(farm, stac=str(archive.items), max_cloud=1))
            assert all(Path(item.assets["blue"].href).exists() for item in found)

    def test_static_catalogue_with_a_broken_link(self, farm: AOI, tmp_path: Path) -> None:
        catalog = pystac.Catalog("static", "broken").to_dict(include_self_link=False)
        catalog["links"].append({"rel": "item", "href": "./gone.json"})
        (tmp_path / "catalog.json").write_text(json.dumps(catalog))
        with pytest.raises(SearchError, match="has a broken link"):
            s2cube.search(farm, stac=str(tmp_path / "catalog.json"))

    def test_order_does_not_depend_on_the_file(self, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        page = json.loads(archive.items.read_text())
        page["features"].reverse()
        (tmp_path / "reversed.json").write_text(json.dumps(page))
        assert scenes(s2cube.search(farm, stac=str(tmp_path / "reversed.json"))) == scenes(
            s2cube.search(farm, stac=str(archive.items))
        )

    def test_unknown_cloud_cover_is_not_below_a_bound(self, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        page = json.loads(archive.items.read_text())
        del page["features"][0]["properties"]["eo:cloud_cover"]
        (tmp_path / "unknown.json").write_text(json.dumps(page))
        assert len(s2cube.search(farm, stac=str(tmp_path / "unknown.json"), max_cloud=99)) == 10
        assert len(s2cube.search(farm, stac=str(tmp_path / "unknown.json"))) == 11

    def test_an_item_of_its_own_address_is_read_from_there(self, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        page = json.loads(archive.items.read_text())
        for each in page["features"]:
            each["links"] = [{"rel": "self", "href": f"./deeper/{each['id']}.json"}]
        (tmp_path / "relative.json").write_text(json.dumps(page))
        first = s2cube.search(farm, stac=str(tmp_path / "relative.json"))[0]
        assert first.get_self_href() == str(tmp_path / "deeper" / f"{first.id}.json")
        assert first.assets["blue"].href == str(tmp_path / "deeper" / first.id / "B02.tif")

    def test_files_are_utf8_whatever_the_locale(self, archive: Archive, tmp_path: Path) -> None:
        page = json.loads(archive.items.read_text())
        page["features"][0]["properties"]["title"] = "Getreide auf Äckern, 小麦"
        (tmp_path / "umlaut.json").write_text(json.dumps(page, ensure_ascii=False), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "s2cube",
            "search",
            "--stac",
            "umlaut.json",
            "--aoi",
            str(archive.aoi),
            "--json",
        ]
        surroundings = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(command, env=surroundings, capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout.splitlines()[-1])["scenes"]) == 11

    def test_neighbours_that_only_touch_are_left_out(self, archive: Archive) -> None:
        from s2cube.demo._ground import granule_geobox

        edges = granule_geobox("14TNL", 10).extent.to_crs("EPSG:4326").boundingbox
        beside = AOI("beside", box(edges.left - 0.01, edges.bottom, edges.left, edges.top, "EPSG:4326"))
        assert s2cube.search(beside, stac=str(archive.items)) == []

    @pytest.mark.parametrize("setting", [{"max_cloud": 101}, {"max_items": 0}, {"datetime": "x"}])
    def test_bad_setting(self, farm: AOI, setting: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            s2cube.search(farm, **setting)

    def test_unknown_setting(self, farm: AOI) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'cloud'"):
            s2cube.search(farm, cloud=3)


class TestDifficultServer:
    @pytest.fixture
    def server(self, httpserver: HTTPServer, archive_items: list[dict[str, Any]], new_session: None) -> Server:
        return Server(httpserver, json.loads(json.dumps(archive_items)))

    def test_what_it_ignores_is_filtered_here(self, server: Server, farm: AOI) -> None:
        server.root["conformsTo"] += [
            f"https://api.stacspec.org/v1.0.0/item-search#{part}" for part in ("query", "sort")
        ]
        elsewhere = json.loads(json.dumps(server.features[-1])) | {"id": "elsewhere", "collection": "another"}
        server.features.insert(0, elsewhere)
        assert scenes(s2cube.search(farm, stac=server.url, datetime="2022-08/2022-09")) == [
            "S2A_14TNL_20220803_0_L2A", "S2A_14TNL_20220912_0_L2A", "S2A_14TPL_20220912_0_L2A",
        ]  # fmt: skip
        assert scenes(s2cube.search(farm, stac=server.url, datetime="2022-08/2022-09", max_cloud=4)) == [
            "S2A_14TNL_20220803_0_L2A"
        ]

    @pytest.mark.parametrize("says_it_sorts", [True, False])
    def test_newest_from_a_server_that_does_not_sort(self, server: Server, farm: AOI, says_it_sorts: bool) -> None:
        if says_it_sorts:
            server.root["conformsTo"].append("https://api.stacspec.org/v1.0.0/item-search#sort")
        # Within what was asked for the order breaks; the newest come last, after the oldest.
        server.features = [server.features[each] for each in (3, 7, 5, 0, 1, 2, 4, 6, 8, 9, 10)]
        found = s2cube.search(farm, stac=server.url, max_items=2)
        assert scenes(found) == ["S2A_14TNL_20220912_0_L2A", "S2A_14TPL_20220912_0_L2A"]

    def test_of_scenes_at_one_instant_the_same_is_kept_whatever_comes_first(self, server: Server, farm: AOI) -> None:
        server.root["conformsTo"].append("https://api.stacspec.org/v1.0.0/item-search#sort")
        server.features = sorted(server.features, key=lambda each: each["properties"]["datetime"], reverse=True)
        for _ in range(2):
            assert scenes(s2cube.search(farm, stac=server.url, max_items=1)) == ["S2A_14TPL_20220912_0_L2A"]
            server.features[:2] = server.features[1::-1]

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_busy(self, server: Server, farm: AOI, status: int) -> None:
        server.faults = [Response("busy", status=status)] * 2
        assert len(s2cube.search(farm, stac=server.url)) == 11
        assert server.searches == 2 + 6 + 6  # nothing is counted, so it is asked beyond the last scene

    def test_retry_after_is_kept(self, server: Server, farm: AOI, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr("time.sleep", slept.append)
        server.faults = [Response("busy", status=429, headers={"Retry-After": "7"})]
        assert len(s2cube.search(farm, stac=server.url)) == 11
        assert 7 in slept

    def test_busy_for_too_long(self, server: Server, farm: AOI) -> None:
        server.faults = [Response("busy", status=503)] * 100
        with pytest.raises(SearchError, match="failed during the search"):
            s2cube.search(farm, stac=server.url)
        assert server.searches < 10

    def test_failing_on_a_later_page_is_no_shorter_list(self, server: Server, farm: AOI) -> None:
        answer = server.search

        def fail_later(request: Request) -> Response:
            return answer(request) if server.searches < 3 else Response("no", status=400)

        server.http.clear()
        server.__init__(server.http, server.features)  # type: ignore[misc]
        server.http.handlers.pop()
        server.http.expect_request("/search").respond_with_handler(fail_later)
        with pytest.raises(SearchError, match="failed during the search"):
            s2cube.search(farm, stac=server.url)

    def test_answer_that_breaks_off(self, server: Server, farm: AOI) -> None:
        half = Response('{"type": "Feat', content_type="application/json")
        half.headers["Content-Length"] = "5000"
        server.faults = [half, half]
        assert len(s2cube.search(farm, stac=server.url)) == 11
        assert server.searches == 2 + 6 + 6  # nothing is counted, so it is asked beyond the last scene

    def test_an_empty_page_is_not_the_last(self, server: Server, farm: AOI) -> None:
        server.faults = [server.page([], 0), server.page(server.features[:3], 3), server.page([], 3)]
        assert len(s2cube.search(farm, stac=server.url)) == 11

    def test_pages_that_lead_in_a_circle(self, server: Server, farm: AOI) -> None:
        server.faults = [server.page(server.features[:2], 2) for _ in range(5)]
        with pytest.raises(SearchError, match="links back to a page"):
            s2cube.search(farm, stac=server.url)
        assert server.searches < 5

    @pytest.mark.parametrize("body", ['{"message": "Endpoint request timed out"}', "<html>Sorry</html>", "[]", "null"])
    def test_a_page_that_is_none(self, server: Server, farm: AOI, body: str) -> None:
        server.faults = [server.page(server.features[:2], 2), Response(body)]
        with pytest.raises(SearchError):
            s2cube.search(farm, stac=server.url)

    @pytest.mark.parametrize("path", ["search", "collections/sentinel-2-l2a"])
    def test_a_part_of_an_api_is_not_taken_for_all(self, server: Server, farm: AOI, path: str) -> None:
        server.collection["links"] = [{"rel": "items", "href": f"{server.url}/collections/sentinel-2-l2a/items"}]
        with pytest.raises(SearchError, match="is a part of a STAC API. Set --stac to the root of the API"):
            s2cube.search(farm, stac=f"{server.url}/{path}")

    def test_api_that_only_takes_get(self, server: Server, farm: AOI) -> None:
        for link in server.root["links"]:
            link.pop("method", None)
        server.posts = False
        assert len(s2cube.search(farm, stac=server.url)) == 11

    def test_api_that_does_not_search(self, server: Server, farm: AOI) -> None:
        server.root["conformsTo"] = ["https://api.stacspec.org/v1.0.0/core"]
        with pytest.raises(SearchError, match="cannot be searched: it does not announce item search"):
            s2cube.search(farm, stac=server.url)

    @pytest.mark.parametrize("value", [None, "soon", "12", 5])
    def test_item_without_time(self, server: Server, farm: AOI, value: object) -> None:
        """It is found whatever the dates, and what is made of it fails; the others are not lost."""
        server.features[3]["properties"]["datetime"] = value
        found = s2cube.search(farm, stac=server.url, datetime="2022-08/2022-09")
        assert scenes(found) == [
            "S2A_14TNL_20220803_0_L2A", "S2A_14TNL_20220912_0_L2A", "S2A_14TPL_20220912_0_L2A",
            "S2A_14TPL_20220520_0_L2A",
        ]  # fmt: skip
        with pytest.raises(SceneError, match="S2A_14TPL_20220520_0_L2A: has (no )?datetime"):
            s2cube.open_cube(found, farm)

    def test_cloud_cover_that_is_no_number(self, server: Server, farm: AOI) -> None:
        server.features[0]["properties"]["eo:cloud_cover"] = "few"
        assert len(s2cube.search(farm, stac=server.url, max_cloud=90)) == 10

    @pytest.mark.parametrize("feature", [{"type": "Feature", "id": "x"}, None, "x", 5, [], {}])
    def test_item_that_is_none(self, server: Server, farm: AOI, feature: object) -> None:
        server.features[3] = feature  # type: ignore[call-overload]
        found = s2cube.search(farm, stac=server.url)
        assert len(found) == 11
        with pytest.raises(SceneError):
            s2cube.open_cube(found, farm)

    def test_item_without_geometry(self, server: Server, farm: AOI, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody knows where it lies: it is found, and its slice will fail by name."""
        server.features[3]["geometry"] = None
        del server.features[3]["bbox"]
        found = s2cube.search(farm, stac=server.url)
        assert [item.id for item in found if item.geometry is None] == ["S2A_14TPL_20220520_0_L2A"]
        assert len(found) == 11
        assert "S2A_14TPL_20220520_0_L2A: has no geometry." in caplog.text
        assert "s2cube assumes that it covers farm" in caplog.text
        with pytest.raises(SceneError, match="S2A_14TPL_20220520_0_L2A: has no geometry"):
            s2cube.open_cube(found, farm)


def test_recorded_pages_of_real_catalogues(real: Path) -> None:
    """Items as catalogues serve them, searched as a file; shapely tells which must be found."""
    page = real / "pages" / "es1_c1_rustac_item-collection.json"
    features = json.loads(page.read_text())["features"]
    bounds = shapely.geometry.shape(features[0]["geometry"]).centroid.buffer(0.05).bounds
    aoi = AOI("middle", box(*bounds, "EPSG:4326"))
    meeting = [
        each["id"] for each in features
        if shapely.geometry.shape(each["geometry"]).intersects(shapely.box(*bounds))
    ]  # fmt: skip
    found = s2cube.search(aoi, stac=str(page), collection=features[0]["collection"])
    assert sorted(scenes(found)) == sorted(meeting)
    assert meeting


@pytest.mark.parametrize(
    ("west", "expected"), [(10.2, ["here", "without"]), (179.85, ["across", "east", "west", "without"])]
)
def test_items_that_meet_an_area(west: float, expected: list[str]) -> None:
    """Also over the antimeridian; also those that do not say where they lie."""
    places = {
        "west": (-180, 0, -179.5, 1), "without": None, "here": (10, 0, 11, 1), "across": (179.9, 0, 180.5, 1),
        "north": (10, 5, 11, 6), "east": (178, 0, 179.9, 1), "there": (20, 0, 21, 1),
    }  # fmt: skip
    features = [
        {"type": "Feature", "id": name, "geometry": bounds and shapely.geometry.mapping(shapely.box(*bounds))}
        for name, bounds in places.items()
    ]
    area = AOI("x", box(west, 0.4, west + 0.2, 0.6, "EPSG:4326"))
    for step in (1, -1):
        (found,) = find_scenes([area], SearchSection(), list(from_features(features[::step], "https://host/items")))
        assert [scene.item.id for scene in found] == expected
