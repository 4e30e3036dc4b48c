"""Measure the page of a large output: how long it takes to write, its size, and how long a browser takes to open it.

Areas are copies of a real slice of the simulated archive, at other places and with other shares of cloud:

    python benchmarks/report_page.py FOLDER --areas 200 --days 73 --browser /usr/bin/chromium

The folder keeps the output, so that a second call measures at once. `--browser` needs playwright. With `--page-only`
there is no output: the page is that of areas that exist only in memory, with 2,000 small pictures.
"""

import argparse
import json
import random
import resource
import shutil
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import shapely.affinity

import s2cube
from s2cube.config.loading import load_config
from s2cube.demo.archive import write_archive
from s2cube.inventory.catalog import write_catalog
from s2cube.report._areas import Day, state_of
from s2cube.report._data import page_data
from s2cube.report._gathering import Facts
from s2cube.report.page import page_of, write_report
from s2cube.storage.output import Output

FIRST_DAY = date(2024, 1, 3)
FIELD = (565000.0, 4549000.0, 566000.0, 4549900.0)
SUFFIXES = (".tif", "_qa.tif", ".png", ".qml", "_qa.qml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--areas", type=int, default=200)
    parser.add_argument("--days", type=int, default=73)
    parser.add_argument("--browser", help="path of Chromium")
    parser.add_argument("--page-only", action="store_true")
    given = parser.parse_args()
    if given.page_only:
        measure_page(given)
        return
    out = given.folder / f"{given.areas}x{given.days}"
    if not (out / "items.parquet").exists():
        shutil.rmtree(out, ignore_errors=True)
        make_output(out, given)
    began, cpu = time.perf_counter(), time.process_time()
    report = write_report(Output.at(out))
    print(
        f"{report.areas} areas, {report.days} days: {time.perf_counter() - began:.1f} s, "
        f"{time.process_time() - cpu:.1f} s of CPU, {report.size / 1e6:.1f} MB, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB of memory"
    )
    if given.browser:
        open_page(out / "report.html", given.browser)


def measure_page(given: argparse.Namespace) -> None:
    facts, chance = Facts(Output.at(given.folder)), random.Random(1)
    scenes = [f"S2A_14T{chance.choice('NPQ')}L_{each:08d}_0_L2A" for each in range(given.days * 2)]
    for number in range(given.areas):
        area = facts.area(f"field-{number:05d}")
        row, column = divmod(number, 100)
        centre = shapely.Point(10 + 0.02 * column, 47 + 0.01 * row)
        area.outline = shapely.geometry.mapping(centre.buffer(0.004, quad_segs=chance.choice((1, 2, 4, 8))))
        for step in range(given.days):
            cloud, shadow = chance.choice((0.0, 0.0, 12.3, 37.5, 80.1, 100.0)), chance.choice((0.0, 0.0, 3.4))
            shares = {"clear": max(0.0, 100 - cloud - shadow), "cloud": cloud, "shadow": shadow}
            shares |= {"other": 0.0, "no_data": 0.0}
            day = FIRST_DAY + timedelta(5 * step)
            area.days.append(
                Day(f"{day:%Y%m%d}", day, state_of(shares), shares, tuple(scenes[step * 2 : step * 2 + 2]))
            )
    began = time.perf_counter()
    data = page_data(facts)
    data["pictures"] = ["A" * 2600] * 2000
    page = given.folder / "page.html"
    page.write_text(page_of(data))
    took = time.perf_counter() - began
    print(f"{given.areas} areas, {given.areas * given.days} days: {took:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
    if given.browser:
        open_page(page, given.browser)


def make_output(out: Path, given: argparse.Namespace) -> None:
    archive = write_archive(given.folder / "archive")
    frame = given.folder / "field.geojson"
    import geopandas

    geopandas.GeoDataFrame({"id": ["field"]}, geometry=[shapely.box(*FIELD)], crs="EPSG:32614").to_crs(4326).to_file(
        frame
    )
    made = given.folder / "field"
    s2cube.run(load_config({"aoi": frame, "stac": str(archive.items), "out": made}, {}), progress=False)
    items = sorted(made.glob("field/*/*.json"))
    chance = random.Random(1)
    for number in range(given.areas):
        for step in range(given.days):
            copy_slice(out, items[step % len(items)], f"field-{number:05d}", FIRST_DAY + timedelta(5 * step), chance)
    write_catalog(Output.at(out), ())


def copy_slice(out: Path, item: Path, aoi_id: str, day: date, chance: random.Random) -> None:
    slice_id = f"{aoi_id}_{day:%Y%m%d}"
    folder = out / aoi_id / slice_id
    folder.mkdir(parents=True)
    for suffix in SUFFIXES:
        (folder / f"{slice_id}{suffix}").hardlink_to(item.with_name(f"{item.stem}{suffix}"))
    content: dict[str, Any] = json.loads(item.read_text().replace(item.stem, slice_id))
    content["collection"] = aoi_id
    content["properties"]["datetime"] = f"{day}T17:19:31Z"
    row, column = divmod(int(aoi_id[-5:]), 100)
    moved = shapely.affinity.translate(shapely.geometry.shape(content["geometry"]), 0.02 * column, 0.02 * row)
    content["geometry"], content["bbox"] = shapely.geometry.mapping(moved), list(moved.bounds)
    cloud = chance.choice((0, 0, 10, 30, 80, 100))
    for each in content["assets"]["qa"]["classification:classes"]:
        each["count"] = {0: 9 * (100 - cloud), 1: 9 * cloud, 255: 90}.get(each["value"], 0)
    content["properties"]["s2cube:clear_percent"] = 100 - cloud
    (folder / f"{slice_id}.json").write_text(json.dumps(content))


def open_page(page: Path, browser: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for width in (375, 1600):
            tab = started.new_page(viewport={"width": width, "height": 900})
            began = time.perf_counter()
            tab.goto(page.absolute().as_uri())
            tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            print(f"opened at {width} pixels: {time.perf_counter() - began:.2f} s")
        started.close()


if __name__ == "__main__":
    main()
