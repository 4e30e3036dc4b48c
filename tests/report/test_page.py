"""The page of an output, in a real browser: what it shows, what it never does, and who can read it."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, expect

import s2cube
from s2cube.composites.compute_composites import compute_composites
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.report.page import write_report
from s2cube.storage.output import Output
from support.browser import Tab

pytestmark = pytest.mark.slow

HOSTILE = (
    "<img src=x onerror=alert(1)>", "</script><script>document.title='run'</script>", "javascript:alert(1)",
    "\" onmouseover=\"alert(1)", "{{SCRIPT}}", "a&amp;<b>", "x]]><!--",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of the demo's farm with images, statistics and composites. Tests must not change it."""
    out = tmp_path_factory.mktemp("made") / "out"
    flags = {"aoi": archive.aoi, "stac": str(archive.items), "resolution": "60", "out": out, "report": True}
    s2cube.run(load_config(flags | {"indices": "NDVI", "statistics": "mean"}, {}), progress=False)
    (out / "report.html").unlink()
    compute_composites(load_config(flags | {"period": "year", "method": "median"}, {}))
    return out


@pytest.fixture(scope="module")
def many(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of 120 areas: copies of the farm, some with hostile names, and lists of what went wrong."""
    out = tmp_path_factory.mktemp("many") / "out"
    names = [f"field-{number:03d}" for number in range(120 - len(HOSTILE))]
    # A folder cannot have a slash in its name.
    for name in [*names, *(each.replace("/", "") for each in HOSTILE)]:
        copy_area(made, out, name)
    lines = [
        {
            "slice": "field-000_20220814",
            "scenes": [HOSTILE[0]],
            "asset": "red",
            "error": HOSTILE[1],
            "time": HOSTILE[2],
        },
        {"slice": f"{HOSTILE[0]}_20220815", "scenes": [], "asset": "", "error": "no answer", "time": ""},
    ]
    (out / "failures.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    rejected = {"slice": "field-001_20220816", "reason": "97 % cloud", "cloud_percent": 97, "recipe": "a"}
    (out / "rejected.jsonl").write_text(json.dumps(rejected) + "\n")
    done = {
        "started": "2026-01-02T03:04:05Z",
        "ended": "2026-01-02T03:05:00Z",
        "found": 4,
        "new": ["a"],
        "late": HOSTILE,
    }
    (out / "sync.jsonl").write_text(json.dumps(done | {"withdrawn": ["S2A_gone"], "requests": 3, "bytes": 5}) + "\n")
    write_report(Output.at(out))
    return out


def copy_area(made: Path, out: Path, name: str) -> None:
    for item in sorted(made.glob("farm/*/*.json")):
        new = item.stem.replace("farm", name, 1)
        folder = out / name / new
        folder.mkdir(parents=True)
        for file in item.parent.iterdir():
            shutil.copy(file, folder / file.name.replace(item.stem, new, 1))
        content = json.loads(item.read_text())
        content["id"], content["collection"] = new, name
        content["properties"]["s2cube:dropped"] = [{"scene": HOSTILE[1], "kept": "b", "reason": HOSTILE[3]}]
        (folder / f"{new}.json").write_text(json.dumps(content))


def width_of(png: Path) -> int:
    with Image.open(png) as picture:
        return picture.width


class TestInABrowser:
    def test_it_shows_what_was_made(self, browser: Browser, made: Path) -> None:
        tab = Tab(browser, made / "report.html")
        shown = tab.page.inner_text("main")
        for fact in ("farm", "NDVI_mean", "2022-06-14", "sentinel-2-l2a", "cloud", "Last run", "Forecast"):
            assert fact in shown
        assert tab.page.locator(".gallery img").count() == 6
        row = tab.page.get_by_role("row").filter(has_text="2021_median")
        assert row.locator("td").all_inner_texts()[:4] == ["median", "2021-01-01", "2021-12-31", "1"]
        assert row.locator("img").evaluate("(each) => each.naturalWidth") == 112
        assert tab.outside == []
        assert tab.complaints == []

    def test_shares_are_those_of_the_qa_images(self, browser: Browser, made: Path) -> None:
        import rasterio

        tab = Tab(browser, made / "report.html")
        tab.page.click("text=Table of days")
        rows = tab.page.locator("details[open] tbody tr")
        expect(rows).to_have_count(6)
        for row in rows.all():
            day, _, *shares = row.locator("th, td").all_inner_texts()[:7]
            with rasterio.open(next(made.glob(f"farm/*_{day.replace('-', '')}/*_qa.tif"))) as file:
                values = file.read(1)
            inside = (values != 255).sum()
            for value, share in enumerate(shares):
                assert int(share.removesuffix(" %")) == pytest.approx(100 * (values == value).sum() / inside, abs=0.6)

    def test_it_asks_for_nothing_and_says_nothing(self, browser: Browser, many: Path) -> None:
        tab = Tab(browser, many / "report.html")
        tab.page.click("text=field-003")
        expect(tab.page.locator("main h2").first).to_have_text("field-003")
        tab.page.click("text=Back to all areas")
        tab.page.click("text=Next")
        expect(tab.page.locator("nav")).to_contain_text("Page 2 of 3")
        assert [each for each in tab.requests if not each.startswith("data:")] == []
        assert tab.complaints == []

    def test_search_and_order(self, browser: Browser, many: Path) -> None:
        tab = Tab(browser, many / "report.html")
        tab.page.fill("#search", "FIELD-01")
        expect(tab.page.get_by_role("status")).to_have_text("10 areas found.")
        assert tab.page.locator("tbody th a").all_inner_texts() == [f"field-01{each}" for each in range(10)]
        tab.page.fill("#search", "")
        tab.page.select_option("#order", "failed")
        assert set(tab.page.locator("tbody th a").all_inner_texts()[:2]) == {"field-000", HOSTILE[0]}

    def test_a_picture_is_enlarged_from_the_png_beside_the_page(
        self, browser: Browser, made: Path, tmp_path: Path
    ) -> None:
        tab = Tab(browser, made / "report.html")
        button = tab.page.locator(".gallery button").nth(1)
        button.focus()
        tab.page.keyboard.press("Enter")
        png = next(made.glob("farm/*_20220520/*.png"))
        expect(tab.page.locator("dialog")).to_be_visible()
        expect(tab.page.locator("#enlarged-picture")).to_have_js_property("naturalWidth", width_of(png))
        assert tab.requests[-1] == png.as_uri()
        tab.page.click("text=Later picture")
        assert "2022-06-14" in tab.page.inner_text("dialog h2")
        tab.page.keyboard.press("Escape")
        expect(tab.page.locator("dialog")).to_be_hidden()
        assert button.evaluate("(each) => document.activeElement === each")
        # Alone, as in a mail, the page shows its small picture and says so.
        shutil.copy(made / "report.html", tmp_path / "mailed.html")
        alone = Tab(browser, tmp_path / "mailed.html")
        alone.page.locator(".gallery button").first.click()
        expect(alone.page.locator("#enlarged-text")).to_contain_text("The PNG is not beside this page")
        expect(alone.page.locator("#enlarged-picture")).to_have_js_property("naturalWidth", 112)

    def test_hostile_names_do_not_run(self, browser: Browser, many: Path) -> None:
        tab = Tab(browser, many / "report.html")
        title, width = tab.page.title(), width_of(next(many.glob("field-000/*/*.png")))
        tab.page.on("dialog", lambda each: tab.complaints.append(each.message))
        names = tab.page.evaluate("data.areas.map((area) => area.id)")
        for name in (each.replace("/", "") for each in HOSTILE):
            assert name in names
            tab.page.evaluate("(name) => { location.hash = `#area=${encodeURIComponent(name)}`; }", name)
            expect(tab.page.locator("main h2").first).to_have_text(name)
            tab.page.click("summary >> nth=0")
            tab.page.locator(".gallery button").first.click()
            expect(tab.page.locator("#enlarged-picture")).to_have_js_property("naturalWidth", width)
            tab.page.keyboard.press("Escape")
        tab.page.evaluate("location.hash = ''")
        for summary in tab.page.locator("summary").all():
            summary.click()
        assert HOSTILE[1] in tab.page.inner_text("main")
        found = tab.page.evaluate("[...document.querySelectorAll('a')].map((link) => link.protocol)")
        assert set(found) == {"file:"}
        assert tab.page.locator("main script, main [onerror], main [onmouseover]").count() == 0
        assert (tab.page.title(), tab.complaints, tab.outside) == (title, [], [])

    def test_the_policy_permits_no_other_script(self, browser: Browser, made: Path, tmp_path: Path) -> None:
        text = (made / "report.html").read_text()
        added = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\"></main>"
        (tmp_path / "changed.html").write_text(text.replace("</main>", added))
        tab = Tab(browser, tmp_path / "changed.html")
        assert tab.page.title() != "run"
        assert any("Content Security Policy" in each for each in tab.complaints)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [375, 1600])
    def test_contrast_names_and_roles(self, browser: Browser, made: Path, many: Path, scheme: str, width: int) -> None:
        for out, place in ((made, ""), (many, ""), (many, "#area=field-000")):
            tab = Tab(browser, out / "report.html", width, color_scheme=scheme, bypass_csp=True)
            tab.page.evaluate("(place) => { location.hash = place; }", place)
            for summary in tab.page.locator("summary").all():
                summary.click()
            found = Axe().run(tab.page).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
            assert tab.page.evaluate("document.documentElement.scrollWidth") == width


class TestFromDamagedFiles:
    def test_problems_are_named(self, made: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(made, out)
        first, second, third, *_ = sorted(out.glob("farm/farm_????????/*.json"))
        first.write_text("{")
        content = json.loads(second.read_text())
        content["properties"] |= {"s2cube:dropped": 5, "s2cube:offset_doubts": "x", "s2cube:clear_percent": "high"}
        content["assets"]["qa"]["classification:classes"] = [{"value": 0, "count": -4}, 7]
        second.write_text(json.dumps(content))
        third.with_name(f"{third.stem}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        (out / "failures.jsonl").write_bytes(b'{"slice": 5}\n\xff\n[]\n{"slice": "farm_20220101"}\n')
        (out / "sync.jsonl").write_text('{"started": "2026-01-01T00:00:00Z", "new": 7, "bytes": -1}\nnull\n')
        (out / "areas.parquet").write_bytes(b"PAR1")
        next(out.glob("statistics/*")).write_bytes(b"no table")
        (out / ".s2cube" / "run").write_text("?")
        report = write_report(Output.at(out))
        problems = "\n".join(report.problems)
        for name in (first.stem, f"{third.stem}.png", "failures.jsonl: 3 of 4", "sync.jsonl: 1 of 2", "statistics/"):
            assert name in problems
        assert report.days == 6  # one Item is lost, one day failed

    def test_the_command(self, made: Path, tmp_path: Path, s2cube_command: object) -> None:
        out = tmp_path / "out"
        shutil.copytree(made, out)
        (out / "report.html").unlink()
        done = s2cube_command("report", out, "--json")  # type: ignore[operator]
        assert (done.status, done.json["areas"], done.json["days"], done.json["problems"]) == (0, 1, 6, [])
        assert done.json["size"] == (out / "report.html").stat().st_size
        assert "1 area, 6 days" in done.err

    def test_a_table_without_images(self, browser: Browser, made: Path, tmp_path: Path) -> None:
        for name in ("statistics", "areas.parquet"):
            source = made / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
        assert write_report(Output.at(tmp_path)).days == 6
        tab = Tab(browser, tmp_path / "report.html")
        assert "NDVI_mean" in tab.page.inner_text("main")
        assert tab.page.locator("svg.map").count() == 1
        assert tab.complaints == []

    def test_a_value_is_that_of_the_table(self, browser: Browser, made: Path) -> None:
        table = pa.concat_tables([pq.read_table(each) for each in made.glob("statistics/*")])
        wanted = dict(zip(table["date"].to_pylist(), table["NDVI_mean"].to_pylist(), strict=True))
        tab = Tab(browser, made / "report.html")
        tab.page.click("text=Table of NDVI_mean")
        rows = tab.page.locator("details[open] tbody tr")
        expect(rows).to_have_count(len(wanted))
        found = [row.locator("th, td").all_inner_texts() for row in rows.all()]
        for (day, value), (expected_day, expected) in zip(found, sorted(wanted.items()), strict=True):
            assert (day, float(value)) == (expected_day.isoformat(), pytest.approx(expected, rel=1e-3))


def test_an_empty_output(browser: Browser, tmp_path: Path) -> None:
    assert write_report(Output.at(tmp_path)).areas == 0
    tab = Tab(browser, tmp_path / "report.html")
    assert re.search(r"Areas\s+0", tab.page.inner_text("main"))
    assert tab.complaints == []
