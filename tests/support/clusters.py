"""Dask clusters for tests: as processes, optionally on separate hosts; on SLURM; with Dask Gateway."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from distributed import Client

from support.network import Certificates, Host, network, write_certificates
from support.servers import check_allowed, free_port, process, require_server

# As in s2cube's own cluster: Python below 3.11.9 may deadlock when its threads are profiled.
UNPROFILED = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
PATIENCE_S = 60


def until(true: Callable[[], bool], what: str, *logs: Path) -> None:
    """Wait until a condition is true. After `PATIENCE_S`, raise an error with the logs of the processes."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            said = "\n".join(f"{log.name}: {log.read_text()}" for log in logs if log.exists())
            raise RuntimeError(f"{what} not within {PATIENCE_S} s\n{said}")
        time.sleep(0.1)


def start(command: list[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process in a new process group."""
    check_allowed(command[0])
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, **options,
        )  # fmt: skip


def kill(killed: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children with SIGKILL."""
    if killed.poll() is None:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()


def end(*ended: subprocess.Popen[bytes]) -> None:
    """Terminate processes. Kill those that do not end within 20 s."""
    for each in ended:
        each.terminate()
    for each in ended:
        try:
            each.wait(20)
        except subprocess.TimeoutExpired:
            kill(each)


@dataclass(frozen=True)
class Shape:
    """The configuration of a cluster.

    `hosts`: each worker is on a separate host with its own address. `private`: every worker sees an empty private
    folder in place of this folder. `env`: variables of all processes; `worker_env`: variables of workers only.
    """

    workers: int = 3
    nthreads: int = 1
    memory_limit: str = "auto"
    hosts: bool = False
    tls: bool = False
    private: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    worker_env: Mapping[str, str] = field(default_factory=dict)
    scheduler_port: int = 0


class DaskCluster:
    """A scheduler and its workers as processes that tests can kill. Workers end when their scheduler ends."""

    def __init__(self, folder: Path, shape: Shape, ends: ExitStack) -> None:
        self.folder, self.shape = folder, shape
        folder.mkdir(parents=True, exist_ok=True)
        self.network = ends.enter_context(network()) if shape.hosts else None
        self.host = self.network.address if self.network else "127.0.0.1"
        self.certificates = write_certificates(folder / "certificates") if shape.tls else None
        self.foreign_certificates = write_certificates(folder / "foreign") if shape.tls else None
        self.port = shape.scheduler_port or free_port()
        self.address = f"{'tls' if shape.tls else 'tcp'}://{self.host}:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._launch_scheduler()
        # Workers are ended first (callbacks run in reverse order): without a scheduler they would take long to end.
        ends.callback(lambda: end(self.scheduler))
        ends.callback(lambda: end(*self.workers))
        for _ in range(shape.workers):
            self._launch_worker()
        self._wait()

    def client(self, certificates: Certificates | None = None, timeout_s: float = PATIENCE_S) -> Client:
        """Connect, by default with the cluster's own certificates."""
        fitting = certificates or self.certificates
        security = fitting.security if fitting else None
        return Client(self.address, security=security, timeout=timeout_s, set_as_default=False)

    def kill_worker(self, number: int) -> None:
        """Kill a worker and the nanny that would restart it."""
        kill(self.workers[number])

    def start_worker(self) -> None:
        self._launch_worker()
        self._wait()

    def kill_scheduler(self) -> None:
        kill(self.scheduler)

    def start_scheduler(self) -> None:
        """Restart the scheduler at the same address, without workers, because they have ended."""
        until(lambda: all(each.poll() is not None for each in self.workers), "workers that go", *self.logs)
        self._launch_scheduler()
        self._wait()

    @property
    def logs(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def _wait(self) -> None:
        """Wait until a client sees exactly the running workers."""

        def reachable() -> bool:
            assert self.scheduler.poll() is None, self.logs[0].read_text()
            with socket.socket() as probe:
                return probe.connect_ex((self.host, self.port)) == 0

        until(reachable, f"a scheduler at {self.address}", *self.logs)
        names = {f"worker-{number}" for number, each in enumerate(self.workers) if each.poll() is None}
        with self.client() as client:

            def complete() -> bool:
                seen = client.scheduler_info(n_workers=-1)["workers"].values()
                return {each["name"] for each in seen} == names

            until(complete, f"{sorted(names)} at {self.address}", *self.logs)

    def _launch_scheduler(self) -> None:
        command = [*self._command("scheduler"), "--host", self.host, "--port", str(self.port)]
        command += ["--dashboard-address", "127.0.0.1:0"]
        environment = os.environ | UNPROFILED | self.shape.env
        self.scheduler = start(command, self.folder / "scheduler.log", cwd=self.folder, env=environment)

    def _launch_worker(self) -> None:
        name = f"worker-{len(self.workers)}"
        place = self.folder / name
        place.mkdir()
        host = self.network.add_host() if self.network else Host("127.0.0.1", [])
        enter = host.enter
        if self.shape.private:
            blind = ["sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(self.shape.private)]
            enter = [*enter, "unshare", "--mount", *blind]
        command = [*enter, *self._command("worker"), self.address, "--name", name, "--host", host.address]
        command += ["--nthreads", str(self.shape.nthreads), "--memory-limit", self.shape.memory_limit]
        command += ["--local-directory", str(place), "--death-timeout", str(PATIENCE_S), "--no-dashboard"]
        environment = os.environ | UNPROFILED | self.shape.env | self.shape.worker_env
        self.workers.append(start(command, self.folder / f"{name}.log", cwd=place, env=environment))

    def _command(self, role: str) -> list[str]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}"]
        if self.certificates:
            ca, cert, key = map(str, (self.certificates.ca, self.certificates.cert, self.certificates.key))
            command += ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key]
        return command


@contextmanager
def dask_cluster(folder: Path, **shape: Any) -> Iterator[DaskCluster]:
    """Start a Dask cluster whose files are in `folder`; `Shape` describes the other arguments."""
    with ExitStack() as ends:
        yield DaskCluster(folder, Shape(**shape), ends)


@dataclass(frozen=True)
class Slurm:
    """Access to a SLURM: variables for its commands, and options for `dask_jobqueue.SLURMCluster`."""

    environment: dict[str, str]
    options: dict[str, Any]


@contextmanager
def munge(log: Path) -> Iterator[Path]:
    """Run MUNGE, which authenticates the parts of SLURM; yield its socket."""
    # The folder is not pytest's, because the user munge has no access to that.
    folder = Path(tempfile.mkdtemp(prefix="munge-"))
    key, speaker = folder / "key", folder / "socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    as_munge = ["runuser", "-u", "munge", "--"] if os.getuid() == 0 else []
    if as_munge:
        for each in (folder, key):
            shutil.chown(each, "munge")
    command = [*as_munge, "munged", "--foreground", f"--key-file={key}", f"--socket={speaker}"]
    command += [f"--{each}-file={folder}/{each}" for each in ("pid", "log", "seed")]
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        ends.callback(end, start(command, log))
        until(speaker.exists, "munge", log)
        yield speaker


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Run SLURM on this machine. It writes to `folder`."""
    require_server(
        all(shutil.which(each) for each in ("munged", "slurmctld", "slurmd", "sbatch")), "slurm-wlm or munge"
    )
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "slurm.conf"
    environment = {"SLURM_CONF": str(configuration)}
    surroundings = os.environ | environment
    logs = [folder / f"{name}.out" for name in ("munged", "slurmctld", "slurmd")]

    def idle() -> bool:
        seen = subprocess.run(["sinfo", "-h", "-o", "%T"], env=surroundings, capture_output=True, text=True)
        return seen.stdout.strip() == "idle"

    with ExitStack() as ends:
        configuration.write_text(slurm_configuration(folder, ends.enter_context(munge(logs[0]))))
        for name, log in zip(("slurmctld", "slurmd"), logs[1:], strict=True):
            ends.callback(end, start([name, "-D"], log, env=surroundings))
        until(idle, "an idle SLURM", *logs)
        ends.callback(until, idle, "an idle SLURM", *logs)
        ends.callback(subprocess.run, ["scancel", "--user", getpass.getuser()], env=surroundings, check=True)
        options = {"queue": "test", "cores": 1, "processes": 1, "memory": "1GiB", "walltime": "00:10:00"}
        options |= {"interface": "lo", "log_directory": str(folder), "local_directory": str(folder)}
        options |= {"scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
        options |= {"job_script_prologue": [f"export {name}={value}" for name, value in UNPROFILED.items()]}
        yield Slurm(environment, options)


def slurm_configuration(folder: Path, speaker: Path) -> str:
    """Write slurm.conf: one host, without control groups, accounts or MPI."""
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    statements = {
        "ClusterName": "test", "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": free_port(), "SlurmdPort": free_port(), "SlurmUser": user, "SlurmdUser": user,
        "AuthType": "auth/munge", "AuthInfo": f"socket={speaker}", "CryptoType": "crypto/munge",
        "StateSaveLocation": folder / "state", "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid", "SlurmdPidFile": folder / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none", "AccountingStorageType": "accounting_storage/none",
        "MpiDefault": "none", "SwitchType": "switch/none", "ReturnToService": 2, "KillWait": 3,
        "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0",
        # Do not compare with the real hardware: jobs of tests are small.
        "SlurmdParameters": "config_overrides",
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN",
        "PartitionName": "test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES",
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in statements.items())


@contextmanager
def gateway(folder: Path) -> Iterator[dict[str, Any]]:
    """Run Dask Gateway for any user; yield options for `dask_gateway.GatewayCluster`."""
    program = Path(sys.executable).with_name("dask-gateway-server")
    require_server(program.exists(), "dask-gateway-server")
    folder.mkdir(parents=True, exist_ok=True)
    web, inner, scheduler = (f"127.0.0.1:{free_port()}" for _ in range(3))
    commands = {role: [sys.executable, "-m", f"distributed.cli.dask_{role}"] for role in ("scheduler", "worker")}
    configuration = folder / "dask_gateway_config.py"
    configuration.write_text(
        f"""c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "{inner}"
c.Proxy.address = "{web}"
c.Proxy.tcp_address = "{scheduler}"
c.LocalBackend.clusters_directory = "{folder}"
c.LocalBackend.cluster_heartbeat_period = 1
c.LocalBackend.sigint_timeout = 2
c.ClusterConfig.scheduler_cmd = {commands["scheduler"]}
c.ClusterConfig.worker_cmd = {commands["worker"]}
c.ClusterConfig.environment = {UNPROFILED}
"""
    )
    command = [str(program), "--config", str(configuration)]
    log, health = folder / "gateway.log", f"http://{web}/api/health"
    with process(command, health, log, cwd=folder):
        # The proxy answers before it knows the address of the gateway.
        until(lambda: requests.get(health, timeout=5).ok, "a gateway", log)
        yield {"address": f"http://{web}", "proxy_address": f"gateway://{scheduler}"}
