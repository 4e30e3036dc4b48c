"""The order of things: where the stages meet.

What needs pixels is imported where pixels are read: deciding and searching must not wait for it.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

import pystac

from s2cube.aoi import read_aois
from s2cube.config import CubeSection, CubeSettings, JobConfig
from s2cube.errors import AssetReadError, OutputError, SearchError, SliceError, redact
from s2cube.model import AOI, Plan, SliceFailure, SliceResult, Summary
from s2cube.output import Output, replacing
from s2cube.plan import make_plan
from s2cube.provider import canonical_bands
from s2cube.search import find_scenes, open_catalogue

if TYPE_CHECKING:
    import xarray as xr

log = logging.getLogger(__name__)

_READERS_PER_SLICE = 4
"""Threads that read a slice's files: most of their time they wait for an answer."""


def open_cube(items: Iterable[pystac.Item], aoi: AOI, **settings: Unpack[CubeSettings]) -> "xr.DataArray":
    """Open scenes as one lazy cube over an area of interest.

    Parameters
    ----------
    items
        Sentinel-2 L2A scenes, as `search` finds them.
    aoi
        What lies outside it, or in its holes, is nodata.
    bands
        Names, by any catalogue: ``blue`` or ``B02``; the cube calls them as they were asked for.
    crs
        ``EPSG:N``, projected and in metres, or ``auto``: the UTM zone of the AOI.
    resolution
        Pixel size, metres; 30 by default.
    mask
        ``scl``: what the scene classification calls cloud, shadow or bad is nodata; ``none``: it is not.
    group_by
        ``solar_day``: one slice a day; ``scene``: one a scene.
    dtype
        ``int16`` or ``float32``.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x); surface reflectance, harmonised over processing baselines, masked and clipped;
        int16 × 10000 with nodata -9999 or float32 with NaN. x and y are pixel centres in metres in the grid's CRS,
        time is UTC. ``.rio`` and ``.odc`` know CRS, transform and nodata.

    Raises
    ------
    ConfigError
        If a setting cannot be.
    SearchError
        If there is no scene.
    SliceError
        If a scene lacks an asset or does not say how its pixels are scaled; on computing, if a file cannot be read.
    """
    config = CubeSection.of(settings)
    plan = make_plan(items, aoi, config)
    if not plan.slices:
        raise SearchError(aoi.id, "no scene to open", "Search other dates, or allow more cloud")
    return build_cube(plan, config)


def build_cube(plan: Plan, config: CubeSection) -> "xr.DataArray":
    """Do what `open_cube` does, for a plan."""
    from s2cube.cube import mosaic, read_bands, read_scl, scl_steps
    from s2cube.mask import clear_cells, clip

    dn = read_bands(plan, config.bands)
    valid = clear_cells(read_scl(plan), scl_steps(plan.geobox)) if config.mask == "scl" else None
    return clip(mosaic(plan, dn, valid, config.dtype), plan.aoi.geometry)


def write_cogs(cube: "xr.DataArray", out: str | Path) -> list[Path]:
    """Compute a cube slice by slice and write each as a COG, a picture and a STAC Item.

    Parameters
    ----------
    cube
        From `open_cube`; a selection that keeps all dimensions, as by lists of times or bands, is as good.
    out
        Output folder; slices that are there already are replaced.

    Returns
    -------
    list of Path
        The COGs, in the order of time.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the cube is not one of `open_cube`.
    """
    lack = _lack(cube)
    if lack:
        raise OutputError("the cube", f"lacks {lack}", "Write a cube of open_cube, or use its .rio.to_raster")
    from s2cube.catalog import write_catalog

    output = Output(Path(out))
    output.prepare()
    paths = [write_slice(cube.isel(time=position), output) for position in range(cube.sizes["time"])]
    write_catalog(output)
    return paths


def _lack(cube: "xr.DataArray") -> str:
    """Say what a cube lacks of one of `open_cube`, as arithmetic or a selection of pixels loses it."""
    missing = {"time", "band", "slice", "scenes", "derived_from", "recipe"} - set(cube.coords)
    if missing or cube.dims != ("time", "band", "y", "x") or "aoi_pixels" not in cube.attrs:
        return f"{', '.join(sorted(missing)) or 'attributes or dimensions'} of open_cube"
    if cube.attrs["grid"] != f"{cube.sizes['y']}x{cube.sizes['x']}":
        return "a part of its grid"
    from s2cube.cube import NODATA

    nodata = cube.rio.nodata
    scaled = cube.dtype == "int16" and nodata == NODATA and "scale_factor" in cube.attrs
    plain = cube.dtype == "float32" and nodata != nodata and "scale_factor" not in cube.attrs
    return "" if scaled or plain else f"the dtype and nodata of open_cube: {cube.dtype}, {nodata}"


def write_slice(image: "xr.DataArray", output: Output) -> Path:
    """Compute an image and write its files, the Item last: it is what says that the slice is done."""
    from s2cube.catalog import slice_item, write_item
    from s2cube.cog import write_cog
    from s2cube.picture import write_picture

    aoi_id, slice_id = image.attrs["aoi"], str(image["slice"].item())
    computed = image.compute(scheduler="threads", num_workers=_READERS_PER_SLICE)
    output.clear(aoi_id, slice_id)
    cog = output.file(aoi_id, slice_id, ".tif")
    with replacing(cog) as part:
        write_cog(computed, part)
    with replacing(output.file(aoi_id, slice_id, ".png")) as part:
        write_picture(computed, part)
    write_item(slice_item(computed, slice_id), output.file(aoi_id, slice_id, ".json"))
    return cog


@dataclass(frozen=True)
class Job:
    """What a run is going to do.

    Parameters
    ----------
    plans
        One an AOI, with every slice found.
    todo
        One a slice that is to be made.
    skipped
        Ids of the slices that are there already, made of the same scenes by the same settings.
    """

    config: JobConfig
    output: Output
    plans: tuple[Plan, ...]
    todo: tuple[Plan, ...]
    skipped: tuple[str, ...]


def plan_job(config: JobConfig) -> Job:
    """Decide what is to be made, without reading a pixel.

    Raises
    ------
    UsageError
        If a setting or the AOI cannot be.
    SearchError
        If the catalogue does not give its scenes.
    """
    canonical_bands(config.cube.bands)
    aois = read_aois(config.job.aoi, config.job.aoi_id)
    output = Output(config.job.out)
    catalogue = open_catalogue(config.search)
    plans, todo, skipped = [], [], []
    for aoi in aois:
        items = find_scenes(aoi, config.search, catalogue)
        plan = make_plan(items, aoi, config.cube)
        log.info("%s: %d scenes, %d time slices", aoi.id, len(items), len(plan.slices))
        plans.append(plan)
        for each in plan.slices:
            made = output.is_made(aoi.id, each.id, each.recipe, config.cube.bands)
            if made and not config.job.overwrite:
                skipped.append(each.id)
            else:
                if output.file(aoi.id, each.id, ".json").exists() and not config.job.overwrite:
                    log.info("%s: will be made again, for its scenes or settings have changed", each.id)
                todo.append(replace(plan, slices=(each,)))
    return Job(config, output, tuple(plans), tuple(todo), tuple(skipped))


def run_job(job: Job) -> Iterator[SliceResult]:
    """Make the slices of a job and yield each as it is done or has failed; write the catalogue at the end.

    A slice that fails does not stop the others; why it failed goes to ``failures.jsonl``.

    Raises
    ------
    ClusterError
        If there is no Dask cluster to compute on.
    """
    job.output.forget_failures({plan.slices[0].id for plan in job.todo} | set(job.skipped))
    from s2cube.catalog import write_catalog

    try:
        if job.todo:
            yield from _compute(job)
    finally:
        write_catalog(job.output)


def _compute(job: Job) -> Iterator[SliceResult]:
    from s2cube.cluster import compute, open_client

    make = partial(make_slice, config=job.config.cube, output=Output(job.output.root.absolute()))
    with open_client(job.config.cluster, len(job.todo)) as client:
        for plan, result in compute(client, make, job.todo):
            outcome = _failed(plan, result) if isinstance(result, BaseException) else result
            if outcome.failure:
                job.output.note_failure(outcome.failure)
            yield outcome


class Watch(Protocol):
    """Who wants to be told how a run goes."""

    def begin(self, job: Job) -> None:
        """The search is over; this is what will be made."""

    def advance(self, result: SliceResult) -> None:
        """A slice is done or has failed."""


def run(config: JobConfig, watch: Watch | None = None) -> Summary:
    """Do a whole job: search, cube, mask, clip, and one COG a time slice.

    A script that calls this wants ``if __name__ == "__main__":`` around it: worker processes import the script anew.

    Raises
    ------
    S2CubeError
        If the job could not be done. A failed slice raises nothing: it stands in the summary.
    """
    Output(config.job.out).prepare()
    job = plan_job(config)
    if watch:
        watch.begin(job)
    results = []
    for result in run_job(job):
        results.append(result)
        if watch:
            watch.advance(result)
    return _summarise(job, results)


def _summarise(job: Job, results: Iterable[SliceResult]) -> Summary:
    ordered = sorted(results, key=lambda result: result.slice)
    return Summary(
        written=[result.path for result in ordered if result.path],
        skipped=list(job.skipped),
        rejected=[],
        failed=[{"slice": each.slice, "error": each.failure.error} for each in ordered if each.failure],
    )


def make_slice(plan: Plan, config: CubeSection, output: Output) -> SliceResult:
    """Make the one slice of a plan, on a worker; what goes wrong becomes the result."""
    try:
        (image,) = build_cube(plan, config)
        path = write_slice(image, output)
    except Exception as error:  # noqa: BLE001  one slice must not end the others
        return _failed(plan, error)
    return SliceResult(plan.slices[0].id, path=str(path))


def _failed(plan: Plan, error: BaseException) -> SliceResult:
    (failed,) = plan.slices
    return SliceResult(
        failed.id,
        failure=SliceFailure(
            slice=failed.id,
            scenes=tuple(scene.id for scene in failed.scenes),
            asset=_asset(plan, error),
            error=str(error) if isinstance(error, SliceError) else redact(f"{type(error).__name__}: {error}"),
            time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        ),
    )


def _asset(plan: Plan, error: BaseException) -> str:
    if isinstance(error, AssetReadError):
        for scene in plan.slices[0].scenes:
            for key, asset in scene.assets.items():
                if redact(asset.href) == error.subject:
                    return key
    return error.asset if isinstance(error, SliceError) else ""
