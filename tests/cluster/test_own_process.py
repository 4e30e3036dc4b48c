"""Processes of s2cube: few arenas, no page returned to the system at once, no search for garbage during imports."""

import os
import subprocess
import sys
from pathlib import Path

import dask.config
import pytest

from s2cube.cluster import _local
from s2cube.cluster.client import open_client
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive

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


COLLECTIONS = """
import gc, sys
gc.{before}()
gc.set_threshold(700, 10, 10)  # those of Python before 3.13
full, before = [], gc.get_freeze_count()  # Python 3.12 begins with some
gc.callbacks.append(lambda phase, info: phase == "start" and info["generation"] == 2 and full.append(info))
from s2cube.cluster import own_process
from s2cube.cluster.own_process import importing
{set_up}
with importing():
    import xarray, distributed
print(len(full), gc.get_freeze_count() - before, gc.isenabled())
"""
"""Count the searches for garbage among all objects, and the objects that later ones ignore."""


def collections(set_up: str = "own_process.set_up()", before: str = "enable") -> tuple[int, int, bool]:
    """Return the number of collections, that of frozen objects, and whether collections are enabled afterwards."""
    code = COLLECTIONS.format(set_up=set_up, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    full, frozen, is_enabled = done.stdout.split()
    return int(full), int(frozen), is_enabled == "True"


def test_no_search_for_garbage_during_imports() -> None:
    full, frozen, is_enabled = collections()
    assert (full, is_enabled) == (0, True)
    assert frozen > 50_000


def test_a_process_of_the_user_collects_as_before() -> None:
    full, frozen, is_enabled = collections(set_up="")
    assert full
    assert (frozen, is_enabled) == (0, True)


def test_collections_stay_disabled() -> None:
    assert collections(before="disable") == (0, 0, False)


@pytest.mark.parametrize("command", ["run", "stats", "composite", "sync"])
def test_commands_that_compute_import_without_it(archive: Archive, tmp_path: Path, command: str) -> None:
    count = (
        "import atexit, gc, sys; from s2cube.cli.commands import main; full = []; gc.set_threshold(700, 10, 10);"
        "gc.callbacks.append(lambda phase, info: phase == 'start' and info['generation'] == 2 and full.append(info));"
        "atexit.register(lambda: print(len(full), gc.get_freeze_count(), gc.isenabled(), file=sys.stderr)); main()"
    )
    flags = ["--aoi", archive.aoi, "--stac", archive.items, "--bands", "blue", "--datetime", "2021-07-24", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", count, command, *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    full, frozen, is_enabled = done.stderr.split()[-3:]
    # Imports alone would be two or more. What a command computes may be one.
    assert int(full) < 2
    assert int(frozen) > 100_000
    assert is_enabled == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_command_has_few_arenas() -> None:
    limited = "from s2cube.cluster import own_process; own_process.set_up()"
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
