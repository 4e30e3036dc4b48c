"""Many small files: in threads only if reading mainly waits."""

import threading
import time
from types import SimpleNamespace

import pytest

from s2cube.storage.output import read_each

KEYS = range(1300)


@pytest.mark.parametrize(("cpu_s", "is_threaded"), [(0.9, False), (0.6, False), (0.4, True), (0.01, True)])
def test_threads_read_if_the_first_keys_took_much_longer_than_their_cpu_time(
    cpu_s: float, is_threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls, cpus, readers = iter([5.0, 6.0]), iter([2.0, 2.0 + cpu_s]), set()
    clocks = SimpleNamespace(perf_counter=lambda: next(walls), thread_time=lambda: next(cpus))
    monkeypatch.setattr("s2cube.storage.output.time", clocks)

    def read(key: int) -> int:
        readers.add(threading.get_ident())
        time.sleep(0.001 * is_threaded)
        return 2 * key

    assert list(read_each(read, KEYS)) == [2 * key for key in KEYS]
    assert (len(readers) > 2) == is_threaded
    assert is_threaded or readers == {threading.get_ident()}


def test_what_must_be_waited_for_is_read_at_the_same_time() -> None:
    reading, most, lock = 0, 0, threading.Lock()

    def read(key: int) -> int:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.001 + key % 7 / 5000)
        with lock:
            reading -= 1
        return key

    assert list(read_each(read, KEYS)) == list(KEYS)
    assert most > 2


@pytest.mark.parametrize("is_slow", [False, True])
def test_an_error_is_raised_where_it_is_read(is_slow: bool) -> None:
    def read(key: int) -> int:
        time.sleep(0.001 * is_slow)
        return 1 // (key - 40)

    with pytest.raises(ZeroDivisionError):
        list(read_each(read, KEYS))


def test_no_key() -> None:
    assert list(read_each(str, [])) == []
