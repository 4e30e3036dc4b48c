"""A job goes on where its user does not wait for it: on a cluster, or in a process of its own."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from s2cube.config.sections import JobConfig
from s2cube.errors import ClusterError, OutputError, SliceError, UsageError
from s2cube.jobs.job import Job, plan_job, without_overwritten
from s2cube.jobs.pipeline import run_job
from s2cube.storage.folder import Folder
from s2cube.storage.layout import RUN, RUN_LOG
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.storage.progress import Progress
from s2cube.storage.record import Record

_START_S = 120
"""So long a process of its own may take to begin: to search, mostly."""

_LET_GO_S = 30
"""So long who hands a job over may take to leave."""

_LOOK_S = 0.2
_TOLD_BYTES = 2000


def hand_over(config: JobConfig) -> str:
    """Plan a job here, hand it to the cluster's scheduler to be looked after by a worker, and tell where it is.

    Raises
    ------
    S2CubeError
        As `pipeline.run` does; and if workers do not see the output, for nobody would bring it home.
    """
    from s2cube.jobs._cluster import ask_a_worker, leave

    with held(Output.at(config.job.out), ends_as="submitted") as lease:
        job = plan_job(config, lease.output)
        lease.progress = Progress(total=len(job.todo), skipped=len(job.skipped))
        if ask_a_worker(config.cluster, _sees, lease.output) is False:
            remedy = "Give --out an object store or a folder that they share; or use run, and stay"
            raise OutputError(str(config.job.out), "is not seen by the workers of the cluster", remedy)
        leave(config.cluster, f"s2cube-job-{lease.id}", _look_after, replace(job, config=config.for_workers()))
    return f"Handed {len(job.todo)} slices to {config.cluster.scheduler}"


def _sees(output: Output) -> bool:
    return output.fence.is_intact()


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
        run_job(without_overwritten(replace(job, output=lease.output)), lease)


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
    output.destination.prepare()
    # Append to the log: it may belong to another run that is still going on.
    local = output.destination.local("")
    here, name = (Folder(local), RUN_LOG) if local else (Folder(Path.cwd()), "s2cube-run.log")
    with here.open_to_append(name) as file:
        began = file.tell()
        pid = _spawn([sys.executable, "-m", "s2cube", "run", *words], file.fileno())
    log = here.root / name
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended, how = os.waitpid(pid, os.WNOHANG)
        # The exit status of failed slices means that it has begun, and has already ended.
        if ended and (status := os.waitstatus_to_exitcode(how)) not in (0, SliceError.exit_status):
            said = (here.read(name) or b"")[began:][-_TOLD_BYTES:].decode(errors="replace")
            kind = UsageError if status == UsageError.exit_status else ClusterError
            raise kind("the run", f"ended with status {status}: {said}", f"See {log}")
        record = Record.parse(output.destination.read(RUN))
        if ended or (record and record.pid == pid and record.has_begun):
            break
        time.sleep(_LOOK_S)
    return f"A run goes on as process {pid} of {os.uname().nodename}; its log is {log}"


def _spawn(command: list[str], log: int) -> int:
    """Start a process that goes on alone, and writes to an open file; give its id."""
    # Not by subprocess, which wants to see the end of what it starts.
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
