"""Run a job: search, plan, compute images and statistics, write catalogue and table."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.area.areas import read_aois
from s2cube.config.sections import JobConfig
from s2cube.errors import ConfigError
from s2cube.jobs.job import Job, plan_job
from s2cube.jobs.pipeline import Watch, early_workers, run_job
from s2cube.jobs.results import Summary
from s2cube.report.page import write_report_if_wanted
from s2cube.report.request import asked_areas, keep_request
from s2cube.scenes.search import Catalogue, open_catalogue
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output

if TYPE_CHECKING:
    from s2cube.area.areas import AreaLike


def run(
    config: JobConfig, watch: Watch | None = None, *, aoi: "AreaLike | None" = None, crs: object = None,
    progress: bool = True,
) -> Summary:  # fmt: skip
    """Run a job: search scenes, compute, mask and clip a cube, and write one COG per time slice.

    If the settings name statistics, they are computed from the same pixels, and kept as a table.

    Without a scheduler, the run starts worker processes on this machine. They do not import the calling script, so it
    needs no ``if __name__ == "__main__":``. A small job is computed in threads of this process.

    Parameters
    ----------
    config
        All settings of the job.
    watch
        Object whose methods are called when the slices are known and after each slice. By default a progress bar is
        shown.
    aoi
        Areas of interest instead of the file that the settings name: anything that `read_aois` takes.
    crs
        CRS of a geometry in `aoi` that has none of its own; default: degrees (EPSG:4326).
    progress
        Whether the progress bar is shown, in a notebook or on stderr if it is a terminal.

    Returns
    -------
    Summary
        The slices that are written, skipped, rejected and failed; requests and bytes.

    Raises
    ------
    S2CubeError
        If the job cannot be done: a setting or the AOI is not valid, the catalogue fails, there is no cluster or it
        is lost, the output cannot be written, or another run writes there. A failed slice does not raise an error. The
        summary and ``failures.jsonl`` list it.

    Examples
    --------
    The files are those of the command ``s2cube demo``. The job is small: no worker is started.

    >>> import os
    >>> from pathlib import Path
    >>> import s2cube
    >>> archive = {"aoi": "s2cube-demo/archive/aoi.geojson", "stac": "s2cube-demo/archive/items.json"}
    >>> job = {"datetime": "2022-05", "bands": "red,nir", "resolution": 60, "out": "out"}
    >>> summary = s2cube.run(s2cube.load_config(archive | job, os.environ))
    >>> [Path(path).name for path in summary.written], len(summary.failed)
    (['farm_20220520.tif'], 0)
    """
    if not isinstance(config, JobConfig):
        problem = f"is a {type(config).__name__}, not a JobConfig"
        raise ConfigError("the configuration", problem, "Make one by s2cube.load_config")
    from s2cube.progress_bar import shown_bar

    layer = config.job.aoi_layer if isinstance(aoi, str | Path) else None
    aois = None if aoi is None else read_aois(aoi, config.job.aoi_id, crs=crs, layer=layer)
    with (
        held(Output.at(config.job.out)) as lease,
        shown_bar(progress and watch is None) as bar,
        early_workers(config, lease),
    ):
        job = plan_job(config, lease.output, aois)
        keep_request(lease.output, config, asked_areas(job.plans))
        summary = run_planned(job, lease, watch or bar, has_file=aois is None, is_here=True)
    write_report_if_wanted(config, lease.output)
    return summary


def run_planned(
    job: Job, lease: Lease, watch: Watch | None = None, has_file: bool = False, is_here: bool = False
) -> Summary:
    """Compute the images of a planned job, and its statistics. This process must have the lease of the output.

    Parameters
    ----------
    has_file
        Whether the file that the settings name has the areas: its columns are kept beside the table.
    is_here
        Whether the job was planned in this process, and not submitted to it. A worker does not know the address of the
        catalogue, so that rows whose new ones would lack scenes stay as they are. It cannot read the file of the areas:
        the process that submits the job writes them.
    """
    if not job.config.table.statistics:
        return run_job(job, lease, watch)
    from s2cube.zonal.with_images import Origin, compute_both

    def catalogue() -> Catalogue:
        return open_catalogue(job.config.search, job.config.read.timeout_s) if is_here else []

    return compute_both(job, lease, watch, Origin(has_file, catalogue, has_areas=not is_here))
