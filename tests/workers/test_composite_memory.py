"""The memory that a composite of a large area plans: a granule and 70 days fit into a worker of 2 GB."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pystac
import pytest

import s2cube
from s2cube.composites._plans import Grouping
from s2cube.cube.cut import inside
from s2cube.fetch.session import Budget
from s2cube.fetch.store import Access
from s2cube.products.composer import Composer
from s2cube.scenes.plan import make_plan
from s2cube.workers import memory
from s2cube.workers._composite_days import DayReading, Layers, make_units
from s2cube.workers.batches import is_small
from s2cube.workers.composite_task import chunks_of
from support.scenes import EPSG, LEFT_M, TOP_M, rectangle

SIDE_M, DAYS, LIMIT_BYTES = 109_800, 70, 2_000_000_000
BANDS = ("red", "nir", "swir16", "green", "blue", "rededge1", "rededge2", "rededge3", "nir08", "swir22")


def granule(number: int) -> pystac.Item:
    """Describe a scene of one day. It has no files."""
    outline = rectangle(0, -SIDE_M, SIDE_M, 0).geometry_lonlat
    pixels = {"proj:shape": [SIDE_M // 10] * 2, "proj:transform": [10, 0, LEFT_M, 0, -10, TOP_M]}
    return pystac.Item.from_dict(
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"scene{number}", "links": [],
            "bbox": list(outline.boundingbox), "geometry": outline.json,
            "properties": {
                "proj:epsg": EPSG, "datetime": f"2020-{1 + number // 25:02}-{1 + number % 25:02}T17:00:00Z",
                "s2:processing_baseline": "02.14",
            },
            "assets": {name: {"href": f"/nowhere/{number}/{name}.tif"} | pixels for name in (*BANDS, "scl")},
        }
    )  # fmt: skip


@pytest.mark.parametrize(("bands", "dtype"), [(1, "int16"), (3, "int16"), (10, "int16"), (3, "float32")])
def test_every_part_of_a_granule_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bands: int, dtype: str) -> None:
    usable = int(LIMIT_BYTES * 0.75) - memory.PROCESS_BYTES
    monkeypatch.setattr(memory, "_slice_memory", lambda: (usable, Budget(usable)))
    settings = {
        "aoi": "any.geojson",
        "out": tmp_path,
        "bands": ",".join(BANDS[:bands]),
        "dtype": dtype,
        "period": "year",
    }
    config = s2cube.load_config(settings | {"crs": f"EPSG:{EPSG}"}, {})
    composer = Composer.of(config)
    plan = make_plan([granule(number) for number in range(DAYS)], rectangle(0, -SIDE_M, SIDE_M, 0), config.cube)
    (task,) = (task for each in Grouping(config).plans(plan) for task in each.tasks())
    assert len(task.days) == DAYS
    assert not is_small(task.geobox)
    shape = task.geobox.shape.y, task.geobox.shape.x
    result = Layers.empty(shape, composer)
    area, composed = inside(task.geobox, task.aoi.geometry), np.zeros(shape, int)
    for rows, columns in chunks_of(task, area, config.cube.dilation_m):
        composed[rows, columns] += 1
        with ExitStack() as opened:
            part = task, task.geobox[rows, columns], area[rows, columns]
            (unit,) = make_units([part], {}, composer, opened)
            reading = DayReading([unit], composer, Access())
            blocks = list(reading.blocks(list(unit.tasks)))
            assert sorted(each.id for block in blocks for each in block.tasks) == sorted(each.id for each in unit.tasks)
            for block in blocks:
                read = memory.of_block(block.grid, config.cube, readers=2)
                assert read + reading.held_bytes + result.values.nbytes + result.count.nbytes <= usable
    assert (composed == 1).all()
