"""What a worker does: the one slice of a plan, from its scenes to its files."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from s2cube.config import CubeSection, JobConfig
from s2cube.errors import AssetReadError, S2CubeError, SceneError, SliceError, UsageError, WriteError, redact
from s2cube.image import READERS_PER_SLICE, assemble, qa, read_access, screen, write_image
from s2cube.model import Plan
from s2cube.outcome import SliceFailure, SliceResult
from s2cube.output import Output
from s2cube.place import Folder
from s2cube.provider import canonical_bands
from s2cube.qa import CLOUD_CLASSES, NO_DATA_CLASS, cloud_percent
from s2cube.store import Access

if TYPE_CHECKING:
    import xarray as xr


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
        and output.state(plan.aoi.id, time_slice.id, time_slice.recipe, config.cube.bands) == "made"
    ):
        # By a worker that was lost before it could say so.
        return SliceResult(time_slice.id, path=output.path(plan.aoi.id, time_slice.id))
    access = read_access(config.read)
    try:
        result = _make(plan, config, output if reached else None, access)
    except (SliceError, UsageError) as error:
        result = failed(plan, error)
    except (OSError, MemoryError) as error:
        result = replace(failed(plan, error), may_pass=True)
    ledger = access.ledger
    notes = tuple(f"{redact(href)}: {text}" for href, text in ledger.notes.items())
    return replace(result, traffic=ledger.traffic, notes=notes)


@lru_cache(maxsize=4)
def _reaches(output: Output) -> bool:
    """Find out whether this process can write to the output of a run; a folder may be another machine's.

    Raises
    ------
    BusyError
        If another run writes to the bucket now.
    WriteError
        If this process may not write to it.
    """
    if not isinstance(output.place, Folder):
        output.check_run()
        output.place.probe()
        return True
    try:
        if output.is_reached():
            output.place.probe()
            return True
    except WriteError:
        pass
    return False


def _make(plan: Plan, config: JobConfig, output: Output | None, access: Access) -> SliceResult:
    from dask.base import compute

    from s2cube.cube import read_bands
    from s2cube.mosaic import offsets_dn
    from s2cube.offset_check import doubtful

    (time_slice,) = plan.slices
    screened = screen(plan, config.cube, access)
    limit = config.job.max_aoi_cloud_percent
    if limit is not None:
        judging = _seeing_cloud(config.cube)
        if judging == config.cube:
            # Read once, for this and for the image.
            screened = judged = screened.persist(scheduler="threads", num_workers=READERS_PER_SLICE)
        else:
            judged = screen(plan, judging, access)
        reason = _rejection(plan, judged, limit)
        if reason:
            return SliceResult(time_slice.id, rejected=reason)
    dn = read_bands(plan, config.cube.bands, config.cube.quality, access)
    (image,) = assemble(plan, config.cube, dn, screened)
    doubts = doubtful(dn, screened, offsets_dn(plan, config.cube), canonical_bands(config.cube.bands))
    image, doubts = compute(image, doubts, scheduler="threads", num_workers=READERS_PER_SLICE)
    names = tuple(scene.id for scene, doubted in zip(time_slice.scenes, doubts, strict=True) if doubted)
    if output:
        with output.place.staging() as folder:
            write_image(image, folder, names, config.output)
            path = output.publish(plan.aoi.id, time_slice.id, folder)
        return SliceResult(time_slice.id, path=path, doubtful=names)
    with TemporaryDirectory(prefix="s2cube-") as desk:
        write_image(image, Path(desk), names, config.output)
        files = {path.name: path.read_bytes() for path in Path(desk).iterdir()}
    return SliceResult(time_slice.id, files=files, doubtful=names)


def _seeing_cloud(config: CubeSection) -> CubeSection:
    """Let masks see cloud, and where there is no data, though a run may mask neither."""
    mask = tuple(dict.fromkeys((*config.mask, "scl")))
    classes = {*config.mask_classes, *CLOUD_CLASSES, NO_DATA_CLASS}
    if mask == config.mask and classes == set(config.mask_classes):
        return config
    return config.model_copy(update={"mask": mask, "mask_classes": tuple(sorted(classes))})


def _rejection(plan: Plan, screened: "xr.Dataset", limit_percent: float) -> str | None:
    """Say why a slice is not to be written: too much cloud inside the AOI, by what masks alone tell."""
    reasons = qa(plan, screened).compute(scheduler="threads", num_workers=READERS_PER_SLICE)
    cloud = cloud_percent(reasons.values)
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
        may_pass=isinstance(error, SliceError) and error.may_pass,
    )


def _asset(plan: Plan, error: BaseException) -> str:
    if isinstance(error, AssetReadError | SceneError):
        for scene in plan.slices[0].scenes:
            for key, asset in scene.assets.items():
                if redact(asset.href) == error.subject:
                    return key
    return error.asset if isinstance(error, SliceError) else ""
