"""Compute the statistics of areas in a notebook, as a DataFrame."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.literals import GroupBy, MaskLayer, Offset, Quality
from s2cube.config.sections import CubeSection, JobConfig, ReadSection, TableSection
from s2cube.errors import SliceError
from s2cube.stac.source import ItemsLike, to_items

if TYPE_CHECKING:
    import pandas as pd

    from s2cube.area.areas import AreaLike
    from s2cube.zonal._plans import FieldPlans


def statistics(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    items: ItemsLike,
    areas: "AreaLike",
    *,
    aoi_id: str | None = None,
    aoi_crs: object = None,
    bands: str | Sequence[str] | None = ("red", "green", "blue", "nir", "swir16"),
    indices: str | Sequence[str] | None = (),
    statistics: str | Sequence[str] = ("mean", "std", "median"),
    crs: str | int = "auto",
    resolution: float = 30,
    quality: Quality = "exact",
    offset: Offset | int = "auto",
    mask: str | Sequence[MaskLayer] | None = ("scl",),
    mask_classes: str | Sequence[int] = (0, 1, 3, 8, 9, 10),
    max_cloud_probability: float = 40,
    max_snow_probability: float = 40,
    dilation: float = 0,
    group_by: GroupBy = "solar_day",
    timeout: float = 60,
    retries: int = 5,
    tokens: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
    stores: Mapping[str, Mapping[str, str | bool]] | tuple[()] = (),
) -> "pd.DataFrame":
    """Compute statistics of every area and day, weighted by the exact share of each cell that is in the area.

    The pixels are those of `open_cube` before they are clipped. Each tile of the archive is read once for all areas.
    Threads of this process compute the statistics.

    Parameters
    ----------
    items
        Sentinel-2 L2A scenes, as in `open_cube`.
    areas
        Areas of interest: anything that `read_aois` takes.
    aoi_id
        Property or column with the id of each area, as in `read_aois`.
    aoi_crs
        CRS of geometries that have none of their own; default: degrees (EPSG:4326).
    bands
        Names of bands of reflectance. ``none``, None or an empty list: only indices.
    indices
        Names of spectral indices, as in `open_cube`. The bands that they need are read.
    statistics
        ``mean``, ``std``, ``median``, ``min``, ``max``, ``count``, and ``p0`` to ``p100`` for percentiles.
    crs, resolution, quality, offset, mask, mask_classes, max_cloud_probability, max_snow_probability
        As in `open_cube`.
    dilation, group_by, timeout, retries, tokens, stores
        As in `open_cube`.

    Returns
    -------
    pandas.DataFrame
        One row for each area and slice whose footprints meet the area, sorted by area and date. Columns: `aoi`,
        `slice`, `date` (solar day), `time` (UTC, of the earliest scene), `cells` (the area in cells of the grid),
        `clear_percent` (share of the area that is valid in every band), `cloud_percent` (share of cloud in what was
        observed), ``<band or index>_<statistic>`` (float32, bands as reflectance), `scenes` (their ids) and `recipe`
        (a digest of what the values are computed from). A value is missing where nothing is valid, `cloud_percent` also
        where no mask looks for cloud.

    Raises
    ------
    AOIError
        If an area cannot be used, or if two areas have the same id.
    ConfigError
        If a setting is not valid.
    SliceError
        If a file cannot be read, or if a scene cannot be used.

    Examples
    --------
    The command ``s2cube demo`` writes these files.

    >>> import s2cube
    >>> rows = s2cube.statistics("s2cube-demo/archive/items.json", "s2cube-demo/archive/aoi.geojson", bands=["nir"])
    >>> [*rows[["aoi", "slice"]].iloc[0]], [round(float(each), 3) for each in rows.filter(like="nir").iloc[0]]
    (['farm', 'farm_20210724'], [0.391, 0.094, 0.413])
    """
    arguments = locals()
    config = JobConfig(
        cube=CubeSection.of_arguments(arguments | {"dtype": "float32"}),
        read=ReadSection.of_arguments(arguments),
        table=TableSection.of_arguments(arguments | {"format": "parquet", "join": "shapely"}),
    )
    from s2cube.area.areas import read_aois

    return _rows(to_items(items), read_aois(areas, aoi_id, crs=aoi_crs), config)


def _rows(items: Iterable[pystac.Item], aois: Sequence[AOI], config: JobConfig) -> "pd.DataFrame":
    """Compute the rows in threads of this process."""
    import pyarrow as pa

    from s2cube.jobs.pipeline import computer
    from s2cube.jobs.slice_policy import SlicePolicy
    from s2cube.tables.rows import ORDER, schema
    from s2cube.workers.batches import batches
    from s2cube.workers.worker import compute_batch
    from s2cube.zonal._statistics_job import for_statistics

    config = for_statistics(config)
    plans = _planned(items, aois, config)
    tasks = [(batch.id, batch) for batch in batches(plans.todo, os.cpu_count() or 1)]
    rows, failures = [schema(plans.key.columns).empty_table()], plans.failures
    function, policy = partial(compute_batch, config=config, output=None), SlicePolicy(config.job.slice_retries)
    with computer(config.cluster, True, function, tasks, policy) as computed:
        for _, results in computed if tasks and not failures else ():
            failures += (each for result in results for each in result.all_failures)
            rows += [result.rows for result in results if result.rows is not None]
            if failures:
                break
    for each in failures:
        raise SliceError(each.slice, each.error, "Leave out the scene, or correct the cause", each.asset)
    ordered = pa.concat_tables(rows).sort_by(ORDER)
    frame: pd.DataFrame = ordered.to_pandas(date_as_object=False)
    return frame


def _planned(items: Iterable[pystac.Item], aois: Sequence[AOI], config: JobConfig) -> "FieldPlans":
    from s2cube.fields.fields import Fields
    from s2cube.scenes.plan import Planner
    from s2cube.scenes.scene_facts import SceneFacts
    from s2cube.zonal._plans import FieldPlans, plan_fields
    from s2cube.zonal._statistics_job import key_of

    plans, planner, scenes = FieldPlans(config, key_of(config), {}), Planner(config.cube), list(map(SceneFacts, items))
    for group in Fields.groups(aois):
        for patch in plan_fields(group, scenes, planner, config):
            plans.add(patch)
    return plans
