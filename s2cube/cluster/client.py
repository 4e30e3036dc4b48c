"""Create a Dask client from the configuration, and call functions on its workers."""

import importlib
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import distributed
from dask.system import CPU_COUNT
from distributed import Client, Future, Security
from distributed.protocol.pickle import dumps

from s2cube.cluster._local import kill_workers, main_hidden, start_here
from s2cube.cluster._versions import check_versions
from s2cube.cluster.early import take_started
from s2cube.cluster.this_process import is_worker, leave_pool
from s2cube.config.sections import ClusterSection
from s2cube.errors import ClusterError, ConfigError, install_remedy, redact

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S = 10

_LARGE_CALL_BYTES = 1 << 20
"""A larger call is not part of the graph that the scheduler receives, because Dask warns about large graphs."""

_EXTRAS = {
    "dask_jobqueue": "jobqueue", "dask_gateway": "gateway", "dask_kubernetes": "kubernetes", "coiled": "coiled",
}  # fmt: skip
"""The extra of s2cube that installs a package."""


@contextmanager
def open_client(config: ClusterSection, tasks: int) -> Iterator[Client]:
    """Connect to the configured scheduler, or start a cluster that ends with the context.

    On a worker, the client is connected to the worker's own cluster. If nothing is configured, a cluster is started on
    this machine. It has one process per core, because only one thread of a process runs Python code at a time. Each
    process has two threads, because slices wait for servers. Other choices are slower. Their wall times as multiples
    of this one, measured on two cores, with 10 ms per request and 200 small slices (``benchmarks/scaling.py``): one
    process with four threads 1.5, threads without a cluster 1.2, two processes with one thread each 1.1. Workers are
    processes, not threads of this process, so that Dask can replace a worker that crashes or leaks memory.

    Parameters
    ----------
    tasks
        Number of tasks. A cluster that is started here does not have more workers than tasks, unless it was started
        before the search.

    Raises
    ------
    ClusterError
        If no scheduler answers at the address, or a cluster cannot be started.
    ConfigError
        If the cluster class does not exist, or does not accept its options.
    """
    if is_worker():
        # This task waits for other tasks: it must not occupy a thread that they need.
        leave_pool()
        yield distributed.get_client()
    elif config.scheduler is not None:
        log.info("connecting to %s", config.scheduler)
        with _connect(config.scheduler, config) as client:
            yield client
    elif config.cluster_class is not None:
        log.info("starting %s with %s workers", config.cluster_class, config.workers)
        with _start_class(config) as cluster, cluster.get_client() as client:
            cluster.scale(config.workers)
            yield client
    else:
        cluster = take_started()
        if cluster is None:
            workers = min(config.workers_on(CPU_COUNT), tasks)
            log.info("starting %d worker%s", workers, "s" if workers > 1 else "")
            cluster = start_here(config, tasks)
        with cluster, Client(cluster) as client:
            try:
                yield client
            except BaseException:
                kill_workers(cluster)
                raise


def call_on_worker(config: ClusterSection, function: Callable[[_Task], _Result], task: _Task) -> _Result | None:
    """Call a function on any worker of a scheduler, and wait for its result; None if there is no worker yet."""
    with _connect(str(config.scheduler), config) as client:
        if not client.nthreads():
            log.warning("%s has no worker yet", config.scheduler)
            return None
        check_versions(client)
        result: _Result = submit(client, uuid4().hex, function, task).result()
        return result


def submit_and_leave(config: ClusterSection, name: str, function: Callable[[_Task], object], task: _Task) -> None:
    """Submit a call to a scheduler, and do not wait for it. The scheduler keeps the call until it has run."""
    with _connect(str(config.scheduler), config) as client:
        distributed.fire_and_forget(submit(client, name, function, task))


def _connect(address: str, config: ClusterSection) -> Client:
    files = {"tls_ca_file": config.tls_ca, "tls_client_cert": config.tls_cert, "tls_client_key": config.tls_key}
    tls = {key: str(path) for key, path in files.items() if path is not None}
    try:
        security = Security(**tls, require_encryption=True) if tls else None
        return Client(address, timeout=_CONNECT_TIMEOUT_S, security=security)
    except Exception as error:  # noqa: BLE001  wrong addresses and certificates raise many types
        reason = ": ".join(dict.fromkeys(str(each) for each in (error, error.__cause__) if each and str(each)))
        remedy = "Check --scheduler (such as tcp://host:8786) and, for tls://, --tls-ca, --tls-cert and --tls-key"
        raise ClusterError(address, f"no Dask scheduler answers ({redact(reason)})", remedy) from None


def _start_class(config: ClusterSection) -> Any:
    path = config.cluster_class or ""
    package, _, name = path.rpartition(".")
    try:
        cluster_class = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, ValueError) as error:
        extra = _EXTRAS.get(path.partition(".")[0])
        remedy = install_remedy(extra) if extra else "Correct --class, or install its package"
        raise ConfigError(f"--class {path}", f"cannot be imported ({error})", remedy) from None
    if not hasattr(cluster_class, "get_client"):
        raise ConfigError(f"--class {path}", "is not a class of Dask clusters", "Correct it")
    try:
        with main_hidden():
            return cluster_class(**(config.options or {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--class {path}", f"does not accept these options ({redact(str(error))})", "Correct them"
        ) from None
    except Exception as error:  # noqa: BLE001  cluster classes are code of other packages
        problem = f"cannot be started ({type(error).__name__}: {redact(str(error))})"
        raise ClusterError(path, problem, "Check its options and the messages of its package") from None


@dataclass(frozen=True)
class _Call:
    """A call as bytes. Unpickling this object calls the function, so the scheduler does not need s2cube."""

    function: Callable[..., Any]
    task: object

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, (self.task,)


def submit(client: Client, key: Any, function: Callable[[_Task], object], task: _Task) -> "Future[Any]":
    """Submit the call of a function with a task. Any worker may run it."""
    call: Any = pickle.dumps(_Call(function, task))
    if len(call) > _LARGE_CALL_BYTES:
        call = client.scatter(call, hash=False)
    return client.submit(pickle.loads, call, key=key, pure=False)


def pickled(value: object) -> bytes:
    """Pickle a value that may contain functions of the user's script or notebook.

    Raises
    ------
    PicklingError, TypeError, AttributeError
        If the value contains something that cannot be pickled.
    """
    content: bytes = dumps(value)
    return content


def has_futures(value: object) -> bool:
    """Report whether a cluster keeps parts of a Dask collection, because it was persisted."""
    return bool(distributed.futures_of(value))


def compute_from_worker(value: _Result) -> _Result:
    """Compute a Dask collection with futures, on the cluster of this worker; return the result to this worker."""
    with distributed.worker_client() as client:
        computed: _Result = client.compute(value, sync=True)
        return computed
