"""Four real STAC APIs, as they were recorded: all their scenes are found, and read from where they lie."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pystac
import pytest
import rasterio
from distributed import LocalCluster

from s2cube.fetch._archives import NoKeys, locate
from s2cube.scenes._level import check_level
from s2cube.scenes.provider import offset_dn, provider
from support import replayed
from support.replayed import COPERNICUS, DIGITAL_EARTH_AFRICA, DN, EARTH_SEARCH, PLANETARY_COMPUTER, Catalogue, Replay
from support.runs import CommandLine

LOST = "S2A_32TNT_20211110_1_L2A"
"""Of Earth Search, where it pages by the date alone: the newer of two processings of the same instant."""

AROUND_LOST = replace(EARTH_SEARCH, first="2021-11-01", last="2023-01-29")
"""99 scenes are later than that day, so pages of a hundred meet between its two."""

CDSE_KEYS = {"CDSE_ACCESS_KEY_ID": "AKCDSE", "CDSE_SECRET_ACCESS_KEY": "SKCDSE"}
AMAZON_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "SKOWN"}
"""Those of the user's own bucket, which no archive is to see."""


@pytest.fixture(scope="module")
def server(recordings: Path, server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    folder = tmp_path_factory.mktemp("replay")
    with replayed.replay(folder) as server:
        yield server


@pytest.fixture
def apis(server: Replay, open_network: None, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """The APIs under their own names, for this process."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.forget()
    return server


@pytest.fixture(scope="module")
def variants(recordings: Path, server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """The APIs as they have been at other times: by GET only, in another order, older, of smaller pages."""
    modes = ("es-get", "newest-written-first", "dea-2022", "dea-250")
    with replayed.replay(tmp_path_factory.mktemp("variants"), *modes) as server:
        yield server


@pytest.fixture
def other_apis(variants: Replay, open_network: None, monkeypatch: pytest.MonkeyPatch) -> Replay:
    for name, value in variants.environment.items():
        monkeypatch.setenv(name, value)
    variants.forget()
    return variants


class TestAllScenesAreFound:
    @pytest.mark.parametrize(
        ("catalogue", "number"),
        [
            (EARTH_SEARCH, 647),
            (PLANETARY_COMPUTER, 321),
            (COPERNICUS, 283),
            (DIGITAL_EARTH_AFRICA, 258),
            (replace(DIGITAL_EARTH_AFRICA, first="2015-01-01"), 260),
        ],
    )
    def test_as_many_as_there_are(
        self, apis: Replay, s2cube_command: CommandLine, catalogue: Catalogue, number: int
    ) -> None:
        done = s2cube_command("search", *catalogue.words, "--json")
        assert done.status == 0, done.err
        assert len(catalogue.ids()) == number
        assert sorted(done.json["scenes"]) == catalogue.ids()
        assert not apis.refused

    @pytest.mark.parametrize(("catalogue", "number"), [(EARTH_SEARCH, 647), (DIGITAL_EARTH_AFRICA, 258)])
    def test_as_many_as_the_server_counts(self, apis: Replay, catalogue: Catalogue, number: int) -> None:
        """No scene lies near midnight, so that a day by the sun and a day in UTC are the same."""
        assert apis.post(f"{catalogue.stac}/search", question(catalogue, limit=1))["numberMatched"] == number

    def test_earth_search_loses_a_scene_where_it_pages_by_the_date_alone(self, apis: Replay) -> None:
        found = set()
        asked: Any = question(EARTH_SEARCH, limit=100)
        asked["sortby"] = [{"field": "properties.datetime", "direction": "desc"}]
        while asked:
            page = apis.post(f"{EARTH_SEARCH.stac}/search", asked)
            found |= {item["id"] for item in page["features"]}
            asked = next((link["body"] for link in page["links"] if link["rel"] == "next"), None)
        assert {*EARTH_SEARCH.ids()} - found == {LOST}

    def test_its_pages_are_ordered_by_date_and_id(self, apis: Replay, s2cube_command: CommandLine) -> None:
        """So none is lost, and nothing is asked for again: two pages, and an empty one, for each links to a next."""
        done = s2cube_command("search", *AROUND_LOST.words, "--json")
        assert sorted(done.json["scenes"]) == AROUND_LOST.ids()
        assert LOST in done.json["scenes"]
        assert [each["body"]["limit"] for each in apis.searches] == [100, 100, 100]
        for each in apis.searches:
            assert [rule["field"] for rule in each["body"]["sortby"]] == ["properties.datetime", "id"]

    def test_every_day_is_made_of_the_newest_processing(self, apis: Replay, s2cube_command: CommandLine) -> None:
        newest: dict[Any, dict[str, Any]] = {}
        for item in sorted(AROUND_LOST.scenes(), key=lambda item: item["properties"]["s2:processing_baseline"]):
            newest[AROUND_LOST.day(item), item["properties"]["grid:code"]] = item
        expected: dict[str, list[str]] = {}
        for (day, _), item in newest.items():
            expected.setdefault(f"alps2_{day:%Y%m%d}", []).append(item["id"])
        assert expected["alps2_20211110"] == [LOST]
        done = s2cube_command("plan", *AROUND_LOST.words, "--json")
        assert done.status == 0, done.err
        assert {name: sorted(scenes) for name, scenes in done.json["scenes"].items()} == expected
        assert done.json["failed"] == []

    @pytest.mark.parametrize(
        ("catalogue", "number"), [(EARTH_SEARCH, 647), (replace(DIGITAL_EARTH_AFRICA, first="2015-01-01"), 260)]
    )
    def test_by_servers_of_other_times(
        self, other_apis: Replay, s2cube_command: CommandLine, catalogue: Catalogue, number: int
    ) -> None:
        done = s2cube_command("search", *catalogue.words, "--json")
        assert done.status == 0, done.err
        assert sorted(done.json["scenes"]) == catalogue.ids()
        assert len(catalogue.ids()) == number
        assert not other_apis.refused
        assert {each["what"] for each in other_apis.searches} == {"GET" if catalogue is EARTH_SEARCH else "POST"}


class TestDigitalEarthAfrica:
    """Its search link names no method, and it refuses an area by GET."""

    def test_it_is_asked_by_post_only(self, apis: Replay, s2cube_command: CommandLine) -> None:
        done = s2cube_command("search", *DIGITAL_EARTH_AFRICA.words, "--json")
        assert done.status == 0, done.err
        assert [each["what"] for each in apis.searches] == ["POST"] * 3

    def test_people_see_no_warning_of_python(self, apis: Replay) -> None:
        words = [sys.executable, "-W", "always::UserWarning", "-m", "s2cube", "search", *DIGITAL_EARTH_AFRICA.words]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr.splitlines() == ["info: searching explorer.digitalearth.africa", "258 scenes."]
        assert len(done.stdout.splitlines()) == 1 + 258


class TestTable:
    """What the items say of tile and baseline, under whichever name."""

    @pytest.mark.parametrize(
        ("catalogue", "rows"),
        [
            (
                replace(PLANETARY_COMPUTER, first="2019-01-01", last="2019-01-06"),
                [
                    ("S2A_MSIL2A_20190101T000001_R116_T59VPE_20201007T214658", "MGRS-59VPE", "02.12"),
                    ("S2A_MSIL2A_20190101T000001_R116_T60VUK_20201007T214652", "MGRS-60VUK", "02.12"),
                    ("S2A_MSIL2A_20190106T000001_R116_T60VUK_20201007T214652", "MGRS-60VUK", "02.12"),
                ],
            ),
            (
                replace(COPERNICUS, first="2020-07-01", last="2020-07-05"),
                [
                    ("S2A_MSIL2A_20200703T103031_N0500_R108_T32TMT_20230613T212700", "MGRS-32TMT", "05.00"),
                    ("S2A_MSIL2A_20200703T103031_N0500_R108_T32TNT_20230613T212700", "MGRS-32TNT", "05.00"),
                    ("S2B_MSIL2A_20200705T101559_N0500_R065_T32TMT_20230530T175912", "MGRS-32TMT", "05.00"),
                    ("S2B_MSIL2A_20200705T101559_N0500_R065_T32TNT_20230530T175912", "MGRS-32TNT", "05.00"),
                ],
            ),
            (
                replace(EARTH_SEARCH, first="2021-11-10", last="2021-11-10"),
                [("S2A_32TNT_20211110_0_L2A", "MGRS-32TNT", "02.14"), (LOST, "MGRS-32TNT", "05.00")],
            ),
            (
                replace(DIGITAL_EARTH_AFRICA, first="2024-07-10", last="2024-07-10"),
                [("83d02080-0394-5bb1-bd1d-cfc23e0db47d", "MGRS-37MGP", "05.10")],
            ),
        ],
    )
    def test_tile_and_baseline(
        self, apis: Replay, s2cube_command: CommandLine, catalogue: Catalogue, rows: list[tuple[str, str, str]]
    ) -> None:
        done = s2cube_command("search", *catalogue.words)
        assert done.status == 0, done.err
        heading, *lines = done.out.splitlines()
        assert heading.split() == ["scene", "area", "time", "(UTC)", "cloud", "%", "tile", "baseline"]
        # Id, area, date, time, cloud cover, tile, baseline.
        assert [(cells[0], cells[5], cells[6]) for cells in map(str.split, lines)] == rows


@dataclass(frozen=True)
class Case:
    """One day of a catalogue.

    Parameters
    ----------
    name
        What s2cube calls the catalogue.
    offset_dn
        What is to be added to the pixels of the day's newest scene.
    host
        Where its files lie.
    """

    catalogue: Catalogue
    day: str
    name: str
    offset_dn: int
    host: str

    @property
    def search(self) -> Catalogue:
        return replace(self.catalogue, first=self.day, last=self.day)


CASES = [
    # 05.00, of which Earth Search has taken the offset off, though its raster:bands say -0.1; and 02.14.
    Case(EARTH_SEARCH, "2021-11-10", "Earth Search v1", 0, "sentinel-cogs.s3.us-west-2.amazonaws.com"),
    Case(EARTH_SEARCH, "2024-06-12", "Earth Search v1", 0, "sentinel-cogs.s3.us-west-2.amazonaws.com"),
    # 02.12.
    Case(PLANETARY_COMPUTER, "2019-01-06", "Planetary Computer", 0, "sentinel2l2a01.blob.core.windows.net"),
    # 05.00, as ESA delivers it, and 05.10, whose items say nothing else of an offset.
    Case(COPERNICUS, "2024-04-28", "Copernicus Data Space", -1000, "eodata.dataspace.copernicus.eu"),
    Case(DIGITAL_EARTH_AFRICA, "2024-07-10", "Digital Earth Africa", -1000, "s3.af-south-1.amazonaws.com"),
]


@pytest.fixture(scope="module")
def workers(server: Replay) -> Iterator[str]:
    """A Dask cluster whose worker begins in an environment that leads to the replayed APIs, with keys."""
    replayed.write_files(server.log.parent / "files")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in (server.environment | CDSE_KEYS | AMAZON_KEYS).items():
            patch.setenv(name, value)
        with (
            dask.config.set({"distributed.worker.profile.enabled": False}),
            LocalCluster(
                n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
            ) as cluster,
        ):
            yield cluster.scheduler_address


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.catalogue.key}-{case.day}")
class TestOneDay:
    """From the search to the pixels."""

    def test_offset_and_level(self, apis: Replay, s2cube_command: CommandLine, case: Case) -> None:
        found = items(s2cube_command, case.search)
        assert sorted(item.id for item in found) == case.search.ids()
        newest = max(found, key=lambda item: item.id)
        known = provider(newest)
        assert known
        assert known.name == case.name
        assert offset_dn(newest) == case.offset_dn
        check_level(newest)

    def test_a_run(
        self, apis: Replay, workers: str, s2cube_command: CommandLine, monkeypatch: pytest.MonkeyPatch, case: Case
    ) -> None:
        """Every pixel is `DN`. Nothing is set but keys: of Copernicus, and of the user's own bucket."""
        for variable, value in (CDSE_KEYS | AMAZON_KEYS).items():
            monkeypatch.setenv(variable, value)
        done = s2cube_command("run", *case.search.words, "--bands", "blue", "--scheduler", workers, "--json")
        assert done.status == 0, done.err
        (path,) = done.json["written"]
        assert Path(path).stem == f"{case.catalogue.area}_{case.day.replace('-', '')}"
        with rasterio.open(path) as cog:
            cells = cog.read(1)
        assert set(np.unique(cells)) == {-9999, DN + case.offset_dn}
        assert apis.hosts == {case.catalogue.stac.split("/")[2], case.host}
        signatures = [str(each["headers"]) for each in apis.asked if each["host"] == case.host]
        assert signatures
        is_signed = case.catalogue == COPERNICUS
        assert all(("Credential=AKCDSE/" in each) == is_signed for each in signatures)
        assert all(("AWS4-HMAC-SHA256" in each) == is_signed for each in signatures)


class TestWhereArchivesAre:
    """What their items say is read from the place that the archive itself documents."""

    def test_digital_earth_africa(self, apis: Replay, s2cube_command: CommandLine) -> None:
        catalogue = replace(DIGITAL_EARTH_AFRICA, first="2024-07-10", last="2024-07-10")
        done = s2cube_command("plan", *catalogue.words, "--json")
        assert (done.status, done.json["todo"]) == (0, ["tanzania_20240710"])
        assert apis.hosts == {"explorer.digitalearth.africa"}
        (item,) = items(s2cube_command, catalogue)
        # The region is that of the archive that it was copied from.
        assert item.properties["storage:region"] == "us-west-2"
        place = locate(item.assets["blue"].href, (), AMAZON_KEYS)
        assert (place.url, place.region) == (
            "https://s3.af-south-1.amazonaws.com/deafrica-sentinel-2-l2a-c1/", "af-south-1",
        )  # fmt: skip
        assert (place.keys, place.by_role, place.requester_pays) == (None, False, False)

    def test_copernicus(self, apis: Replay, s2cube_command: CommandLine) -> None:
        catalogue = replace(COPERNICUS, first="2024-04-28", last="2024-04-28")
        done = s2cube_command("plan", *catalogue.words, "--json")
        assert (done.status, done.json["todo"]) == (0, ["alps_20240428"])
        assert apis.hosts == {"stac.dataspace.copernicus.eu"}
        (item,) = items(s2cube_command, catalogue)
        href = item.assets["B02_10m"].href
        place = locate(href, (), CDSE_KEYS)
        scheme = item.properties["storage:schemes"]["cdse-s3"]
        assert (place.address, place.requester_pays) == (scheme["platform"], scheme["requester_pays"])
        assert (place.url, place.region) == ("https://eodata.dataspace.copernicus.eu/eodata/", "default")
        assert place.keys
        assert (place.keys.name, place.keys.access_key_id) == ("CDSE", "AKCDSE")
        with pytest.raises(NoKeys, match="there are no keys for s3://eodata") as caught:
            locate(href, (), AMAZON_KEYS)
        assert "CDSE_ACCESS_KEY_ID" in caught.value.remedy


def items(s2cube_command: CommandLine, catalogue: Catalogue) -> list[pystac.Item]:
    """Give what a search finds, as it saves it."""
    done = s2cube_command("search", *catalogue.words, "--save", "found.geojson")
    assert done.status == 0, done.err
    return [pystac.Item.from_dict(each) for each in json.loads(Path("found.geojson").read_text())["features"]]


def question(catalogue: Catalogue, limit: int) -> dict[str, Any]:
    """Ask for the scenes of its days in UTC."""
    (feature,) = json.loads(catalogue.path.read_text())["features"]
    return {
        "collections": [catalogue.collection], "intersects": feature["geometry"], "limit": limit,
        "datetime": f"{catalogue.first}T00:00:00Z/{catalogue.last}T23:59:59.999Z",
    }  # fmt: skip
