"""Scenes become an image, an image becomes files: what a worker does for a time slice."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pystac

from s2cube.config import CubeSection, CubeSettings, JobConfig
from s2cube.errors import AssetReadError, OutputError, SceneError, SearchError, SliceError, redact
from s2cube.model import AOI, Plan, SliceFailure, SliceResult
from s2cube.output import Output, replacing
from s2cube.plan import make_plan
from s2cube.provider import canonical_bands
from s2cube.qa import CLOUD_CLASSES, NO_DATA_CLASS, cloud_percent

if TYPE_CHECKING:
    import xarray as xr

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
    quality
        ``exact``: the area mean of native pixels; ``fast``: of the coarsest overview that is no coarser than the grid.
    offset
        What is added to digital numbers: ``auto`` goes by baseline and catalogue; ``none`` or ``-1000`` overrule it.
    mask
        Any of ``scl``, ``cloud``, ``snow``, ``qa60``, or ``none``: where they tell of cloud, shadow or bad pixels is
        nodata.
    mask_classes
        Scene classes that ``scl`` masks; 0, 1, 3, 8, 9, 10 by default.
    max_cloud_probability, max_snow_probability
        Percent, above which ``cloud`` and ``snow`` mask; 40 by default.
    dilation
        Metres around cloud and shadow that are masked too; 0 by default.
    group_by
        ``solar_day``: one slice a day; ``scene``: one a scene.
    dtype
        ``int16`` or ``float32``.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x); surface reflectance, harmonised over processing baselines, masked and clipped;
        int16 × 10000 with nodata -9999 or float32 with NaN. x and y are pixel centres in metres in the grid's CRS,
        time is UTC. The coordinate `qa` (time, y, x), lazy too, says why a pixel is masked: values of `qa.QA`. (Taking
        one date from another compares their `qa`, which reads masks: ``drop_vars("qa")`` before.) ``.rio`` and
        ``.odc`` know CRS, transform and nodata.

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
    from s2cube.cube import read_bands

    return _assemble(plan, config, read_bands(plan, config.bands, config.quality), _screen(plan, config))


def _screen(plan: Plan, config: CubeSection) -> "xr.Dataset":
    """Tell what is masked, as `mask.screen` does."""
    from s2cube import cube, mask

    per_slice = plan.scenes_per_slice
    if not config.mask:
        return mask.no_screen(sum(per_slice), len(per_slice), plan.geobox.shape, cube.chunk_cells(plan))
    # Clouds outside the grid reach into it; a step beside a cell may lie outside, too.
    halo_cells = math.ceil(config.dilation_m / plan.geobox.resolution.x) + (not all(cube.nests(plan)))
    layers = cube.read_layers(plan, config.mask, halo_cells)
    return mask.screen(layers, config, per_slice, halo_cells)


def _assemble(plan: Plan, config: CubeSection, dn: "xr.DataArray", screened: "xr.Dataset") -> "xr.DataArray":
    from s2cube.mask import clip
    from s2cube.mosaic import mosaic

    image = clip(mosaic(plan, dn, screened, config), plan.aoi.geometry)
    return image.assign_coords(qa=_qa(plan, screened).variable)


def _qa(plan: Plan, screened: "xr.Dataset") -> "xr.DataArray":
    """Tell why pixels are masked, or outside the AOI."""
    from s2cube.mask import clip, explain

    return clip(explain(screened, plan.scenes_per_slice, plan.geobox), plan.aoi.geometry)


def write_cogs(cube: "xr.DataArray", out: str | Path) -> list[Path]:
    """Compute a cube slice by slice and write each as a COG, a QA image, a picture and a STAC Item.

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
    paths = []
    for position in range(cube.sizes["time"]):
        image = cube.isel(time=position).compute(scheduler="threads", num_workers=_READERS_PER_SLICE)
        paths.append(_write(image, output, ()))
    write_catalog(output)
    return paths


def _lack(cube: "xr.DataArray") -> str:
    """Say what a cube lacks of one of `open_cube`, as arithmetic or a selection of pixels loses it."""
    missing = {"time", "band", "slice", "scenes", "provenance", "qa"} - set(cube.coords)
    if missing or cube.dims != ("time", "band", "y", "x") or "grid" not in cube.attrs:
        return f"{', '.join(sorted(missing)) or 'attributes or dimensions'} of open_cube"
    if cube.attrs["grid"] != f"{cube.sizes['y']}x{cube.sizes['x']}":
        return "a part of its grid"
    from s2cube.mosaic import NODATA

    nodata = cube.rio.nodata
    scaled = cube.dtype == "int16" and nodata == NODATA and "scale_factor" in cube.attrs
    plain = cube.dtype == "float32" and nodata != nodata and "scale_factor" not in cube.attrs
    return "" if scaled or plain else f"the dtype and nodata of open_cube: {cube.dtype}, {nodata}"


def _write(image: "xr.DataArray", output: Output, doubted: tuple[str, ...]) -> Path:
    """Write the files of a computed image, the Item last: it is what says that the slice is done."""
    from s2cube.catalog import slice_item, write_item
    from s2cube.cog import write_cog, write_qa
    from s2cube.mask import final_qa
    from s2cube.picture import write_picture

    aoi_id, slice_id = image.attrs["aoi"], str(image["slice"].item())
    qa = final_qa(image)
    item = slice_item(image, qa, doubted)
    output.clear(aoi_id, slice_id)
    cog = output.file(aoi_id, slice_id, ".tif")
    with replacing(cog) as part:
        write_cog(image, part)
    with replacing(output.file(aoi_id, slice_id, "_qa.tif")) as part:
        write_qa(qa, part)
    with replacing(output.file(aoi_id, slice_id, ".png")) as part:
        write_picture(image, part)
    write_item(item, output.file(aoi_id, slice_id, ".json"))
    return cog


def make_slice(plan: Plan, config: JobConfig, output: Output) -> SliceResult:
    """Make the one slice of a plan, on a worker; what goes wrong becomes the result."""
    try:
        return _make(plan, config, output)
    except Exception as error:  # noqa: BLE001  one slice must not end the others
        return failed(plan, error)


def _make(plan: Plan, config: JobConfig, output: Output) -> SliceResult:
    from dask.base import compute

    from s2cube.cube import read_bands
    from s2cube.mosaic import offsets_dn
    from s2cube.offset_check import doubtful

    (time_slice,) = plan.slices
    screened = _screen(plan, config.cube)
    limit = config.job.max_aoi_cloud_percent
    if limit is not None:
        judging = _seeing_cloud(config.cube)
        if judging == config.cube:
            # Read once, for this and for the image.
            screened = judged = screened.persist(scheduler="threads", num_workers=_READERS_PER_SLICE)
        else:
            judged = _screen(plan, judging)
        reason = _rejection(plan, judged, limit)
        if reason:
            return SliceResult(time_slice.id, rejected=reason)
    dn = read_bands(plan, config.cube.bands, config.cube.quality)
    (image,) = _assemble(plan, config.cube, dn, screened)
    doubts = doubtful(dn, screened, offsets_dn(plan, config.cube), canonical_bands(config.cube.bands))
    image, doubts = compute(image, doubts, scheduler="threads", num_workers=_READERS_PER_SLICE)
    names = tuple(scene.id for scene, doubted in zip(time_slice.scenes, doubts, strict=True) if doubted)
    return SliceResult(time_slice.id, path=str(_write(image, output, names)), doubtful=names)


def _seeing_cloud(config: CubeSection) -> CubeSection:
    """Let masks see cloud, and where there is no data, though a run may mask neither."""
    mask = tuple(dict.fromkeys((*config.mask, "scl")))
    classes = {*config.mask_classes, *CLOUD_CLASSES, NO_DATA_CLASS}
    if mask == config.mask and classes == set(config.mask_classes):
        return config
    return config.model_copy(update={"mask": mask, "mask_classes": tuple(sorted(classes))})


def _rejection(plan: Plan, screened: "xr.Dataset", limit_percent: float) -> str | None:
    """Say why a slice is not to be written: too much cloud inside the AOI, by what masks alone tell."""
    qa = _qa(plan, screened).compute(scheduler="threads", num_workers=_READERS_PER_SLICE)
    cloud = cloud_percent(qa.values)
    if cloud is None:
        return "no source data inside the AOI"
    return f"{cloud:.1f} % cloud inside the AOI, more than {limit_percent:g}" if cloud > limit_percent else None


def failed(plan: Plan, error: BaseException) -> SliceResult:
    """Say of the one slice of a plan why it could not be made."""
    (time_slice,) = plan.slices
    return SliceResult(
        time_slice.id,
        failure=SliceFailure(
            slice=time_slice.id,
            scenes=tuple(scene.id for scene in time_slice.scenes),
            asset=_asset(plan, error),
            error=str(error) if isinstance(error, SliceError) else redact(f"{type(error).__name__}: {error}"),
            time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        ),
    )


def _asset(plan: Plan, error: BaseException) -> str:
    if isinstance(error, AssetReadError | SceneError):
        for scene in plan.slices[0].scenes:
            for key, asset in scene.assets.items():
                if redact(asset.href) == error.subject:
                    return key
    return error.asset if isinstance(error, SliceError) else ""
