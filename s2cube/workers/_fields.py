"""Compute the rows of the table of statistics for one patch of fields and one time slice."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from s2cube.config.sections import JobConfig
from s2cube.errors import SliceError
from s2cube.fetch.session import kept_within
from s2cube.fields.patches import FieldTask
from s2cube.kernels.indices import index_values
from s2cube.kernels.mask import final_qa
from s2cube.products.coverage import Coverage, areas_in_cells, coverage
from s2cube.products.field_statistics import field_statistics, weighted_share
from s2cube.scenes.assets import bands_read
from s2cube.sentinel2 import QA, masks_cloud
from s2cube.tables.rows import DayRows, Recipe, scene_ids, table_of, value_columns
from s2cube.workers.memory import weights_limit

_Weights = tuple[Coverage, NDArray[np.float64]]
"""Weights of fields, and the areas of these in cells."""


@dataclass(frozen=True, eq=False)
class PatchImage:
    """The computed cells of a patch for one time slice.

    Parameters
    ----------
    bands
        Dims (band, y, x), float32 reflectance of the bands that are read, not clipped; NaN where it is not valid.
    reasons
        Dims (y, x), uint8, from `mask.explain`.
    """

    bands: NDArray[np.float32]
    reasons: NDArray[np.uint8]


def rows_of(task: FieldTask, image: PatchImage, config: JobConfig, errors: Mapping[int, SliceError]) -> pa.Table:
    """Compute the rows of the fields of a task.

    Parameters
    ----------
    errors
        Positions of the fields that cannot be computed. They get no row.
    """
    weights, cells = _weights(task)
    if errors:
        whole = np.array([at for at in range(len(task.fields)) if at not in errors], np.intp)
        task = task.part(whole)
        weights, cells = weights.take(whole), cells[whole]
    is_valid = np.logical_and.reduce(np.isfinite(image.bands))
    cube, written = config.cube, len(config.cube.bands)
    values = np.concatenate([image.bands[:written], index_values(image.bands, bands_read(cube), cube.indices)])
    # A cell is cloud or not as in the QA image: it is clear if it is valid, whatever masks say.
    qa = final_qa(~is_valid, image.reasons)
    clear = weighted_share(is_valid, weights)
    cloud = np.full(len(task.fields), np.nan)
    if masks_cloud(cube.mask, cube.mask_classes):
        observed = weighted_share(qa != QA.NO_DATA.value, weights)
        np.divide(100 * weighted_share(qa == QA.CLOUD.value, weights), observed, out=cloud, where=observed > 0)
    statistics = field_statistics(values, weights, config.table.chosen)
    names = cube.image_bands
    day = DayRows(
        ids=task.fields.ids,
        label=task.label,
        day=task.day,
        time=task.slice.time,
        scenes=scene_ids(task.slice),
        cells=cells,
        clear_percent=np.minimum(100 * clear / cells, 100),
        cloud_percent=cloud,
        values={f"{name}_{each}": found[at] for each, found in statistics.items() for at, name in enumerate(names)},
        recipes=list(map(str, Recipe.of_fields(task.digests.tolist(), task.slice, task.lattice, task.key))),
    )
    return table_of([day], value_columns(config))


def _weights(task: FieldTask) -> _Weights:
    """Return the weights of the fields, and their areas in cells."""
    return _weights_of(task.geobox, task.fields.outlines_wkb)


@kept_within(weights_limit, lambda weights: weights[0].nbytes + weights[1].nbytes)
def _weights_of(geobox: GeoBox, outlines_wkb: tuple[bytes, ...]) -> _Weights:
    # Weights are the same for all days. If a day needs more than are kept, all of them are computed again for each day.
    shapes = shapely.from_wkb(np.array(outlines_wkb, object))
    return coverage(shapes, geobox), areas_in_cells(shapes, geobox)
