"""Start the workers of a run on this machine while the run searches."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from s2cube.config.sections import ClusterSection

if TYPE_CHECKING:
    from distributed import LocalCluster

log = logging.getLogger(__name__)

_starting: ContextVar["Future[LocalCluster] | None"] = ContextVar("starting", default=None)


@contextmanager
def workers_starting(config: ClusterSection) -> Iterator[None]:
    """Start the workers of this machine in a thread, for `client.open_client` in the block.

    Workers need some seconds to import their libraries. A search needs the time for answers of the catalogue. If the
    block ends and has not used the workers, they are ended.

    Parameters
    ----------
    config
        It must name a number of workers, and neither a scheduler nor a class.
    """
    log.info("starting %d worker%s", config.workers, "s" if (config.workers or 1) > 1 else "")
    started: Future[LocalCluster] = Future()
    # Not a thread of an executor: Python would wait for it before it exits.
    threading.Thread(target=_start, args=(config, started), name="s2cube-workers", daemon=True).start()
    token = _starting.set(started)
    try:
        yield
    finally:
        unused = _starting.get()
        _starting.reset(token)
        if unused is not None:
            unused.add_done_callback(_end)


def take_started() -> "LocalCluster | None":
    """Return the cluster that `workers_starting` started, when it is there; None if there is none.

    Only the first call returns it. The caller must end it.
    """
    started = _starting.get()
    _starting.set(None)
    return started.result() if started else None


def _start(config: ClusterSection, started: "Future[LocalCluster]") -> None:
    try:
        from s2cube.cluster._local import start_here

        started.set_result(start_here(config, config.workers or 1))
    except BaseException as error:  # noqa: BLE001  the thread that takes the cluster raises it
        started.set_exception(error)


def _end(started: "Future[LocalCluster]") -> None:
    if started.exception() is None:
        from s2cube.cluster._local import kill_workers

        kill_workers(started.result())
        started.result().close()
