"""A job goes on where its user does not wait for it: on a cluster, or in a process of its own."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from s2cube.config import JobConfig
from s2cube.errors import ClusterError, OutputError, UsageError
from s2cube.folder import Folder
from s2cube.job import Job, plan_job
from s2cube.lease import held, read_record
from s2cube.outcome import Progress
from s2cube.output import Output
from s2cube.pipeline import run_job

_START_S = 120
"""So long a process of its own may take to begin: to search, mostly."""

_LET_GO_S = 30
"""So long who hands a job over may take to leave."""

_LOOK_S = 0.2
_LOG = "run.log"
_TOLD_BYTES = 2000


def hand_over(config: JobConfig) -> str:
    """Plan a job here, hand it to the cluster's scheduler to be looked after by a worker, and tell where it is.

    Raises
    ------
    S2CubeError
        As `pipeline.run` does; and if workers do not see the output, for nobody would bring it home.
    """
    from s2cube.cluster import ask_a_worker, leave

    with held(Output.at(config.job.out), ends_as="submitted") as lease:
        job = plan_job(config, lease.output)
        lease.progress = Progress(total=len(job.todo), skipped=len(job.skipped))
        if ask_a_worker(config.cluster, _sees, lease.output) is False:
            remedy = "Give --out an object store or a folder that they share; or use run, and stay"
            raise OutputError(str(config.job.out), "is not seen by the workers of the cluster", remedy)
        leave(config.cluster, f"s2cube-job-{lease.id}", _look_after, replace(job, config=config.for_workers()))
    return f"Handed {len(job.todo)} slices to {config.cluster.scheduler}"


def _sees(output: Output) -> bool:
    return output.is_reached()


def _look_after(job: Job) -> None:
    """Do a job, on a worker, as soon as who hands it over has let it go."""
    deadline = time.monotonic() + _LET_GO_S
    while (record := read_record(job.output)) and record.run == job.output.run and record.is_open:
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_S)
    if record is None:
        raise OutputError(str(job.config.job.out), "is not seen by this worker", "Give --out a place that all share")
    with held(job.output) as lease:
        run_job(replace(job, output=lease.output), lease)


def detach(config: JobConfig, words: list[str]) -> str:
    """Run a job in a process of its own, which goes on when its user leaves; tell where it is.

    It looks after a cluster of this machine, or of a class, and both end with it.

    Parameters
    ----------
    words
        The command line of `run`.

    Raises
    ------
    OutputError
        If the output cannot be written.
    ClusterError, UsageError
        If it ends before it has begun; the message holds what it said.
    """
    output = Output.at(config.job.out)
    output.place.prepare()
    log = Path(config.job.out) / ".s2cube" / _LOG if isinstance(output.place, Folder) else Path(f"s2cube-{_LOG}")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "s2cube", "run", *words]
    # Not by subprocess, which wants to see the end of what it starts.
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsid=True)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended and (status := os.waitstatus_to_exitcode(how)):
            said = log.read_text(errors="replace")[-_TOLD_BYTES:]
            kind = UsageError if status == UsageError.exit_status else ClusterError
            raise kind("the run", f"ended with status {status}: {said}", f"See {log}")
        record = read_record(output)
        if ended or (record and record.pid == pid and record.progress.began):
            break
        time.sleep(_LOOK_S)
    return f"A run goes on as process {pid} of {os.uname().nodename}; its log is {log}"
