"""What a job asked for is on the page: its dates, and areas for which there is no scene."""

import json
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from playwright.sync_api import Browser, expect

from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.report import request
from s2cube.report.page import write_report
from s2cube.report.request import AskedArea, Request, read_request
from s2cube.storage.output import Output
from support.browser import Tab
from support.runs import FARM, CommandLine

DATES = "2022-05-01/2022-05-31"
REQUEST = Path("out/.s2cube/request")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A corner of the demo's farm, and a field in the Pacific Ocean, on both sides of the antimeridian."""
    path = tmp_path / "two.geojson"
    corner = geopandas.GeoSeries([shapely.box(*FARM)], crs="EPSG:32614").to_crs("EPSG:4326")[0]
    island = shapely.box(179.9, -17, 180.1, -16.8)
    geopandas.GeoDataFrame({"id": ["corner", "island"]}, geometry=[corner, island], crs="EPSG:4326").to_file(path)
    return path


@pytest.fixture
def flags(two: Path, archive: Archive) -> list[Any]:
    return ["--aoi", two, "--stac", archive.items, "--bands", "blue", "--resolution", "60", "--datetime", DATES]


def asked() -> dict[str, int | None]:
    found = read_request(Output.at("out"))
    assert found
    assert found.datetime == DATES
    if "island" in found.areas:
        assert found.areas["island"].bounds_lonlat == (179.9, -17, -179.9, -16.8)
    return {name: area.slices for name, area in found.areas.items()}


def test_commands_keep_it(s2cube_command: CommandLine, flags: list[Any]) -> None:
    assert s2cube_command("run", *flags).status == 0
    assert asked() == {"corner": 1, "island": 0}
    before = REQUEST.stat()
    assert s2cube_command("run", *flags).status == 0
    assert REQUEST.stat().st_mtime_ns == before.st_mtime_ns
    assert s2cube_command("composite", *flags).status == 0
    assert asked() == {"corner": 1, "island": 0}
    assert s2cube_command("sync", *flags, "--lookback", "9999d").status == 0
    assert asked() == {"corner": None, "island": None}
    assert s2cube_command("stats", *flags).status == 0
    assert asked() == {}


def test_submitted_jobs_keep_it(s2cube_command: CommandLine, flags: list[Any], scheduler: str) -> None:
    assert s2cube_command("submit", *flags, "--scheduler", scheduler).status == 0
    assert asked() == {"corner": 1, "island": 0}
    assert s2cube_command("status", "out", "--watch").status == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"datetime":3,"areas":{}}', b'{"datetime":"","areas":{"a":{"slices":-1}}}',
                b'{"datetime":"","areas":{"a":{"bounds_lonlat":[0,0,1,1],"slices":-1}}}', b"\xff"],
)  # fmt: skip
def test_a_file_that_is_damaged(content: bytes) -> None:
    REQUEST.parent.mkdir(parents=True)
    REQUEST.write_bytes(content)
    report = write_report(Output.at("out"))
    assert report.problems == [f"{Path.cwd()}/out/.s2cube/request: is not valid. Run the command again"]


def test_more_areas_than_a_page_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MOST_AREAS", 2)
    Path("out").mkdir()
    areas = {name: AskedArea((0, 0, 1, 1), 0) for name in "abc"}
    request.keep_request(Output.at("out"), load_config({"datetime": DATES}, {}), areas)
    assert read_request(Output.at("out")) == Request(DATES, {})


@pytest.mark.slow
class TestInABrowser:
    @pytest.mark.parametrize("command", ["run", "composite"])
    def test_areas_without_scenes(
        self, browser: Browser, s2cube_command: CommandLine, flags: list[Any], command: str
    ) -> None:
        assert s2cube_command(command, *flags, "--report").status == 0
        tab = Tab(browser, Path("out/report.html"))
        summary = tab.page.locator("section").first
        expect(summary).to_contain_text("2022-05-01 to 2022-05-31")
        expect(summary).to_contain_text("Areas without a day1")
        assert tab.page.locator("svg.map").count() == 1
        tab.page.click("text=island")
        expect(tab.page.locator("main h2").first).to_have_text("island")
        expect(tab.page.locator("main")).to_contain_text("no scene of the dates asked for meets this area")
        assert (tab.complaints, tab.outside) == ([], [])

    def test_fields_without_rows(self, browser: Browser, s2cube_command: CommandLine, flags: list[Any]) -> None:
        assert s2cube_command("stats", *flags).status == 0
        for each in Path("out/statistics").iterdir():
            each.unlink()
        assert s2cube_command("report", "out").status == 0
        tab = Tab(browser, Path("out/report.html"))
        expect(tab.page.locator("main")).to_contain_text("2022-05-01 to 2022-05-31")
        expect(tab.page.locator("section").first).to_contain_text("Areas without a day1")
        assert (tab.complaints, tab.outside) == ([], [])

    def test_areas_that_are_not_made_yet(self, browser: Browser, tmp_path: Path) -> None:
        """Names are hostile, and the dates are, too."""
        hostile = "<img src=x onerror=alert(1)>"
        areas = {hostile: {"bounds_lonlat": [1, 2, 3, 4], "slices": 7}, "b": {"bounds_lonlat": [1e9] * 4, "slices": 0}}
        REQUEST.parent.mkdir(parents=True)
        REQUEST.write_text(json.dumps({"datetime": f"{hostile}/..", "areas": areas}))
        assert write_report(Output.at("out")).areas == 2
        tab = Tab(browser, Path("out/report.html"))
        expect(tab.page.locator("main")).to_contain_text(f"{hostile} to ..")
        tab.page.locator("td a, th a").first.click()
        expect(tab.page.locator("main")).to_contain_text("Scenes were found for 7 images, which are not made yet.")
        assert (tab.complaints, tab.outside) == ([], [])
