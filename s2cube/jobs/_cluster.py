"""A Dask client from configuration, and what is asked of its workers."""

import importlib
import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, TypeVar
from uuid import uuid4

import dask.config
import distributed
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, Security

from s2cube.config.sections import ClusterSection
from s2cube.errors import ClusterError, ConfigError, redact

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S = 10
_ANSWER_S = 10
"""So long all workers may take to say what they have installed."""

_WORKER_SETTINGS = {"distributed.worker.profile.enabled": False}
"""Python below 3.11.9 may lock up when a profiler looks at its threads (its issue 106883), and nobody looks at this
profile: the cluster goes with the run."""

_EXTRAS = {
    "dask_jobqueue": "jobqueue", "dask_gateway": "gateway", "dask_kubernetes": "kubernetes", "coiled": "coiled",
}  # fmt: skip
"""What brings a package: extras of s2cube."""

_MUST_AGREE = ("s2cube",)
_MUST_BE_THERE = ("stackstac", "xarray", "rioxarray", "rasterio", "odc-geo", "pystac", "imagecodecs", "obstore")
_TELL_OF = ("dask", "distributed", "numpy", *_MUST_BE_THERE)


@contextmanager
def open_client(config: ClusterSection, tasks: int) -> Iterator[Client]:
    """Connect to the configured scheduler, or start a cluster for as long as it is needed.

    On a worker, that is the client of its own cluster. Without any, it is a cluster of this machine: a process a core,
    for Python lets one thread of a process compute at a time, and two threads in each, for slices wait for answers. On
    two cores and 10 ms a request, for 200 small slices, one process of four threads took 1.5 of the wall time of that,
    plain threads without a cluster 1.2, two processes of one thread each 1.1 (``benchmarks/scaling.py``). It is
    processes of their own, not threads of the caller's, so that a worker that dies or leaks is replaced.

    Parameters
    ----------
    tasks
        How many there will be; no more workers than that are started on this machine.

    Raises
    ------
    ClusterError
        If there is no scheduler at the address, a cluster cannot be started, or its workers do not fit.
    ConfigError
        If there is no such class, or not with such options.
    """
    if _is_worker():
        # Who waits for others must not take a thread from them.
        distributed.secede()
        yield distributed.get_client()
    elif config.scheduler is not None:
        with _connect(config.scheduler, config) as client:
            yield client
    elif config.cluster_class is not None:
        with _start(config) as cluster, cluster.get_client() as client:
            cluster.scale(config.workers)
            yield client
    else:
        with _start_here(config, tasks) as cluster, Client(cluster) as client:
            try:
                yield client
            except BaseException:
                # Nobody waits for slices that are half made; they would be thrown away.
                for nanny in cluster.workers.values():
                    nanny.auto_restart = False
                    if nanny.pid:
                        os.kill(nanny.pid, signal.SIGKILL)
                raise


def _start_here(config: ClusterSection, tasks: int) -> LocalCluster:
    # A terminal sends Ctrl-C to all processes of a command: workers are to leave it to this one, which ends them.
    # Processes inherit the mask of the thread that starts them, and threads that of theirs. (The tracker, when it is
    # started, would take the mask off.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with dask.config.set(_WORKER_SETTINGS):
            return LocalCluster(
                n_workers=min(config.workers_on(CPU_COUNT), tasks),
                threads_per_worker=config.threads_on(CPU_COUNT),
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_worker() -> bool:
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def ask_a_worker(config: ClusterSection, function: Callable[[_Task], _Result], task: _Task) -> _Result | None:
    """Call a function on some worker of a scheduler; None where there is no worker yet."""
    with _connect(str(config.scheduler), config) as client:
        if not client.nthreads():
            log.warning("%s has no worker yet", config.scheduler)
            return None
        check_versions(client)
        answer: _Result = call(client, uuid4().hex, function, task).result()
        return answer


def leave(config: ClusterSection, name: str, function: Callable[[_Task], object], task: _Task) -> None:
    """Have a function called on a worker of a scheduler, and do not wait for it."""
    with _connect(str(config.scheduler), config) as client:
        distributed.fire_and_forget(call(client, name, function, task))


def _connect(address: str, config: ClusterSection) -> Client:
    files = {"tls_ca_file": config.tls_ca, "tls_client_cert": config.tls_cert, "tls_client_key": config.tls_key}
    given = {key: str(path) for key, path in files.items() if path is not None}
    try:
        security = Security(**given, require_encryption=True) if given else None
        return Client(address, timeout=_CONNECT_TIMEOUT_S, security=security)
    except Exception as error:  # noqa: BLE001  whatever the address and the certificates lead to
        told = ": ".join(dict.fromkeys(str(each) for each in (error, error.__cause__) if each and str(each)))
        remedy = "Check --scheduler, as in tcp://host:8786, and for tls:// --tls-ca, --tls-cert and --tls-key"
        raise ClusterError(address, f"no Dask scheduler answers as it should ({redact(told)})", remedy) from None


def _start(config: ClusterSection) -> Any:
    path = config.cluster_class or ""
    package, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, ValueError) as error:
        extra = _EXTRAS.get(path.partition(".")[0])
        install = f"Run in your clone of s2cube: pip install -e '.[{extra}]'"
        remedy = install if extra else "Correct --class, or install its package"
        raise ConfigError(f"--class {path}", f"cannot be had ({error})", remedy) from None
    if not hasattr(kind, "get_client"):
        raise ConfigError(f"--class {path}", "is no class of Dask clusters", "Correct it")
    try:
        return kind(**(config.options or {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--class {path}", f"does not take these options ({redact(str(error))})", "Correct them"
        ) from None
    except Exception as error:  # noqa: BLE001  classes are others' code
        problem = f"cannot be started ({type(error).__name__}: {redact(str(error))})"
        raise ClusterError(path, problem, "See to what it asks for") from None


def check_versions(client: Client) -> None:
    """Compare what client and workers have installed.

    Raises
    ------
    ClusterError
        If a worker has another s2cube or Python, or lacks something.
    """
    packages = [*_MUST_AGREE, *_MUST_BE_THERE]
    try:
        # As `get_versions` does, which waits for a worker that is frozen, and with it for ever.
        found: Any = client.sync(client._get_versions, packages=packages, callback_timeout=_ANSWER_S)
    except TimeoutError:
        log.warning("some worker does not answer: what workers have installed is not compared")
        return
    own = found["client"]["packages"]
    told = set()
    for address, worker in found["workers"].items():
        theirs = worker["packages"]
        lacking = [name for name in (*_MUST_AGREE, *_MUST_BE_THERE) if theirs.get(name) is None and own.get(name)]
        if lacking:
            problem = f"lacks {', '.join(lacking)}"
            raise ClusterError(f"worker {address}", problem, "Install s2cube there, in the version that is here")
        other = [name for name in _MUST_AGREE if theirs[name] != own[name]]
        if _minor(theirs["python"]) != _minor(own["python"]):
            other.append("python")
        if other:
            problem = ", ".join(f"has {name} {theirs[name]}, not {own[name]}" for name in other)
            raise ClusterError(f"worker {address}", problem, "Install the same version there as here")
        told |= {(name, theirs[name], own[name]) for name in _TELL_OF if theirs.get(name) != own.get(name)}
    for name, its, mine in sorted(told):
        log.warning("workers have %s %s, here it is %s: where results differ, that may be why", name, its, mine)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


@dataclass(frozen=True)
class _Call:
    """To unpickle it is to call it. So a scheduler keeps bytes, and need not have s2cube installed."""

    function: Callable[..., Any]
    task: object

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, (self.task,)


def call(client: Client, key: Any, function: Callable[[_Task], object], task: _Task) -> "Future[Any]":
    """Have a function called on a worker."""
    return client.submit(pickle.loads, pickle.dumps(_Call(function, task)), key=key, pure=False)


def memory_limit() -> int | None:
    """Give the bytes that the worker may take that this runs in; None where there is no worker, or no limit."""
    try:
        limit: int | None = distributed.get_worker().memory_manager.memory_limit
    except ValueError:
        return None
    return limit
