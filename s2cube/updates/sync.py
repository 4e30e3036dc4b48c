"""`s2cube sync` as a whole: a pass with its command, here or on a worker, once or on a schedule."""

import logging
from functools import partial

from s2cube.cluster.this_process import is_cancelled, leave_pool, task_key
from s2cube.config.sections import JobConfig
from s2cube.errors import S2CubeError
from s2cube.jobs.pipeline import Watch
from s2cube.sentinel2 import canonical_bands
from s2cube.storage.output import Output
from s2cube.updates._failed_passes import failures_noted
from s2cube.updates._hook import after_pass
from s2cube.updates._products import check_areas, for_products
from s2cube.updates._sync_pass import make_pass
from s2cube.updates.pass_record import Pass
from s2cube.updates.schedule import Schedule
from s2cube.updates.service import Host, process_host, read_service, serve

log = logging.getLogger(__name__)


def sync_once(config: JobConfig, watch: Watch | None = None) -> Pass:
    """Make one pass, and run the command of --on-change. An error that ends the pass is noted in ``sync.jsonl``.

    Raises
    ------
    S2CubeError
        As `make_pass`.
    """
    output = Output.at(config.job.out)
    with failures_noted(output):
        made = make_pass(config, watch)
    return after_pass(config.sync.on_change, made, output) if config.sync.on_change else made


def check_sync(config: JobConfig) -> None:
    """Check the settings and the areas, before passes are made elsewhere.

    Raises
    ------
    UsageError
        If they are not valid.
    """
    canonical_bands(config.cube.bands)
    for_products(config)
    check_areas(config)


def sync_on_worker(config: JobConfig) -> None:
    """Make one pass, or passes on a schedule, in a task of a Dask worker.

    A service ends if its task is cancelled, or if another service begins for the same output.
    """
    schedule = Schedule.of(config.sync)
    if schedule is None:
        sync_once(config)
        return
    # The service waits. Other tasks need its thread.
    leave_pool()
    output, key = Output.at(config.job.out), task_key()
    where = f"{process_host().where}, task {key}"

    def is_over() -> bool:
        return is_cancelled(key) or _is_replaced(where, output)

    serve(partial(_exit_status, config), schedule, output, Host(where, is_over))


def service_has_begun(output: Output, pid: int) -> bool:
    """Return whether a process of this machine makes passes for an output."""
    service = read_service(output)
    return service is not None and service.where == process_host(pid).where


def _is_replaced(where: str, output: Output) -> bool:
    try:
        service = read_service(output)
    except S2CubeError as error:
        log.warning("%s", error)
        return False
    return service is not None and service.where != where


def _exit_status(config: JobConfig) -> int:
    """Make one pass; return the exit status of an error that ends it, else 0. No error ends the service."""
    try:
        sync_once(config)
    except S2CubeError as error:
        log.error("%s", error)
        return error.exit_status
    except Exception:
        log.exception("the pass failed")
        return S2CubeError.exit_status
    return 0
