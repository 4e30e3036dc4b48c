"""The command line as users and their scripts meet it: outputs, summary, exit status, bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import pystac
import pytest
import rasterio
from pytest_httpserver import HTTPServer

from s2cube.config.loading import settings
from s2cube.demo.archive import PASSES, Archive
from support import servers
from support.runs import FARM, CommandLine, Job


def files(folder: Path) -> set[str]:
    """Name what lies in a folder, but for s2cube's own record of its last run."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {".s2cube/run", ".s2cube/request", ".s2cube/lock"}


def test_what_a_run_leaves(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    done = s2cube_command(*job("--bands", "blue,swir16"))
    assert done.status == 0, done.err
    days = [f"corner_{each.time:%Y%m%d}" for each in PASSES]
    assert [Path(path).stem for path in done.json["written"]] == days
    assert done.json["skipped"] == done.json["rejected"] == done.json["failed"] == []
    of_slices = {
        f"corner/{day}/{day}{suffix}" for day in days for suffix in (".tif", "_qa.tif", "_qa.qml", ".png", ".json")
    }
    of_area = {"corner/collection.json", "corner/timeline.png"}
    assert files(tmp_path / "out") == of_slices | of_area | {"catalog.json", "items.parquet"}
    assert "6 slices written to out" in done.err


def test_a_second_run_does_nothing_and_says_so(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    first = s2cube_command(*job("--bands", "blue"))
    out = tmp_path / "out"
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    second = s2cube_command(*job("--bands", "blue"))
    assert second.status == 0
    assert second.json["written"] == []
    assert second.json["skipped"] == [Path(path).stem for path in first.json["written"]]
    assert "Nothing new to do" in second.err
    assert {name: (out / name).stat().st_mtime_ns for name in files(out)} == before


def test_a_catalogue_that_was_lost_is_written_again(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    s2cube_command(*job("--bands", "blue"))
    catalog = tmp_path / "out" / "catalog.json"
    before = catalog.read_text()
    catalog.unlink()
    assert s2cube_command(*job("--bands", "blue")).json["written"] == []
    assert catalog.read_text() == before


def test_overwrite_makes_slices_again(s2cube_command: CommandLine, job: Job) -> None:
    (path, *_) = map(Path, s2cube_command(*job("--bands", "blue")).json["written"])
    before = path.stat().st_mtime_ns
    again = s2cube_command(*job("--bands", "blue", "--overwrite"))
    assert len(again.json["written"]) == len(PASSES)
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "change",
    [
        ["--bands", "green"], ["--bands", "blue,green"], ["--resolution", "60"], ["--crs", "EPSG:3857"],
        ["--dtype", "float32"], ["--mask", "none"],
    ],
)  # fmt: skip
def test_other_settings_make_slices_again(s2cube_command: CommandLine, job: Job, change: list[str]) -> None:
    usual = {"--bands": "blue", "--datetime": "2021"}
    words = [word for flag in usual.items() for word in flag]
    s2cube_command(*job(*words))
    assert s2cube_command(*job(*words)).json["written"] == []
    changed = [word for flag in (usual | {change[0]: change[1]}).items() for word in flag]
    assert len(s2cube_command(*job(*changed)).json["written"]) == 1


def test_another_outline_or_a_late_granule_makes_a_slice_again(
    s2cube_command: CommandLine, job: Job, archive: Archive, small_aoi: Path, tmp_path: Path
) -> None:
    page = json.loads(archive.items.read_text())
    late = [each for each in page["features"] if each["id"] == "S2A_14TPL_20220709_0_L2A"]
    for each in page["features"]:
        for asset in each["assets"].values():
            asset["href"] = str(archive.items.parent / asset["href"])
    page["features"] = [each for each in page["features"] if each not in late]
    early = write(tmp_path / "early.json", json.dumps(page))
    words = ["--bands", "blue", "--datetime", "2022-07", "--aoi", archive.aoi]
    s2cube_command(*job(*words, "--stac", early))
    (made,) = s2cube_command(*job(*words)).json["written"]
    item = pystac.Item.from_file(str(Path(made).with_suffix(".json")))
    assert item.properties["s2cube:scenes"] == ["S2A_14TNL_20220709_0_L2A", "S2A_14TPL_20220709_0_L2A"]

    shutil.copy(small_aoi, tmp_path / "mine.geojson")
    here = ["--bands", "blue", "--datetime", "2022-07", "--aoi", "mine.geojson"]
    s2cube_command(*job(*here))
    moved = geopandas.read_file(small_aoi)
    moved.geometry = moved.geometry.translate(0.001)
    moved.to_file(tmp_path / "mine.geojson")
    assert len(s2cube_command(*job(*here)).json["written"]) == 1


def test_a_slice_without_its_item_is_made_again(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    (path, *_) = map(Path, s2cube_command(*job("--bands", "blue")).json["written"])
    path.with_suffix(".json").unlink()
    path.write_bytes(b"half a file")
    left_over = tmp_path / "out" / ".s2cube" / "parts" / "0123" / path.name
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes(b"half a file")
    done = s2cube_command(*job("--bands", "blue"))
    assert done.json["written"] == [str(path)]
    assert len(done.json["skipped"]) == len(PASSES) - 1
    assert not left_over.exists()
    with rasterio.open(path) as cog:
        assert cog.read(1).max() > 0


def test_what_fails_is_named_and_the_rest_is_written(
    s2cube_command: CommandLine, job: Job, archive: Archive, archive_items: list[dict[str, Any]], tmp_path: Path
) -> None:
    items = json.loads(json.dumps(archive_items))
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = str(archive.items.parent / asset["href"])
    broken, lacking, mute, cut = (item for item in items[:8:2])
    broken["assets"]["blue"]["href"] = str(tmp_path / "not there.tif")
    del lacking["assets"]["blue"]
    del mute["properties"]["earthsearch:boa_offset_applied"]
    source = Path(cut["assets"]["scl"]["href"])
    short = tmp_path / "short.tif"
    short.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    cut["assets"]["scl"]["href"] = str(short)
    stac = tmp_path / "broken.json"
    stac.write_text(json.dumps({"type": "FeatureCollection", "features": items}))

    done = s2cube_command(*job("--bands", "blue", "--stac", stac))
    assert done.status == 3
    assert len(done.json["written"]) == 2
    errors = {failure["slice"]: failure["error"] for failure in done.json["failed"]}
    assert "not there.tif" in errors["corner_20210724"]
    assert f"{lacking['id']}: has no asset 'blue'" in errors["corner_20220520"]
    assert f"{mute['id']}: does not say whether the offset of processing baseline 04.00" in errors["corner_20220614"]
    assert "short.tif" in errors["corner_20220709"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert {line["slice"]: line["asset"] for line in lines} == {
        "corner_20210724": "blue", "corner_20220520": "blue", "corner_20220614": "", "corner_20220709": "scl",
    }  # fmt: skip
    assert all(set(line) == {"slice", "scenes", "asset", "error", "time"} for line in lines)
    assert not (tmp_path / "out" / "corner" / "corner_20210724" / "corner_20210724.tif").exists()
    assert "4 FAILED" in done.err
    catalog = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    assert len(list(catalog.get_items(recursive=True))) == 2

    healed = s2cube_command(*job("--bands", "blue"))
    assert healed.status == 0
    assert len(healed.json["written"]) == 4
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_over_http_as_from_files(s2cube_command: CommandLine, job: Job, archive_url: str, tmp_path: Path) -> None:
    from_files = s2cube_command(*job())
    over_http = s2cube_command(*job("--stac", f"{archive_url}/items.json", "--out", "http"))
    assert over_http.status == 0, over_http.err
    assert len(over_http.json["written"]) == len(PASSES)
    for one, other in zip(from_files.json["written"], over_http.json["written"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()


def test_one_image_a_scene(s2cube_command: CommandLine, job: Job, archive_items: list[dict[str, Any]]) -> None:
    done = s2cube_command(*job("--bands", "blue", "--group-by", "scene"))
    west = [f"corner_{item['id']}" for item in archive_items if "14TNL" in item["id"]]
    assert [Path(path).stem for path in done.json["written"]] == west


def test_dry_run_and_plan_write_nothing(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    for words in (job("--dry-run"), job(command="plan")):
        done = s2cube_command(*words)
        assert done.status == 0
        assert done.json["todo"] == [f"corner_{each.time:%Y%m%d}" for each in PASSES]
        assert not (tmp_path / "out").exists()
    table = s2cube_command(*(word for word in job(command="plan") if word != "--json"))
    assert "corner_20210724" in table.out
    assert "to do" in table.out


def test_settings_from_file_and_environment(
    s2cube_command: CommandLine, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s2cube.toml").write_text('[cube]\nbands = ["swir16"]\n[search]\nmax_items = 1\n')
    monkeypatch.setenv("S2CUBE_CUBE__RESOLUTION", "60")
    (path,) = s2cube_command(*job()).json["written"]
    with rasterio.open(path) as cog:
        assert cog.descriptions == ("swir16",)
        assert cog.res == (60, 60)


def test_what_else_lies_in_the_folder_does_no_harm(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    for name, text in (
        ("x/y/y.json", '{"type": "Feature"}'),
        ("corner/z/z.json", "[]"),
        ("failures.jsonl", '{"slice": "cor'),
    ):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = s2cube_command(*job("--bands", "blue"))
    assert done.status == 0, done.err
    catalog = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    assert [child.id for child in catalog.get_children()] == ["corner"]
    assert len(list(catalog.get_items(recursive=True))) == len(PASSES)


def test_deciding_loads_nothing_that_computes(archive: Archive, tmp_path: Path) -> None:
    look = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "from s2cube.cli.commands import main;"
        f"main(['plan', '--stac', {str(archive.items)!r}, '--aoi', {str(archive.aoi)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "farm_20210724" in done.stdout
    assert not set(done.stderr.split()) & {"stackstac", "distributed", "xarray", "rioxarray"}


def test_lines_are_whole_and_in_any_locale(
    server_processes: None, archive: Archive, small_aoi: Path, tmp_path: Path
) -> None:
    page = json.loads(archive.items.read_text())
    page["features"] = page["features"][:1]
    page["features"][0]["id"] = (
        "Äcker and a name that is longer than a line of eighty characters would hold, as names are"
    )
    page["features"][0]["assets"]["blue"]["href"] = "/nowhere/with/a/long/path/that/no/narrow/window/could/hold/B02.tif"
    scl = page["features"][0]["assets"]["scl"]
    scl["href"] = str(archive.items.parent / scl["href"])
    stac = write(tmp_path / "one.json", json.dumps(page))
    command = [sys.executable, "-m", "s2cube", "run", "--stac", stac, "--aoi", small_aoi, "--bands", "blue", "--json"]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        cwd=tmp_path,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1:replace"},
    )
    assert done.returncode == 3
    (line,) = [each for each in done.stderr.decode("latin-1").splitlines() if "failed" in each]
    assert "/nowhere/with/a/long/path/that/no/narrow/window/could/hold/B02.tif: cannot be read" in line
    assert json.loads(done.stdout.splitlines()[-1])["failed"][0]["slice"] == "corner_20210724"


def test_several_aois(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    import shapely

    west, east = shapely.box(*FARM), shapely.box(570000, 4549000, 571000, 4550000)
    frame = geopandas.GeoDataFrame({"crop": ["Maïs/1", "soy"]}, geometry=[west, east], crs="EPSG:32614")
    frame.to_file(tmp_path / "fields.gpkg")
    words = job("--aoi", "fields.gpkg", "--aoi-id", "crop", "--bands", "blue", "--datetime", "2022-05/2022-06")
    done = s2cube_command(*words)
    assert [Path(path).stem for path in done.json["written"]] == [
        "Maïs-1_20220520", "Maïs-1_20220614", "soy_20220520", "soy_20220614",
    ]  # fmt: skip
    catalog = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    assert [child.id for child in catalog.get_children()] == ["Maïs-1", "soy"]


def test_many_aois_open_the_catalogue_once(
    s2cube_command: CommandLine, archive: Archive, httpserver: HTTPServer, tmp_path: Path
) -> None:
    import shapely

    httpserver.expect_request("/items.json").respond_with_data(archive.items.read_text())
    fields = [shapely.box(565000 + 300 * n, 4549000, 565200 + 300 * n, 4549200) for n in range(10)]
    geopandas.GeoDataFrame(geometry=fields, crs="EPSG:32614").to_file(tmp_path / "fields.gpkg")
    done = s2cube_command("plan", "--aoi", "fields.gpkg", "--stac", httpserver.url_for("/items.json"), "--json")
    assert len(done.json["todo"]) == 10 * len(PASSES)
    assert len(httpserver.log) == 1


def test_nothing_found_is_no_error(s2cube_command: CommandLine, job: Job) -> None:
    done = s2cube_command(*job("--datetime", "1999", "--max-cloud", "7"))
    assert done.status == 0
    assert done.json["written"] == []
    line = " ".join(done.err.split())
    assert "No scene matched: collection sentinel-2-l2a" in line
    assert "in 1999-01-01/1999-12-31," in line
    assert "7 %" in line
    assert "higher --max-cloud" in line


def test_quiet_where_stderr_is_no_terminal(s2cube_command: CommandLine, job: Job) -> None:
    done = s2cube_command(*job("--bands", "blue", "-q"))
    assert done.err == ""
    assert len(done.out.splitlines()) == 1


def test_as_a_program_with_its_own_cluster(
    server_processes: None, archive: Archive, small_aoi: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "s2cube", "run", "--aoi", small_aoi, "--stac", archive.items, "--json"]
    done = subprocess.run(
        # At 5 m, days are so large that they are not read together.
        [*map(str, command), "--bands", "blue", "--resolution", "5", "--out", "out", "--max-items=2", "--workers=3"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["written"]) == 2
    waited_for = [line for line in done.stderr.splitlines() if line.startswith(("info: searching", "info: starting"))]
    assert waited_for == ["info: starting 3 workers", f"info: searching {archive.items}"]
    assert "\x1b" not in done.stderr
    assert "Warning" not in done.stderr


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def no_prj(folder: Path) -> Path:
    import shapely

    frame = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    frame.to_file(folder / "fields.shp")
    (folder / "fields.prj").unlink()
    return folder / "fields.shp"


def outline(folder: Path, x: float, y: float) -> Path:
    import shapely

    corners = shapely.geometry.mapping(shapely.box(x, y, x + 0.01, y + 0.01))
    return write(folder / "a.geojson", json.dumps({"type": "Feature", "properties": {}, "geometry": corners}))


EMPTY = '{"type": "FeatureCollection", "features": []}'
BAD = {
    "no AOI file": (["--aoi", "nowhere.geojson"], "nowhere.geojson: there is no such file"),
    "no vector file": (["--aoi", lambda folder: write(folder / "a.geojson", "hello")], "cannot be read as a vector"),
    "AOI without features": (["--aoi", lambda folder: write(folder / "a.geojson", EMPTY)], "contains no features"),
    "AOI without CRS": (["--aoi", no_prj], "has no CRS"),
    "unknown band": (["--bands", "blue,ultraviolet"], "no such band. Known: coastal, blue, green"),
    "band twice": (["--bands", "blue,blue"], "--bands: a band is named twice"),
    "no datetime": (["--datetime", "yesterday"], "--datetime: 'yesterday' is not a date"),
    "no such day": (["--datetime", "2023-02-30"], "--datetime: day is out of range"),
    "datetime backwards": (["--datetime", "2024-06/2024-01"], "--datetime: '2024-06/2024-01' ends before it begins"),
    "negative resolution": (["--resolution", "-30"], "--resolution: '-30' is less than 1"),
    "huge resolution": (["--resolution", "1000000"], "--resolution: '1000000' is more than 10000"),
    "deprecated CRS": (["--crs", "EPSG:2163"], "--crs: 'EPSG:2163' is deprecated by EPSG; use EPSG:9311"),
    "latitude first": (["--aoi", lambda folder: outline(folder, 41.1, -98.2)], "has coordinates that are not degrees"),
    "metres as degrees": (["--aoi", lambda folder: outline(folder, 567000, 4550000)], "give longitude first"),
    "no number": (["--resolution", "thirty"], "--resolution: 'thirty' is not a number"),
    "unknown CRS": (["--crs", "EPSG:99999"], "--crs: 'EPSG:99999' is not a CRS"),
    "CRS in degrees": (["--crs", "EPSG:4326"], "is not a projected CRS in metres"),
    "unknown TOML key": (
        ["--config", lambda folder: write(folder / "c.toml", "[search]\nmax_clouds = 3\n")],
        "[search] max_clouds: unknown key. Keys of [search]: collection, datetime, max_cloud",
    ),
    "unknown TOML section": (
        ["--config", lambda folder: write(folder / "c.toml", "[find]\nx = 3\n")], "unknown section. Sections: [job]",
    ),
    "no TOML": (["--config", lambda folder: write(folder / "c.toml", "[search")], "cannot be read as TOML"),
    "no such config": (["--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
    "out is a file": (["--out", lambda folder: write(folder / "taken", "")], "taken: cannot be written"),
    "out with a key": (["--out", "s3://key:secret@bucket/x"], "s3://…@bucket/x: s2cube cannot write there"),
    "out on another": (["--out", "abfs://bucket/x"], "abfs://bucket/x: s2cube cannot write there"),
    "unknown flag": (["--max-clod", "3"], "--max-clod: is not a flag of run. Did you mean --max-cloud?"),
    "unknown mask": (["--mask", "fog"], "--mask: 'fog' is unknown. Expected: none, or LAYERS"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_wrong_usage(s2cube_command: CommandLine, job: Job, tmp_path: Path, case: str) -> None:
    arguments, line = BAD[case]
    given = [word(tmp_path) if callable(word) else word for word in arguments]
    done = s2cube_command(*job(*given))
    assert done.status == 2, done.err
    (said,) = [each for each in done.err.splitlines() if each.startswith("s2cube: ")]
    assert line in said
    assert "Traceback" not in done.err


def test_unknown_variable(s2cube_command: CommandLine, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2CUBE_SEARCH__MAX_CLOUDS", "3")
    done = s2cube_command(*job())
    assert done.status == 2
    assert "S2CUBE_SEARCH__MAX_CLOUDS: unknown key" in done.err


def test_repeated_flag_is_wrong_usage(s2cube_command: CommandLine) -> None:
    assert s2cube_command("run", "--stac", "a", "--stac", "b").status == 2


@pytest.mark.usefixtures("new_session")
@pytest.mark.parametrize("command", ["run", "search", "plan"])
def test_catalogue_that_does_not_answer(s2cube_command: CommandLine, job: Job, command: str) -> None:
    done = s2cube_command(*job("--stac", f"http://127.0.0.1:{servers.free_port()}/v1", command=command))
    assert done.status == 1
    assert "does not answer" in done.err
    assert "Traceback" not in done.err


def test_catalogue_that_answers_html(s2cube_command: CommandLine, job: Job, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("<html>Welcome</html>", content_type="text/html")
    done = s2cube_command(*job("--stac", httpserver.url_for("/")))
    assert done.status == 1
    assert "returns something that is not JSON" in done.err


def test_catalogue_without_the_collection(s2cube_command: CommandLine, job: Job) -> None:
    done = s2cube_command(*job("--collection", "landsat"))
    assert done.status == 1
    assert "has no collection 'landsat'. Its collections: sentinel-2-l2a" in done.err


def test_catalogue_that_is_no_stac(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    done = s2cube_command(*job("--stac", write(tmp_path / "x.json", '{"a": 1}')))
    assert done.status == 1
    assert "is not a STAC catalogue" in done.err


def test_no_scheduler(s2cube_command: CommandLine, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2cube.cluster.client._CONNECT_TIMEOUT_S", 1)
    done = s2cube_command(*job("--scheduler", f"tcp://127.0.0.1:{servers.free_port()}"))
    assert done.status == 1
    assert "no Dask scheduler answers" in done.err


def test_traceback_only_on_request(s2cube_command: CommandLine, job: Job) -> None:
    assert "Traceback" in s2cube_command(*job("--bands", "x", "-vv")).err
    assert "Traceback" not in s2cube_command(*job("--bands", "x", "-v")).err


@pytest.mark.usefixtures("new_session")
def test_credentials_are_never_shown(s2cube_command: CommandLine, job: Job, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1").respond_with_data("nobody", status=401)
    address = httpserver.url_for("/v1").replace("http://", "http://me:secret@")
    gone = f"http://me:secret@127.0.0.1:{servers.free_port()}/v1"
    for stac, problem in ((address, "answers 401"), (gone, "does not answer")):
        for loud in ("-q", "-v", "-vv"):
            done = s2cube_command(*job("--stac", f"{stac}?sig=hidden", loud))
            assert done.status == 1
            assert problem in done.err
            assert "secret" not in done.err + done.out
            assert "hidden" not in done.err + done.out


def test_unwritable_out_is_found_before_searching(s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    write(tmp_path / "out", "")
    done = s2cube_command(*job("--stac", "http://127.0.0.1:9/nothing"))
    assert done.status == 2


def test_no_secret_in_what_is_said_of_nothing_or_of_bugs() -> None:
    from odc.geo.geom import box

    from s2cube.area.aoi import AOI
    from s2cube.cli._reports import no_scene_message
    from s2cube.config.sections import JobConfig, SearchSection
    from s2cube.scenes.time_slice import Plan, TimeSlice
    from s2cube.workers.results import failed

    secret = "https://me:secret@host/v1?sig=hidden"
    said = no_scene_message(JobConfig(search=SearchSection(stac=secret)))
    nowhere = AOI("x", box(0, 0, 1, 1, "EPSG:4326"))
    plan = Plan(nowhere, None, (TimeSlice("x_1", None, None, (), (), ""),))  # type: ignore[arg-type]
    failure = failed(plan.tasks()[0], ValueError(f"no {secret}")).failure
    assert failure is not None
    for text in (said, failure.error):
        assert "host/v1" in text
        assert "secret" not in text
        assert "hidden" not in text


def test_a_bounded_number_is_in_flight(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are submitted as others are done, so that ten thousand take no more memory than ten; one is retried."""
    from distributed import Client

    from s2cube.cluster.policy import Retry
    from s2cube.cluster.stream import Stream

    submit, handed_out = Client.submit, []
    retried: list[int] = []

    def decide(task: int, returned: object, attempt: int) -> object:
        if task != 7 or attempt > 1:
            return returned
        retried.append(task)
        return Retry(0.01)

    monkeypatch.setattr(Client, "submit", lambda *words, **more: handed_out.append(words) or submit(*words, **more))
    with Client(scheduler) as client:
        threads = sum(client.nthreads().values())
        results: dict[int, object] = {}

        def tasks() -> Iterator[tuple[str, int]]:
            for task in range(100):
                assert task - len(results) - len(retried) <= 2 * threads + 1
                yield str(task), task

        for task, result in Stream(client, _double_or_fail, tasks(), SimpleNamespace(decide=decide), 60):
            results[task] = result
            assert len(handed_out) - len(results) - len(retried) <= 2 * threads
        deadline = time.monotonic() + 10
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline, "the scheduler still knows of slices that are done"
    assert len(handed_out) == 101
    assert isinstance(results.pop(50), ZeroDivisionError)
    assert results == {task: 2 * task for task in range(100) if task != 50}


def _double_or_fail(task: int) -> int:
    if task == 50:
        raise ZeroDivisionError
    return 2 * task


def test_help_gives_every_default(s2cube_command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default of 0, too, which equals False."""
    monkeypatch.setenv("COLUMNS", "1000")
    text = "".join(s2cube_command(name, "--help").out.partition("Example")[0] for name in ("run", "composite", "sync"))
    for _, key, setting in settings():
        if setting.annotation is not bool and isinstance(setting.default, int | float | str):
            (line,) = {each for each in text.splitlines() if re.search(rf" --{key.replace('_', '-')} ", each)}
            assert f"Default: {setting.default}." in line
