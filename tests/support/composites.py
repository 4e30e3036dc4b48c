"""Composites of noise, and their files."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio import Affine

from s2cube.config.composites import Method
from s2cube.config.periods import Period
from s2cube.config.sections import OutputSection
from s2cube.cube.composite_facts import CompositeFacts
from s2cube.cube.facts import Provenance
from s2cube.kernels.packing import PACKINGS
from s2cube.output.composite_files import CompositeImage, write_composite

SMALL, LARGE = (40, 30), (700, 530)
BANDS = ("red", "green", "blue", "NDVI")
DAYS = (date(2024, 6, 1), date(2024, 6, 11), date(2024, 6, 30))
SCENES = tuple(f"S2A_14TNL_{day:%Y%m%d}_0_L2A" for day in DAYS)


def image_of(shape: tuple[int, int], dtype: str = "int16", bands: tuple[str, ...] = BANDS) -> CompositeImage:
    """A square area in a rectangle; some of its cells have no observation."""
    random = np.random.default_rng(7)
    inside = np.zeros(shape, bool)
    inside[2:-3, 4:-5] = True
    count = np.where(inside, random.integers(0, 4, shape), 0).astype("uint16")
    values = random.integers(-3000, 9000, (len(bands), *shape)).astype("int16")
    if dtype == "float32":
        values = (values / np.float32(10000)).astype("float32")
    values[:, count == 0] = PACKINGS[dtype].nodata
    epoch = np.array([(day - date(1970, 1, 1)).days for day in DAYS], "uint16")
    days = np.where(count > 0, random.choice(epoch, shape), 0).astype("uint16")
    grid = GeoBox(shape, Affine(30, 0, 600000, 0, -30, 4500000), "EPSG:32614")
    return CompositeImage(values, count, days, bands, grid, PACKINGS[dtype], int(inside.sum()))


def facts_of(**changed: Any) -> CompositeFacts:
    provenance = Provenance(
        recipe="0123abcd", data_version=3, settings={"mask": ["scl"], "period": "month"}, search={"max_cloud": 20.0},
        ground="4567", offset_dn=dict.fromkeys(SCENES, -1000), dropped=(), derived_from=("https://host/items/ü",),
    )  # fmt: skip
    facts = CompositeFacts(
        "farm", shapely.Point(-97.5, 40.1).buffer(0.01), "farm_202406_medoid",
        Period("202406", date(2024, 6, 1), date(2024, 6, 30)), Method("medoid"),
        (datetime(2024, 6, 1, 17, 19, 31, tzinfo=UTC), datetime(2024, 6, 30, 17, 9, tzinfo=UTC)),
        SCENES, DAYS, (), provenance,
    )  # fmt: skip
    return replace(facts, **changed)


def lazy(image: CompositeImage, rows: int, columns: int) -> CompositeImage:
    return replace(
        image,
        values=da.from_array(image.values, chunks=(2, rows, columns)),
        count=da.from_array(image.count, chunks=(rows, columns)),
        date=None if image.date is None else da.from_array(image.date, chunks=(rows, columns)),
    )


def write(image: CompositeImage, facts: CompositeFacts, folder: Path, **way: Any) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    write_composite(image, facts, folder, OutputSection.of(way), 2)
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def add(out: Path, facts: CompositeFacts, image: CompositeImage | None = None) -> Path:
    """Put a composite into an output."""
    folder = out / facts.aoi / facts.id
    write(image or image_of(SMALL), facts, folder)
    return folder
