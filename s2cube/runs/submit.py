"""Run a job in the background: on a cluster, or in another process on this machine."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from s2cube.config.sections import JobConfig
from s2cube.errors import ClusterError, OutputError, SliceError, UsageError
from s2cube.jobs.job import Job, plan_job, without_overwritten
from s2cube.report.page import write_report_if_wanted
from s2cube.runs.run import run_planned
from s2cube.storage.folder import Folder
from s2cube.storage.layout import RUN, RUN_LOG
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.storage.record import Progress, Record

_START_S = 120
"""Maximum time (s) until a detached process has begun. Most of it is the search."""

_RELEASE_S = 30
"""Maximum time (s) until the submitting process has released the output."""

_POLL_S = 0.2
_LOG_TAIL_BYTES = 2000


def submit_job(config: JobConfig) -> str:
    """Plan a job and submit it to a scheduler. A worker runs it. Return a message for the user.

    Raises
    ------
    S2CubeError
        As `pipeline.run`. Also if the workers cannot reach the output: this process ends and cannot write their files.
    """
    from s2cube.cluster.client import call_on_worker, submit_and_leave

    with held(Output.at(config.job.out), ends_as="submitted") as lease:
        job = plan_job(config, lease.output)
        lease.progress = Progress(total=len(job.todo), skipped=len(job.skipped))
        if call_on_worker(config.cluster, _is_reachable, lease.output) is False:
            remedy = "Set --out to an object store or a folder that they share, or use the command run"
            raise OutputError(str(config.job.out), "cannot be reached by the workers of the cluster", remedy)
        if config.table.statistics:
            from s2cube.zonal.with_images import save_areas

            # The workers cannot read the file of the areas, which has more columns than the job.
            save_areas(job, has_file=True)
        job_for_workers = replace(job, config=config.for_workers())
        submit_and_leave(config.cluster, f"s2cube-job-{lease.id}", _run_submitted, job_for_workers)
    return f"Submitted {len(job.todo)} slices to {config.cluster.scheduler}"


def _is_reachable(output: Output) -> bool:
    return output.fence.is_intact()


def _run_submitted(job: Job) -> None:
    """Run a job on a worker, after the submitting process has released the output."""
    deadline = time.monotonic() + _RELEASE_S
    while (record := read_record(job.output)) and record.run == job.output.run and record.is_open:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    if record is None:
        remedy = "Set --out to a folder or an object store that all workers share"
        raise OutputError(str(job.config.job.out), "cannot be reached by this worker", remedy)
    with held(job.output) as lease:
        run_planned(without_overwritten(replace(job, output=lease.output)), lease)
    write_report_if_wanted(job.config, job.output)


def run_detached(config: JobConfig, arguments: list[str]) -> str:
    """Run a job in a process that continues when the user logs out; return a message for the user.

    The process starts a cluster, on this machine or of a configured class, and ends it.

    Parameters
    ----------
    arguments
        Arguments of the command `run`.

    Raises
    ------
    OutputError
        If the output cannot be written.
    ClusterError, UsageError
        If the process ends before the run has begun. The message contains the end of its log.
    """
    output = Output.at(config.job.out)
    output.destination.prepare()
    # Append to the log, because another run may still write to it.
    local = output.destination.local("")
    here, name = (Folder(local), RUN_LOG) if local else (Folder(Path.cwd()), "s2cube-run.log")
    with here.open_to_append(name) as file:
        began = file.tell()
        pid = _spawn([sys.executable, "-m", "s2cube", "run", *arguments], file.fileno())
    log = here.root / name
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended, wait_status = os.waitpid(pid, os.WNOHANG)
        # The exit status for failed slices means that the run has begun and has already ended.
        if ended and (status := os.waitstatus_to_exitcode(wait_status)) not in (0, SliceError.exit_status):
            messages = (here.read(name) or b"")[began:][-_LOG_TAIL_BYTES:].decode(errors="replace")
            error = UsageError if status == UsageError.exit_status else ClusterError
            raise error("the run", f"ended with status {status}: {messages}", f"See {log}")
        record = Record.parse(output.destination.read(RUN))
        if ended or (record and record.pid == pid and record.has_begun):
            break
        time.sleep(_POLL_S)
    return f"The run continues as process {pid} on {os.uname().nodename}; its log is {log}"


def _spawn(command: list[str], log: int) -> int:
    """Start a process that continues when this one ends and writes to an open file; return its id."""
    # subprocess is not used, because it warns if this process does not wait for the end of the other.
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
