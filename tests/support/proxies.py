"""Company networks for tests: a proxy that records its requests, and servers with TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.network import Certificates
from support.servers import Faulty, served


class Proxy(ThreadingHTTPServer):
    """A proxy for http (whole requests) and https (CONNECT).

    Parameters
    ----------
    hosts
        Local ports of hosts that do not exist, by the name of the host.
    credentials
        The header Proxy-Authorization that the proxy requires; empty if none.
    """

    daemon_threads = True

    def __init__(self, hosts: dict[str, int] | None = None, credentials: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.hosts, self.credentials = hosts or {}, credentials
        self.passed: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reach(self, host: str, port: int) -> socket.socket:
        place = ("127.0.0.1", self.hosts[host]) if host in self.hosts else (host, port)
        return socket.create_connection(place, 5)

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that close the connection."""


class _ProxyHandler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if self._refuses(f"CONNECT {self.path}"):
            return
        try:
            there = self.server.reach(host, int(port))
        except OSError:
            return self._say(502)
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with there:
            self._carry(there)

    def do_GET(self) -> None:
        if self._refuses(f"{self.command} {self.path}"):
            return
        parts = urlsplit(self.path)
        try:
            there = self.server.reach(parts.hostname or "", parts.port or 80)
        except OSError:
            return self._say(502)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = f"{self.command} {target} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if "roxy" not in name)
        self.close_connection = True
        with there:
            there.sendall(f"{head}Connection: close\r\n\r\n".encode())
            there.sendall(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            start = there.recv(1 << 16)
            self.connection.sendall(start.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            while data := there.recv(1 << 16):
                self.connection.sendall(data)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _refuses(self, line: str) -> bool:
        if self.server.credentials != self.headers.get("Proxy-Authorization", ""):
            self._say(407)
            return True
        self.server.passed.append(line)
        return False

    def _say(self, status: int) -> None:
        self.connection.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        self.close_connection = True

    def _carry(self, there: socket.socket) -> None:
        def carry(one: socket.socket, other: socket.socket) -> None:
            try:
                while data := one.recv(1 << 16):
                    other.sendall(data)
                other.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        back = threading.Thread(target=carry, args=(there, self.connection), daemon=True)
        back.start()
        carry(self.connection, there)
        back.join(5)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Secure(Faulty):
    """Serves files over https."""

    def __init__(self, root: Path, certificates: Certificates, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(root, handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        # The TLS handshake runs in the thread of the connection.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}"


@contextmanager
def proxy(hosts: dict[str, int] | None = None, credentials: str = "") -> Iterator[Proxy]:
    """Run a proxy."""
    with served(Proxy(hosts, credentials)) as server:
        yield server
