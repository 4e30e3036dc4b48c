"""Run a job or another command on a cluster, in the background."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from s2cube.config.paths import absolute
from s2cube.config.sections import JobConfig
from s2cube.errors import ConfigError, OutputError, S2CubeError
from s2cube.jobs.job import Job, plan_job, without_overwritten
from s2cube.report.page import write_report_if_wanted
from s2cube.report.request import asked_areas, keep_request
from s2cube.runs._sent_areas import areas_received, send_areas
from s2cube.runs.run import run_planned
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.storage.record import Progress

log = logging.getLogger(__name__)

_RELEASE_S = 30
"""Maximum time (s) until the submitting process has released the output."""

_POLL_S = 0.2


def submit_job(config: JobConfig) -> str:
    """Plan a job and submit it to a scheduler. A worker runs it. Return a message for the user.

    Raises
    ------
    S2CubeError
        As `pipeline.run`. Also if the workers cannot reach the output: this process ends and cannot write their files.
    """
    from s2cube.cluster.client import submit_and_leave

    with held(Output.at(config.job.out), ends_as="submitted") as lease:
        job = plan_job(config, lease.output)
        keep_request(lease.output, config, asked_areas(job.plans))
        lease.progress = Progress(total=len(job.todo), skipped=len(job.skipped))
        _check_reachable(config, lease.output)
        if config.table.statistics:
            from s2cube.zonal.with_images import save_areas

            # The workers cannot read the file of the areas, which has more columns than the job.
            save_areas(job, has_file=True)
        job_for_workers = replace(job, config=config.for_workers())
        submit_and_leave(config.cluster, f"s2cube-job-{lease.id}", _run_submitted, job_for_workers)
    return f"Submitted {len(job.todo)} slices to {config.cluster.scheduler}"


@dataclass(frozen=True)
class _Command:
    """A command for a worker, which plans it, too.

    Parameters
    ----------
    call
        Does what the command does.
    output
        The output. The submitting process has its lease until it has left.
    areas
        Name of the file with the areas in the output; None if the settings contain the areas or their address.
    """

    call: Callable[[JobConfig], object]
    config: JobConfig
    output: Output
    areas: str | None


def submit_command(config: JobConfig, name: str, call: Callable[[JobConfig], object]) -> str:
    """Submit a command to a scheduler. A worker searches, plans and runs it. Return a message for the user.

    The workers receive a copy of the file of the areas.

    Parameters
    ----------
    name
        Name of the command.
    call
        Function of a module. It does what the command does.

    Raises
    ------
    S2CubeError
        If the output cannot be written, another run writes there, no scheduler answers, or the workers can reach
        neither the output nor a catalogue in a file.
    """
    from s2cube.cluster.client import submit_and_leave

    config = _with_absolute_paths(config)
    with held(Output.at(config.job.out), ends_as="submitted") as lease:
        _check_reachable(config, lease.output)
        _check_catalogue(config)
        command = _Command(call, config.without_cluster(), lease.output, send_areas(config.job, lease.output))
        key = f"s2cube-{name}-{lease.id}"
        submit_and_leave(config.cluster, key, _run_command, command)
    return f"Submitted {name} to {config.cluster.scheduler} as task {key}"


def _with_absolute_paths(config: JobConfig) -> JobConfig:
    """Copy settings for a process with another working directory; the path of the areas is not changed."""
    job, search, sync = config.job, config.search, config.sync
    if isinstance(job.out, Path):
        job = job.model_copy(update={"out": job.out.absolute()})
    search = search.model_copy(update={"stac": absolute(search.stac)})
    if sync.also:
        address, collection = sync.also
        sync = sync.model_copy(update={"also": (absolute(address), collection)})
    return config.model_copy(update={"job": job, "search": search, "sync": sync})


def _check_reachable(config: JobConfig, output: Output) -> None:
    """Check that a worker finds this run in the output. Nothing is checked if there is no worker yet."""
    from s2cube.cluster.client import call_on_worker

    if call_on_worker(config.cluster, _is_reachable, output) is False:
        remedy = "Set --out to an object store or a folder that they share, or use the command without submit"
        raise OutputError(str(config.job.out), "cannot be reached by the workers of the cluster", remedy)


def _is_reachable(output: Output) -> bool:
    return output.fence.is_intact()


def _check_catalogue(config: JobConfig) -> None:
    """Check that a worker can read a catalogue in a file, as `_check_reachable`."""
    from s2cube.cluster.client import call_on_worker

    stac = config.search.stac
    if "://" not in stac and call_on_worker(config.cluster, Path.exists, Path(stac)) is False:
        remedy = "Name an address, or a file in a folder that they share"
        raise ConfigError(f"--stac {stac}", "cannot be read by the workers of the cluster", remedy)


def _run_submitted(job: Job) -> None:
    """Run a job on a worker, after the submitting process has released the output."""
    _wait_for_release(job.output, job.config)
    with held(job.output) as lease:
        run_planned(without_overwritten(replace(job, output=lease.output)), lease)
    write_report_if_wanted(job.config, job.output)


def _run_command(command: _Command) -> None:
    """Run a command on a worker, after the submitting process has released the output.

    An error is logged here. Dask would log it with the settings, and the address of a catalogue may be a secret.
    """
    try:
        _wait_for_release(command.output, command.config)
        with areas_received(command.config, command.output, command.areas) as config:
            command.call(config)
    except S2CubeError as error:
        log.error("%s", error)
    except Exception as error:
        log.exception("unexpected %s", type(error).__name__)


def _wait_for_release(output: Output, config: JobConfig) -> None:
    deadline = time.monotonic() + _RELEASE_S
    while (record := read_record(output)) and record.run == output.run and record.is_open:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    if record is None:
        remedy = "Set --out to a folder or an object store that all workers share"
        raise OutputError(str(config.job.out), "cannot be reached by this worker", remedy)
