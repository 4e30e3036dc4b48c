"""Fields that are larger than a block: what they need, and what fails with them."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pystac
import pytest
import rasterio.shutil
import shapely
from shapely.geometry.base import BaseGeometry

import s2cube
from s2cube.config.sections import JobConfig
from s2cube.cube.chunks import read_grid
from s2cube.cube.open_cube import read_access
from s2cube.fetch.session import Budget
from s2cube.fields.spool import FieldSpool
from s2cube.storage.output import Output
from s2cube.workers import memory
from s2cube.workers.worker import _large
from s2cube.zonal._source import Source
from s2cube.zonal.tabulate import StatisticsPlans, tabulate
from support.field_scenes import CRS_OF_SCENES, FIELDS, placed, write_areas_file, write_items
from support.tables import rows_of, with_damaged_tile

LARGE = "larger_than_a_block"

BESIDE = {
    "beside": placed(shapely.box(2350, -2600, 2600, -2350)),
    "below": FIELDS["past_the_corner"],
    "far": FIELDS["twin"],
}
"""Fields on other tiles than the damaged one. The first one is within the box of the large field."""


def config(**settings: Any) -> JobConfig:
    given = {"aoi": "areas.parquet", "aoi_id": "name", "stac": "items.json", "bands": "red", "out": "out"}
    return s2cube.load_config(
        given | {"crs": CRS_OF_SCENES, "statistics": "mean,p10", "slice_retries": 0} | settings, {}
    )


def with_damage(item: pystac.Item, folder: Path, shape: BaseGeometry) -> pystac.Item:
    """Return a scene whose red band has a damaged tile in the middle of a field."""
    whole, damaged = folder / "compressed.tif", folder / "damaged.tif"
    rasterio.shutil.copy(
        item.assets["red"].href, whole, driver="GTiff", compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    with_damaged_tile(whole, damaged, *shape.centroid.coords[0])
    changed = item.clone()
    changed.assets["red"].href = str(damaged)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("command", [tabulate, s2cube.run], ids=["stats", "run"])
def test_a_damaged_tile_fails_its_row_only(
    items: list[pystac.Item], tmp_path: Path, command: Callable[[JobConfig], Any]
) -> None:
    write_areas_file(Path("areas.parquet"), BESIDE | {LARGE: FIELDS[LARGE]})
    write_items(Path("items.json"), items)
    assert command(config(out="whole")).failed == []
    write_items(Path("items.json"), [with_damage(items[0], tmp_path, FIELDS[LARGE]), *items[1:]])
    summary = command(config())
    assert [each["slice"] for each in summary.failed] == [f"{LARGE}_20200701"]
    (entry,) = pd.read_json("out/failures.jsonl", lines=True).to_dict("records")
    assert (entry["slice"], entry["asset"], entry["scenes"]) == (f"{LARGE}_20200701", "red", ["one"])
    whole, rows = rows_of("whole").set_index("slice"), rows_of("out").set_index("slice")
    pd.testing.assert_frame_equal(
        rows.sort_index()[["red_mean", "red_p10", "clear_percent"]],
        whole.drop(f"{LARGE}_20200701").sort_index()[["red_mean", "red_p10", "clear_percent"]],
    )


def test_without_memory_for_a_block(items: list[pystac.Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch of several fields is computed by itself. A damaged tile fails only the fields on it."""
    monkeypatch.setattr("s2cube.workers.memory._slice_memory", lambda: (1, Budget(1)))
    monkeypatch.setattr("s2cube.fields.division._PART_CELLS", 1 << 20)
    shapes = {f"f{at}": placed(shapely.box(100 + 640 * at, -500, 500 + 640 * at, -100)) for at in range(3)}
    write_areas_file(Path("areas.parquet"), shapes)
    write_items(Path("items.json"), items[:1])
    assert tabulate(config(out="whole")).failed == []
    write_items(Path("items.json"), [with_damage(items[0], tmp_path, shapes["f1"])])
    summary = tabulate(config())
    assert [each["slice"] for each in summary.failed] == ["f1_20200701"]
    pd.testing.assert_series_equal(
        rows_of("out").set_index("slice")["red_mean"],
        rows_of("whole").set_index("slice")["red_mean"].drop("f1_20200701"),
    )


def test_memory_counts_what_statistics_keep(items: list[pystac.Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels of the whole area, and what its statistics need. An image alone is computed in less."""
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 512)
    write_areas_file(Path("areas.parquet"), {"all": placed(shapely.box(3, -4797, 4797, -3))})
    write_items(Path("items.json"), items[:1])
    settings = config(resolution=3, bands="red,nir", indices="NDVI")
    with FieldSpool() as spool:
        (job,) = StatisticsPlans.of(settings, Output.at("out"), Source(spool)).jobs()
    (task,) = job.todo
    grid = read_grid(task.geobox, task.scenes, settings.cube.dilation_m)
    tracemalloc.start()
    (result,) = _large(task, job.config, None, read_access(settings.read))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.rows is not None
    assert memory.of_slice(grid, settings.cube) < 0.8 * peak_bytes
    assert 0.8 * peak_bytes < memory.of_task(task, grid, settings.cube) < 2 * peak_bytes
