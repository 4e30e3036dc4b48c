"""How processes of s2cube keep freed memory: few arenas, and no page is returned to the system at once."""

import os
import subprocess
import sys

import dask.config
import pytest

from s2cube.cluster import _local
from s2cube.cluster.client import open_client
from s2cube.config.loading import load_config

ARENAS = """
import ctypes, tempfile, threading
{before}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
start = threading.Barrier(8)

def work():
    start.wait()
    libc.malloc(1000)
    start.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
with tempfile.NamedTemporaryFile() as file:
    libc.fopen.restype = ctypes.c_void_p
    libc.malloc_info.argtypes = libc.fclose.argtypes = None
    out = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(file.read().count(b"<heap nr="))
"""
"""Count the arenas of eight threads that allocate memory at the same time."""


def arenas(before: str, **environment: str) -> int:
    code = ARENAS.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_command_has_few_arenas() -> None:
    limited = "from s2cube.cluster.this_process import limit_arenas; limit_arenas()"
    assert arenas("") > 2
    assert arenas(limited) <= 2
    assert arenas(limited, MALLOC_ARENA_MAX="4") == 4


def test_workers_on_this_machine(server_processes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's own variable makes them slow. Other variables of Dask, and of the user, are kept."""
    # Clusters of other tests have set it in this process: Dask leaves variables of workers there.
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    theirs = {"distributed.nanny.pre-spawn-environ.KEPT_BY_TEST": "kept"}
    with dask.config.set(theirs), open_client(load_config({"workers": "1"}, {}).cluster, 1) as client:
        (found,) = client.run(lambda: dict(os.environ)).values()
    assert (found.get("MALLOC_ARENA_MAX"), found.get("KEPT_BY_TEST"), found.get("OMP_NUM_THREADS")) == (
        "2",
        "kept",
        "1",
    )
    assert "MALLOC_TRIM_THRESHOLD_" not in found
    assert "MALLOC_TRIM_THRESHOLD_" in dask.config.get(_local._ENVIRONMENT)
