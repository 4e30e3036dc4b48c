"""A Dask client from configuration, and slices streamed through it: the only file that knows distributed."""

import importlib
import logging
import pickle
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import uuid4

import dask.config
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, Security, get_worker
from distributed.comm.core import CommClosedError

from s2cube.config import ClusterSection
from s2cube.errors import ClusterError, ConfigError, redact

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S = 10
_WORKER_SETTINGS = {"distributed.worker.profile.enabled": False}
"""Python below 3.11.9 may lock up when a profiler looks at its threads (its issue 106883), and nobody looks at this
profile: the cluster goes with the run."""

_IN_FLIGHT_PER_THREAD = 2
"""Tasks a thread has at hand: one it computes, one that is on its way to it."""

_TICK_S = 1
_TELL_S = 60
_MOST_LOSSES = 10
"""So often a task may be lost with a scheduler or its workers before it is to blame."""

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

    Without any, that is one of this machine: one process for every four cores, and two threads a core: slices wait for
    answers, and starting processes takes CPU time and memory. On two cores and 50 ms a request, for 12 slices, one
    process of four threads took 1.12 of the wall time and 1.08 of the CPU time of two processes of one thread each
    (``benchmarks/workers.py``): what it saves in starting it loses where threads wait for each other. But one process
    fetches a tile that two slices need once, two fetch it twice. It is a process of its own, not threads of the
    caller's, so that a worker that dies or leaks is replaced.

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
    if config.scheduler is not None:
        with _connect(config.scheduler, config) as client:
            yield client
    elif config.cluster_class is not None:
        with _start(config) as cluster, cluster.get_client() as client:
            cluster.scale(config.workers)
            yield client
    else:
        with (
            dask.config.set(_WORKER_SETTINGS),
            LocalCluster(
                n_workers=min(config.workers_on(CPU_COUNT), tasks),
                threads_per_worker=config.threads_on(CPU_COUNT),
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


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
        remedy = f"Install it: pip install 's2cube[{extra}]'" if extra else "Correct --class, or install its package"
        raise ConfigError(f"--class {path}", f"cannot be had ({error})", remedy) from None
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
    found: Any = client.get_versions(packages=[*_MUST_AGREE, *_MUST_BE_THERE])
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
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Stream(Generic[_Task, _Result]):
    """Calls of a function, computed on a cluster in any order, a bounded number at a time.

    Iterate over it for the tasks, each with its result or what it raised. What is done is forgotten: neither the
    scheduler nor the client holds more than what is in flight. A task that is lost, with its worker or scheduler, is
    handed out again.

    Parameters
    ----------
    tasks
        Named by `name`.
    worker_wait_s
        So long it goes on without any worker.
    """

    def __init__(
        self,
        client: Client,
        function: Callable[[_Task], _Result],
        tasks: Iterable[tuple[str, _Task]],
        worker_wait_s: float,
    ) -> None:
        self._client, self._function, self._worker_wait_s = client, function, worker_wait_s
        self._id = uuid4().hex
        self._todo = deque(tasks)
        self._later: list[tuple[float, str, _Task]] = []
        self._at_hand: dict[Future[Any], tuple[str, _Task]] = {}
        self._over: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._handed_out: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._workers: dict[str, int] = {}
        self._looked_s = self._alive_s = self._told_s = time.monotonic() - _TICK_S

    @property
    def running(self) -> int:
        """How many are being computed, as far as is known here."""
        return min(len(self._at_hand), sum(self._workers.values()))

    def again(self, name: str, task: _Task, pause_s: float) -> None:
        """Hand out a task again, after a pause."""
        self._later.append((time.monotonic() + pause_s, name, task))

    def __iter__(self) -> Iterator[tuple[str, _Task, _Result | BaseException]]:
        try:
            while self._todo or self._later or self._at_hand:
                self._look_at_workers()
                self._hand_out()
                try:
                    future = self._over.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                name, task = self._at_hand.pop(future)
                if future.status in ("cancelled", "lost"):
                    self._lose(name, task)
                    continue
                error = future.exception()
                result = future.result() if error is None else error
                future.release()
                yield name, task, result
        finally:
            with suppress(Exception):  # a scheduler that is gone has forgotten them anyway
                self._client.cancel(list(self._at_hand))

    def _look_at_workers(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _TICK_S:
            return
        self._looked_s = now_s
        if self._client.status == "closed":
            raise self._gone("is gone", "What is done stays; run again when it is back")
        try:
            workers = self._client.nthreads() if self._client.status == "running" else {}
        except (OSError, TimeoutError):
            workers = {}
        if workers.keys() - self._workers.keys():
            check_versions(self._client)
        self._workers = workers
        if workers:
            self._alive_s = self._told_s = now_s
        elif now_s - self._alive_s > self._worker_wait_s:
            raise self._gone(f"has had no worker for {self._worker_wait_s:g} s", "Start workers, then run again")
        elif now_s - self._told_s > _TELL_S:
            self._told_s = now_s
            log.warning("no worker for %.0f s: waiting for one", now_s - self._alive_s)

    def _hand_out(self) -> None:
        now_s = time.monotonic()
        for due in [each for each in self._later if each[0] <= now_s]:
            self._later.remove(due)
            self._todo.appendleft(due[1:])
        room = max(1, sum(self._workers.values())) * _IN_FLIGHT_PER_THREAD - len(self._at_hand)
        for _ in range(min(room, len(self._todo)) if self._client.status == "running" else 0):
            name, task = self._todo.popleft()
            self._handed_out[name] += 1
            call = pickle.dumps(_Call(self._function, (task,)))
            # One prefix: a scheduler remembers each that it has seen.
            key = ("s2cube", name, self._handed_out[name], self._id)
            future = self._client.submit(pickle.loads, call, key=key, pure=False)
            self._at_hand[future] = name, task
            future.add_done_callback(self._over.put)

    def _lose(self, name: str, task: _Task) -> None:
        self._losses[name] += 1
        if self._losses[name] > _MOST_LOSSES:
            raise self._gone(f"has lost {name} {_MOST_LOSSES} times", "See to the cluster, then run again")
        self._todo.appendleft((name, task))

    def _gone(self, problem: str, remedy: str) -> ClusterError:
        scheduler = self._client.scheduler
        return ClusterError(str(scheduler.address if scheduler else "the scheduler"), problem, remedy)


def is_loss(error: BaseException) -> bool:
    """Tell whether an error says that workers died under a task, not that it failed."""
    return isinstance(error, KilledWorker | CommClosedError)


def memory_limit() -> int | None:
    """Give the bytes that the worker may take that this runs in; None where there is no worker, or no limit."""
    try:
        return get_worker().memory_manager.memory_limit
    except ValueError:
        return None
