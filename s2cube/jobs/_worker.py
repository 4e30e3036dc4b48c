"""What a worker does: the one slice of a plan, from its scenes to its files."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.config.times import timestamp
from s2cube.cube.open_cube import assemble, qa, read_access, screen
from s2cube.errors import AssetReadError, S2CubeError, SceneError, SliceError, UsageError, WriteError, safe_text
from s2cube.fetch.session import per_session
from s2cube.fetch.store import Access
from s2cube.jobs.results import SliceResult
from s2cube.scenes.time_slice import Plan
from s2cube.sentinel2 import CLOUD_CLASSES, NO_DATA_CLASS, QA, canonical_bands, cloud_percent
from s2cube.storage.failures import SliceFailure
from s2cube.storage.output import Output

if TYPE_CHECKING:
    import xarray as xr

_KEPT_BYTES = 64 << 20
"""Of masks that are looked at before bands are read. Those of a larger slice are computed again; what was fetched for
them is kept, as far as there is room."""


def make_slice(plan: Plan, config: JobConfig, output: Output) -> SliceResult:
    """Make the one slice of a plan, on a worker; what goes wrong becomes the result, and so does what it took.

    Raises
    ------
    WriteError
        If it cannot be written: that is not the slice's fault.
    BusyError
        If another run writes there now.
    """
    try:
        return _make_slice(plan, config, output)
    except S2CubeError as error:
        # On the way home causes are pickled too, and some (GDAL's) cannot be: all would be lost but a text.
        error.__cause__ = error.__context__ = None
        raise


def _make_slice(plan: Plan, config: JobConfig, output: Output) -> SliceResult:
    reached = _reaches(output)
    (time_slice,) = plan.slices
    if (
        reached
        and not config.job.overwrite
        and output.state(plan.aoi.id, time_slice.id, time_slice.recipe, config.cube.bands) == "current"
    ):
        # By a worker that was lost before it could say so.
        return SliceResult(time_slice.id, path=output.path(plan.aoi.id, time_slice.id))
    from s2cube.jobs._memory import share

    access = read_access(config.read)
    try:
        with share(plan, config.cube) as readers:
            result = _make(plan, config, output if reached else None, access, readers)
    except (SliceError, UsageError) as error:
        result = failed(plan, error)
    except (OSError, MemoryError) as error:
        result = replace(failed(plan, error), may_pass=True)
    usage = access.usage
    notes = tuple(f"{safe_text(href)}: {text}" for href, text in usage.notes.items())
    return replace(result, traffic=usage.traffic, notes=notes)


@per_session(maxsize=4)
def _reaches(output: Output) -> bool:
    """Find out whether this process can write to the output of a run; a folder may be another machine's.

    Raises
    ------
    BusyError
        If another run writes to the bucket now.
    WriteError
        If this process may not write to it.
    """
    if output.destination.is_shared:
        output.fence.check()
        output.destination.check_writable()
        return True
    try:
        if output.fence.is_intact():
            output.destination.check_writable()
            return True
    except WriteError:
        return False  # it is there to be seen, not to be written: the files go home
    return False


def _make(plan: Plan, config: JobConfig, output: Output | None, access: Access, readers: int) -> SliceResult:
    from s2cube.cube.mosaic import offsets_dn
    from s2cube.cube.offset_check import OffsetCheck
    from s2cube.cube.stack import read_bands
    from s2cube.output.files import write_files

    (time_slice,) = plan.slices
    screened = screen(plan, config.cube, access)
    limit = config.job.max_aoi_cloud_percent
    if limit is not None:
        judging = _seeing_cloud(config.cube)
        judged = screened if judging == config.cube else screen(plan, judging, access)
        if judged is screened and screened.nbytes <= _KEPT_BYTES:
            # Computed once, for this and for the image.
            screened = judged = screened.persist(scheduler="threads", num_workers=readers)
        reason = _rejection(plan, judged, limit, readers)
        if reason:
            return SliceResult(time_slice.id, rejected=reason)
    dn = read_bands(plan, config.cube.bands, config.cube.quality, access)
    (image,) = assemble(plan, config.cube, dn, screened)
    check = OffsetCheck(dn, screened, offsets_dn(plan, config.cube), canonical_bands(config.cube.bands))
    with output.destination.staging() if output else TemporaryDirectory(prefix="s2cube-") as place:
        folder = Path(place)
        doubted = write_files(image, folder, config.output, readers, check)
        if output:
            path = output.publish(plan.aoi.id, time_slice.id, folder)
            return SliceResult(time_slice.id, path=path, doubtful=doubted)
        files = {each.name: each.read_bytes() for each in folder.iterdir()}
    return SliceResult(time_slice.id, files=files, doubtful=doubted)


def _seeing_cloud(config: CubeSection) -> CubeSection:
    """Let masks see cloud, and where there is no data, though a run may mask neither."""
    mask = tuple(dict.fromkeys((*config.mask, "scl")))
    classes = {*config.mask_classes, *CLOUD_CLASSES, NO_DATA_CLASS}
    if mask == config.mask and classes == set(config.mask_classes):
        return config
    return config.model_copy(update={"mask": mask, "mask_classes": tuple(sorted(classes))})


def _rejection(plan: Plan, screened: "xr.Dataset", limit_percent: float, readers: int) -> str | None:
    """Say why a slice is not to be written: too much cloud inside the AOI, by what masks alone tell."""
    import dask.array as da

    reasons = qa(plan, screened).data
    counts = da.stack([(reasons == value).sum() for value in QA])
    cloud = cloud_percent(counts.compute(scheduler="threads", num_workers=readers))
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
            error=str(error) if isinstance(error, SliceError) else safe_text(f"{type(error).__name__}: {error}"),
            time=timestamp(timespec="seconds"),
        ),
        may_pass=isinstance(error, SliceError) and error.may_pass,
    )


def _asset(plan: Plan, error: BaseException) -> str:
    if isinstance(error, AssetReadError | SceneError):
        for scene in plan.slices[0].scenes:
            for key, asset in scene.assets.items():
                if safe_text(asset.href) == error.subject:
                    return key
    return error.asset if isinstance(error, SliceError) else ""
