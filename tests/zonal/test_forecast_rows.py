"""What plan foresees of statistics is what a run needs, by the books of a server."""

from collections.abc import Iterator
from pathlib import Path

import geopandas
import pytest
import shapely

from s2cube.config.loading import load_config
from s2cube.demo.archive import PASSES, Archive
from s2cube.fetch import session
from s2cube.fetch.traffic import Traffic
from s2cube.tables import table
from s2cube.zonal import _source
from s2cube.zonal.forecast_rows import forecast_rows
from support.runs import CommandLine
from support.servers import Faulty, faulty
from support.tables import files_of, rows_of, write_fields

MANY = 42
"""Number of fields that make the batches of 10 m so large that each has one day."""


@pytest.fixture
def server(archive: Archive, new_session: None) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as server:
        yield server


def books(server: Faulty) -> Traffic:
    """Requests for parts of images, and bytes of them."""
    of_images = [each for each in server.reads if each.path.endswith(".tif")]
    sizes = {each.path: (server.root / each.path.strip("/")).stat().st_size for each in of_images}
    return Traffic(len(of_images), sum(min(each.stop, sizes[each.path]) - each.start for each in of_images))


def traffic(facts: dict[str, int], suffix: str = "") -> Traffic:
    return Traffic(facts[f"requests{suffix}"], facts[f"bytes{suffix}"])


@pytest.mark.parametrize("command", ["stats", "run"])
@pytest.mark.parametrize("more", [(), ("--mask", "none", "--indices", "NDVI"), ("--quality", "fast")])
def test_is_exact(
    server: Faulty, s2cube_command: CommandLine, tmp_path: Path, command: str, more: tuple[str, ...]
) -> None:
    words = ["--aoi", write_fields(tmp_path / "fields.parquet"), "--stac", f"{server.url}/items.json", "--json"]
    words += ["--bands", "red,nir", "--statistics", "mean,p10", "--datetime", "2022", *more]
    products = "statistics" if command == "stats" else "images,statistics"
    planned = s2cube_command("plan", "--headers", "--products", products, *words)
    assert planned.status == 0, planned.err
    session.reset()
    server.asked.clear()
    done = s2cube_command(command, *words)
    assert done.status == 0, done.err
    assert traffic(planned.json) == traffic(done.json) == books(server) == traffic(planned.json, "_at_most")
    assert planned.json["rows"] == done.json["rows"] == len(rows_of("out"))
    sizes = [len(content) for name, content in files_of("out").items() if name != "areas.parquet"]
    if command == "stats":
        # Without compression; each file also has a footer of some kB.
        assert planned.json["output_bytes"] >= sum(sizes) - 8_000 * len(sizes)
    tiles = 0 if command == "run" else planned.json["tiles"]
    assert tiles <= planned.json["requests"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stats", "run"])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_is_exact_for_any_number_of_processes(
    server_processes: None, server: Faulty, s2cube_command: CommandLine, tmp_path: Path, processes: int, command: str
) -> None:
    """Batches of different days share no file, so it does not matter which process computes them."""
    fields = write_fields(tmp_path / "fields.parquet", MANY)
    words = ["--aoi", fields, "--stac", f"{server.url}/items.json", "--json", "--resolution", 10]
    words += ["--bands", "red,nir", "--statistics", "mean", "--workers", processes, "--threads", 1]
    products = "statistics" if command == "stats" else "images,statistics"
    planned = s2cube_command("plan", "--headers", "--products", products, *words)
    server.asked.clear()
    done = s2cube_command(command, *words)
    assert done.status == 0, done.err
    assert traffic(planned.json) == traffic(done.json) == books(server) == traffic(planned.json, "_at_most")
    assert planned.json["rows"] == done.json["rows"] == MANY * len(PASSES)
    assert planned.json["processes"] == min(processes, len(PASSES))


def test_images_that_exist_need_rows_only(server: Faulty, s2cube_command: CommandLine, tmp_path: Path) -> None:
    words = ["--aoi", write_fields(tmp_path / "fields.parquet"), "--stac", f"{server.url}/items.json", "--json"]
    words += ["--bands", "red", "--datetime"]
    assert s2cube_command("run", *words, "2022-06").status == 0
    words += ["2022-05/2022-06", "--statistics", "mean"]
    session.reset()
    planned = s2cube_command("plan", "--headers", *words)
    assert (len(planned.json["todo"]), planned.json["rows"]) == (9, 18)
    session.reset()
    server.asked.clear()
    done = s2cube_command("run", *words)
    assert done.status == 0, done.err
    assert traffic(planned.json) == traffic(done.json) == books(server)
    assert (len(done.json["written"]), done.json["rows"]) == (9, 18)
    after = s2cube_command("plan", *words).json
    assert (after["todo"], after["rows"], after["rows_skipped"], after["requests"]) == ([], 0, 18, 0)


def test_both_libraries_plan_the_same_rows(archive: Archive) -> None:
    shapes = [shapely.box(565_000, 4_549_000 + 900 * n, 565_030, 4_549_030 + 900 * n) for n in range(40)]
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32614").to_parquet("fields.parquet")
    flags = {"aoi": "fields.parquet", "stac": str(archive.items), "bands": "red", "out": "out"}
    one, other = (
        forecast_rows(load_config(flags | {"join": name}, {}), headers=False) for name in ("shapely", "sedona")
    )
    assert one.rows > 0
    assert (one.rows, one.days, one.without_scenes) == (other.rows, other.days, other.without_scenes)


def test_parts_are_added(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many fields, each part is planned by itself."""
    shapes = [shapely.box(565_000, 4_549_000 + 90 * n, 565_030, 4_549_030 + 90 * n) for n in range(40)]
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32614").to_parquet("fields.parquet")
    flags = {"aoi": "fields.parquet", "stac": str(archive.items), "bands": "red", "out": "out"}
    whole = forecast_rows(load_config(flags, {}), headers=False)
    assert (whole.rows, whole.areas) == (40 * len(PASSES), 40)
    monkeypatch.setattr(_source, "_FIELDS_AT_ONCE", 1)
    monkeypatch.setattr(table, "_SQUARE_DEG", 0.1)
    parts = forecast_rows(load_config(flags, {}), headers=False)
    assert (parts.rows, parts.areas, parts.days.keys()) == (whole.rows, whole.areas, whole.days.keys())
    assert parts.cost.tiles == 2 * whole.cost.tiles
    assert parts.cost.total.bytes >= whole.cost.total.bytes
