"""What plan foresees is what a run takes, by the books of a server."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st

import s2cube
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import ReadGrid, read_grid
from s2cube.demo.archive import PASSES, Archive
from s2cube.fetch import session
from s2cube.fetch.cache import FileCache, Span
from s2cube.fetch.traffic import Traffic
from s2cube.jobs._cost import NeededFile, Sharing
from s2cube.scenes.plan import make_plan
from s2cube.scenes.time_slice import Plan
from support.runs import FARM, CommandLine, in_this_process
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, ramp, rectangle, scene
from support.servers import Faulty, faulty


@pytest.fixture
def served(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The archive; runs compute in this process, with a cache of its own."""
    monkeypatch.setattr("s2cube.jobs.pipeline._compute", in_this_process)
    session.reset()
    with faulty(archive.items.parent) as server:
        yield server


def books(server: Faulty) -> dict[str, int]:
    """Requests for parts of images, and bytes of them."""
    of_images = [each for each in server.reads if each.path.endswith(".tif")]
    sizes = {each.path: (server.root / each.path.strip("/")).stat().st_size for each in of_images}
    return {
        "requests": len(of_images),
        "bytes": sum(min(each.stop, sizes[each.path]) - each.start for each in of_images),
    }


def two_fields(folder: Path) -> Path:
    """Two areas that share tiles."""
    left, bottom, right, top = FARM
    areas = [shapely.box(*FARM), shapely.box(left + 600, bottom + 300, right + 900, top + 600)]
    frame = geopandas.GeoDataFrame({"id": ["one", "two"]}, geometry=areas, crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(folder / "fields.geojson")
    return folder / "fields.geojson"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--quality", "fast"),
        ("--mask", "none"),
        ("--dilation", 300),
        ("--crs", "EPSG:32613"),
        ("--max-aoi-cloud", 100),
    ],
)
def test_plan_with_headers_is_exact(
    served: Faulty, s2cube_command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[Any, ...]
) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", f"{served.url}/items.json", "--json", *more]
    foreseen = s2cube_command("plan", "--headers", *words).json
    session.reset()
    served.asked.clear()
    done = s2cube_command("run", *words)
    assert done.status == 0, done.err
    assert done.json["failed"] == []
    taken = {key: done.json[key] for key in ("requests", "bytes")}
    assert taken == books(served)
    assert taken == {key: foreseen[key] for key in taken}
    assert foreseen["exact"] is True
    # No byte twice, but the headers, of a file.
    parts = sorted((each.path, each.start, each.stop) for each in served.reads if each.path.endswith(".tif"))
    for (path, _, stop), (other, start, _) in pairwise(parts):
        assert path != other or start >= stop or stop == 16384


@pytest.mark.parametrize(
    ("bands", "files"),
    [("none", {"B04", "B08", "SCL"}), ("blue,nir", {"B02", "B04", "B08", "SCL"}), ("nir,red", {"B04", "B08", "SCL"})],
)
def test_bands_of_indices_are_foreseen_and_read(
    served: Faulty, s2cube_command: CommandLine, tmp_path: Path, bands: str, files: set[str]
) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", f"{served.url}/items.json", "--json", "--datetime", "2022-06"]
    words += ["--bands", bands, "--indices", "ndvi"]
    foreseen = s2cube_command("plan", "--headers", *words).json
    session.reset()
    served.asked.clear()
    done = s2cube_command("run", *words)
    assert done.status == 0, done.err
    taken = {key: done.json[key] for key in ("requests", "bytes")}
    assert taken == books(served) == {key: foreseen[key] for key in taken}
    assert {Path(each.path).stem for each in served.reads if each.path.endswith(".tif")} == files
    for path in done.json["written"]:
        with rasterio.open(path) as cog:
            assert cog.descriptions == (*(bands.split(",") if bands != "none" else ()), "NDVI")
    without = s2cube_command("plan", *words[:-4], "--bands", "nir,red").json
    assert (foreseen["output_bytes"] > without["output_bytes"]) == (bands != "none")


@pytest.mark.parametrize("mask", ["scl", "none"])
def test_the_scene_classification_is_read_once(
    served: Faulty, s2cube_command: CommandLine, tmp_path: Path, mask: str
) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", f"{served.url}/items.json", "--json", "--datetime", "2022"]
    words += ["--bands", "red,scl,qa", "--mask", mask]
    foreseen = s2cube_command("plan", "--headers", *words).json
    session.reset()
    served.asked.clear()
    done = s2cube_command("run", *words)
    assert done.status == 0, done.err
    assert {key: done.json[key] for key in ("requests", "bytes")} == books(served)
    assert books(served) == {key: foreseen[key] for key in ("requests", "bytes")}
    parts = sorted((each.path, each.start, each.stop) for each in served.reads if each.path.endswith("SCL.tif"))
    assert len({path for path, *_ in parts}) > 1
    for (path, _, stop), (other, start, _) in pairwise(parts):
        assert path != other or start >= stop or stop == 16384
    with rasterio.open(done.json["written"][0]) as cog:
        assert cog.descriptions == ("red", "scl", "qa")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_plan_is_exact_for_any_number_of_processes(
    server_processes: None, s2cube_command: CommandLine, archive: Archive, tmp_path: Path, processes: int
) -> None:
    """Batches of different days share no file, so it does not matter which process computes them."""
    left, bottom, _, _ = FARM
    fields = [shapely.box(left + 200 * n, bottom, left + 1900 + 200 * n, bottom + 1900) for n in range(8)]
    frame = geopandas.GeoDataFrame({"id": list("abcdefgh")}, geometry=fields, crs="EPSG:32614")
    frame.to_file(tmp_path / "fields.gpkg")
    with faulty(archive.items.parent) as server:
        words = [
            "--aoi",
            tmp_path / "fields.gpkg",
            "--stac",
            f"{server.url}/items.json",
            "--json",
            "--bands",
            "blue,nir",
        ]
        words += ["--workers", processes, "--threads", 1]
        foreseen = s2cube_command("plan", "--headers", *words)
        server.asked.clear()
        done = s2cube_command("run", *words)
        taken = books(server)
    assert done.status == 0, done.err
    assert {key: done.json[key] for key in taken} == taken
    for key in taken:
        assert foreseen.json[key] == taken[key] == foreseen.json[f"{key}_at_most"]
    assert foreseen.json["processes"] == min(processes, len(PASSES))
    assert "in one worker process" not in foreseen.err
    assert set(done.json["expected"]) == {"requests", "bytes", "requests_at_most", "bytes_at_most"}


def test_plan_names_what_is_shared(served: Faulty, s2cube_command: CommandLine, tmp_path: Path) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", f"{served.url}/items.json", "--datetime", "2022-05"]
    done = s2cube_command("plan", *words)
    (line,) = (line for line in done.out.splitlines() if line.startswith("two_20220520"))
    assert line.split()[3:7] == ["to", "do", "0", "0.0"]
    assert "one_20220520" in line
    assert "shares files with" in done.out
    assert s2cube_command("plan", *words, "--json").json["shared_with"] == {"two_20220520": ["one_20220520"]}
    alone = s2cube_command("plan", "--aoi", served.root / "aoi.geojson", "--stac", f"{served.url}/items.json")
    assert "shares files with" not in alone.out


def test_a_plan_from_items_is_near(served: Faulty, s2cube_command: CommandLine) -> None:
    """The items name the sizes of their files."""
    words = ["--aoi", served.root / "aoi.geojson", "--stac", f"{served.url}/items.json", "--json"]
    near, exact = s2cube_command("plan", *words).json, s2cube_command("plan", *words, "--headers").json
    assert near["requests"] == exact["requests"]
    assert exact["bytes"] <= near["bytes"] <= 1.5 * exact["bytes"]


def test_a_file_of_coarser_pixels_than_usual_is_foreseen(
    served: Faulty, s2cube_command: CommandLine, archive: Archive, tmp_path: Path
) -> None:
    """A catalogue may have 60 m files only: the item declares their pixels."""
    features = json.loads(archive.items.read_text())["features"][:1]
    for asset in features[0]["assets"].values():
        asset["href"] = f"{served.url}/{asset['href'].removeprefix('./')}"
        asset["proj:shape"], asset["proj:transform"] = [100, 100], [60, 0, *asset["proj:transform"][2:4], -60, 4553580]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    done = s2cube_command("plan", "--aoi", archive.aoi, "--stac", tmp_path / "items.json", "--bands", "blue", "--json")
    # A header and a tile of each of the two files.
    assert done.json["requests"] == 4


@st.composite
def needs(draw: st.DrawFn) -> list[list[tuple[str, list[int]]]]:
    """Slices, each with the files that it needs, each with the tiles that it needs, which lie side by side."""
    tiles = st.sets(st.integers(0, 7), min_size=1, max_size=5).map(sorted)
    return draw(st.lists(st.lists(st.tuples(st.sampled_from("xy"), tiles), min_size=1, max_size=3), max_size=6))


@given(needs(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_no_order_and_no_number_of_processes_takes_more(
    slices: list[list[tuple[str, list[int]]]], processes: int, chance: Random
) -> None:
    """Against a simulation: every process has its own set of tiles."""
    sharing, header, size = Sharing(), Traffic(1, 16), 10
    ordered = Traffic()
    for index, files in enumerate(slices):
        needed = [
            NeededFile(url, header, [[Span((url, tile), tile * size, tile * size + size) for tile in tiles]])
            for url, tiles in files
        ]
        ordered += sharing.add(str(index), needed)[0]
    assert simulated(slices, [0] * len(slices), range(len(slices))) == ordered
    order = list(range(len(slices)))
    chance.shuffle(order)
    taken = simulated(slices, [chance.randrange(processes) for _ in slices], order)
    most = sharing.at_most(processes)
    assert taken.requests <= most.requests
    assert taken.bytes <= most.bytes


def simulated(slices: list[list[tuple[str, list[int]]]], where: Sequence[int], order: Iterable[int]) -> Traffic:
    """Fetch the tiles of slices, in an order, each slice in a process: a request ends before a tile that is there."""
    requests = size = 0
    there: set[tuple[int, str, int]] = set()
    for index in order:
        for url, tiles in slices[index]:
            if (where[index], url, -1) not in there:
                there.add((where[index], url, -1))
                requests, size = requests + 1, size + 16
            last = None
            for tile in tiles:
                if (where[index], url, tile) in there:
                    last = None
                    continue
                there.add((where[index], url, tile))
                requests, size = requests + (last is None), size + 10 * (1 if last is None else tile - last)
                last = tile
    return Traffic(requests, size)


@pytest.fixture
def untagged(archive: Archive, tmp_path: Path) -> Path:
    """One scene; the overviews of its blue band may blend DN 0, for its file does not say that this is no data."""
    feature = json.loads(archive.items.read_text())["features"][0]
    folder = tmp_path / "untagged"
    folder.mkdir()
    for key in ("blue", "green", "scl"):
        (folder / f"{key}.tif").write_bytes((archive.items.parent / feature["assets"][key]["href"]).read_bytes())
        feature["assets"][key]["href"] = f"./{key}.tif"
    with rasterio.open(folder / "blue.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        assert file.overviews(1)
        file.nodata = None
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return folder


def test_files_without_nodata_are_foreseen(
    untagged: Path, s2cube_command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2cube.jobs.pipeline._compute", in_this_process)
    images = {}
    with faulty(untagged) as server:
        for quality in ("fast", "exact"):
            words = ["--aoi", two_fields(tmp_path), "--stac", f"{server.url}/items.json", "--json"]
            words += ["--bands", "blue,green", "--quality", quality, "--out", quality]
            session.reset()
            foreseen = s2cube_command("plan", "--headers", *words).json
            session.reset()
            server.asked.clear()
            done = s2cube_command("run", *words)
            assert done.status == 0, done.err
            assert {key: done.json[key] for key in ("requests", "bytes")} == books(server)
            assert books(server) == {key: foreseen[key] for key in ("requests", "bytes")}
            images[quality] = [rasterio.open(path).read() for path in done.json["written"]]
    for fast, exact in zip(images["fast"], images["exact"], strict=True):
        np.testing.assert_array_equal(fast[0], exact[0])
        assert (fast[1] != exact[1]).any()


def test_which_overviews_are_not_read_is_told(
    untagged: Path, s2cube_command: CommandLine, tmp_path: Path, scheduler: str
) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", untagged / "items.json", "--scheduler", scheduler, "-v"]
    done = s2cube_command("run", *words, "--bands", "blue,green", "--quality", "fast")
    assert done.status == 0, done.err
    said = " ".join(done.err.split())
    assert "blue.tif: read at native resolution: its overviews may average DN 0, which is no data" in said
    assert "green.tif: read" not in said


def test_plan_without_headers_reads_nothing(served: Faulty, s2cube_command: CommandLine, tmp_path: Path) -> None:
    words = ["--aoi", two_fields(tmp_path), "--stac", f"{served.url}/items.json"]
    done = s2cube_command("run", "--dry-run", "--json", *words)
    assert not books(served)["requests"]
    assert done.json["exact"] is False
    assert done.json["requests"] > 0
    assert done.json["output_bytes"] > 0
    assert "The slices need about" in done.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("proj:shape", [10**9, 10**9]), ("proj:shape", [0, 0]), ("proj:shape", "x"), ("proj:shape", [None, 3]),
        ("file:size", "many"), ("file:size", -1), ("file:size", 10**18),
        ("proj:transform", [10, 0, 1e300, 0, -10, -1e300]), ("proj:transform", ["10"]),
    ],
)  # fmt: skip
def test_what_an_item_tells_of_its_files_ends_no_run(
    served: Faulty, s2cube_command: CommandLine, archive: Archive, small_aoi: Path, key: str, value: Any
) -> None:
    """A forecast is a courtesy: nothing that a catalogue says there may cost a slice, or memory."""
    features = json.loads(archive.items.read_text())["features"][:1]
    for asset in features[0]["assets"].values():
        asset["href"] = f"{served.url}/{asset['href'].removeprefix('./')}"
        asset[key] = value
    Path("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    done = s2cube_command("run", "--aoi", small_aoi, "--stac", "items.json", "--bands", "blue", "--json")
    assert done.status == 0, done.err
    assert len(done.json["written"]) == 1
    assert done.json["expected"]["requests"] > 0


def test_a_rejected_slice_costs_its_classification_only(
    served: Faulty, s2cube_command: CommandLine, archive: Archive
) -> None:
    words = ["--aoi", archive.aoi, "--stac", f"{served.url}/items.json", "--json", "--max-aoi-cloud", 5]
    done = s2cube_command("run", *words)
    rejected = {each["slice"].split("_")[1] for each in done.json["rejected"]}
    assert 0 < len(rejected) < 6
    asked = {each.path for each in served.reads for day in rejected if day in each.path}
    assert asked
    assert all("scl" in path.lower() for path in asked)


def test_what_gdal_reads_is_told(s2cube_command: CommandLine, archive: Archive, tmp_path: Path, scheduler: str) -> None:
    features = json.loads(archive.items.read_text())["features"][:1]
    for asset in features[0]["assets"].values():
        asset["href"] = str((archive.items.parent / asset["href"]).resolve())
    blue = features[0]["assets"]["blue"]["href"]
    with rasterio.open(blue) as file:
        rasterio.shutil.copy(file, tmp_path / "blue.jp2", driver="JP2OpenJPEG", reversible="YES", quality=100)
    features[0]["assets"]["blue"]["href"] = str(tmp_path / "blue.jp2")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    words = [
        "--aoi",
        two_fields(tmp_path),
        "--stac",
        tmp_path / "items.json",
        "--bands",
        "blue",
        "-v",
        "--scheduler",
        scheduler,
    ]
    assert "without what GDAL will read from 1 file;" in s2cube_command("plan", "--headers", *words).err
    done = s2cube_command("run", *words)
    assert done.status == 0, done.err
    assert "blue.jp2: read by GDAL, because it is a JPEG 2000" in done.err


def grid_of(plan: Plan, dilation_m: float = 0) -> ReadGrid:
    return read_grid(plan.geobox, plan.scenes, dilation_m)


class TestChunks:
    def grid(self, tmp_path: Path, place: tuple[float, float, float, float], **settings: Any) -> Any:
        item = scene(tmp_path, blue=ramp(60, 10), scl=CLEAR[:30, :30])
        item.assets["blue"].extra_fields["proj:transform"] = [10, 0, LEFT_M, 0, -10, TOP_M]
        return make_plan([item], rectangle(*place), CubeSection.of({"crs": EPSG, "bands": "blue", **settings}))

    def test_a_small_area_is_one(self, tmp_path: Path) -> None:
        cut = grid_of(self.grid(tmp_path, (24000, -84000, 84000, -24000))).chunks
        assert (cut.rows, cut.columns) == ((2000,), (2000,))

    @pytest.mark.parametrize(("left", "down"), [(0, 0), (9990, 27300)])
    def test_a_large_one_is_cut_at_edges_of_tiles(self, tmp_path: Path, left: int, down: int) -> None:
        plan = self.grid(tmp_path, (left, -109800, 109800, -down))
        cut = grid_of(plan).chunks
        for lengths, offset in ((cut.rows, down), (cut.columns, left)):
            edges_m = offset + 30 * np.cumsum(lengths)[:-1]
            assert len(edges_m)
            # Of tiles of 1024 pixels of 10, 20 and 60 m.
            assert not (edges_m % 61440).any()
            assert sum(lengths) == (109800 - offset) // 30

    @given(
        st.sampled_from([10, 20, 30, 60, 100, 45, 300]), st.integers(0, 200), st.integers(0, 200),
        st.integers(100, 109_000), st.integers(0, 10),
    )  # fmt: skip
    def test_chunks_are_bounded_and_make_the_grid(
        self, tmp_path_factory: pytest.TempPathFactory, cell_m: int, left: int, top: int, size_m: int, halo: int
    ) -> None:
        place = (left * 300, -top * 300 - size_m, left * 300 + size_m, -top * 300)
        plan = self.grid(tmp_path_factory.mktemp("grid"), place, resolution=cell_m)
        grid = grid_of(plan, halo * cell_m)
        cut = grid.chunks
        assert (sum(cut.rows), sum(cut.columns)) == plan.geobox.shape
        assert min(cut.rows + cut.columns) > 0
        assert max(cut.rows + cut.columns) <= 2048
        assert grid.halo_cells == halo + (not all(grid.nests))
        fine, steps = grid.step_geobox, grid.step_chunks
        assert (sum(steps.rows), sum(steps.columns)) == fine.shape
        assert len(steps.rows) == len(cut.rows)

    def test_where_nothing_tells_the_place(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(60, 10), scl=CLEAR[:30, :30])
        for strange in (None, [], ["a"] * 6, [0, 10, LEFT_M, 0, -10, TOP_M], [10, 0, LEFT_M]):
            item.assets["blue"].extra_fields["proj:transform"] = strange
            plan = make_plan([item], rectangle(0, -109800, 109800, 0), CubeSection.of({"crs": EPSG}))
            assert grid_of(plan).chunks.rows == (2048, 1612)

    def test_pixels_do_not_depend_on_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        whole = s2cube.open_cube([item], rectangle(600, -5400, 5400, -600), bands=["blue"], dilation=60)
        values = whole.values
        monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 37)
        cut = s2cube.open_cube([item], rectangle(600, -5400, 5400, -600), bands=["blue"], dilation=60)
        assert cut.data.npartitions > 16
        np.testing.assert_array_equal(cut.values, values)


class TestCache:
    def test_what_is_put_away_is_fetched_again(self) -> None:
        cache, fetched = FileCache(limit_bytes=250), []

        def fetch(start: int, stop: int) -> memoryview:
            fetched.append((start, stop))
            return memoryview(bytes(stop - start))

        spans = [Span(at, at, at + 100) for at in (0, 1000, 2000)]
        for span in (*spans, *spans[1:], spans[0]):
            ((_, data),) = cache.stream([[span]], fetch)
            assert len(data) == 100
        assert fetched == [(0, 100), (1000, 1100), (2000, 2100), (0, 100)]

    def test_what_failed_is_tried_again(self) -> None:
        cache, calls = FileCache(), []

        def fetch(start: int, stop: int) -> memoryview:
            calls.append(start)
            if len(calls) == 1:
                raise OSError("away")
            return memoryview(bytes(stop - start))

        runs = [[Span(0, 0, 10), Span(10, 10, 20)]]
        with pytest.raises(OSError, match="away"):
            list(cache.stream(runs, fetch))
        assert [len(data) for _, data in cache.stream(runs, fetch)] == [10, 10]

    def test_a_part_that_is_there_parts_a_run(self) -> None:
        cache, fetched = FileCache(), []

        def fetch(start: int, stop: int) -> memoryview:
            fetched.append((start, stop))
            return memoryview(bytes(range(start, stop)))

        run = [Span(at, at, at + 10) for at in range(0, 50, 10)]
        list(cache.stream([[run[2]]], fetch))
        got = b"".join(data for _, data in cache.stream([run], fetch))
        assert got == bytes(range(50))
        assert sorted(fetched) == [(0, 20), (20, 30), (30, 50)]
