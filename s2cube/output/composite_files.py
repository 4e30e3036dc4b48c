"""Write the files of a composite (stand-in)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from s2cube.config.sections import OutputSection
from s2cube.cube.composite_facts import CompositeFacts
from s2cube.cube.cut import ComputedImage
from s2cube.cube.facts import SliceFacts
from s2cube.kernels.packing import Packing
from s2cube.output.files import write_computed
from s2cube.sentinel2 import QA


@dataclass(frozen=True, eq=False)
class CompositeImage:
    """A composite in memory."""

    values: np.ndarray
    count: np.ndarray
    date: np.ndarray | None
    bands: tuple[str, ...]
    geobox: GeoBox
    packing: Packing
    aoi_cells: int


def write_composite(
    image: CompositeImage, facts: CompositeFacts, folder: Path, settings: OutputSection, readers: int
) -> None:
    """Write the files of a composite."""
    reasons = np.where(image.count > 0, np.uint8(QA.CLEAR), np.uint8(QA.NO_DATA))
    computed = ComputedImage(image.values, reasons, image.bands, image.geobox, None, image.packing)
    of_slice = SliceFacts(
        facts.aoi, facts.outline_lonlat, facts.id, None, facts.scenes, facts.provenance, interval=facts.interval,
        is_explained=False,
    )  # fmt: skip
    write_computed(computed, of_slice, folder, settings)
    for name, layer in (("count", image.count), ("date", image.date)):
        if layer is not None:
            height, width = layer.shape
            with rasterio.open(
                folder / f"{facts.id}_{name}.tif", "w", driver="GTiff", count=1, height=height, width=width,
                dtype="uint16", crs=str(image.geobox.crs), transform=image.geobox.affine,
            ) as file:  # fmt: skip
                file.write(layer, 1)
    path = folder / f"{facts.id}.json"
    item = json.loads(path.read_text())
    item["properties"]["s2cube:missing"] = list(facts.missing)
    path.write_text(json.dumps(item))
