"""State of a process: made once, shared by its threads, and gone in a new session."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from s2cube.fetch import session
from s2cube.fetch.cache import file_cache
from s2cube.fetch.retry import WRITES, Retry


@pytest.mark.usefixtures("new_session")
class TestSession:
    def test_threads_get_one_result(self) -> None:
        calls: list[int] = []
        start = threading.Barrier(4)

        @session.per_session()
        def slow() -> object:
            calls.append(1)
            time.sleep(0.05)
            return object()

        def get(_: int) -> object:
            start.wait()
            return slow()

        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(get, range(4)))) == 1
        assert len(calls) == 1

    def test_kept_within_a_limit(self) -> None:
        calls: list[int] = []

        @session.kept_within(lambda: 100, len)
        def text(length: int) -> str:
            calls.append(length)
            return "x" * length

        assert [text(length) for length in (40, 50, 40, 50)] == ["x" * 40, "x" * 50, "x" * 40, "x" * 50]
        assert calls == [40, 50]
        # The least recently used one is dropped. A result that is larger than the limit is not kept.
        for length in (20, 50, 20, 40, 200, 200):
            assert text(length) == "x" * length
        assert calls == [40, 50, 20, 40, 200, 200]
        session.reset()
        text(50)
        assert calls[-1] == 50

    def test_a_limit_may_be_kept_itself(self) -> None:
        @session.per_session()
        def memory_bytes() -> int:
            return 100

        @session.kept_within(memory_bytes, len)
        def text(length: int) -> str:
            return "x" * length

        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(text(3)), daemon=True)
        thread.start()
        thread.join(5)
        assert found == ["xxx"]

    def test_an_error_is_not_kept(self) -> None:
        calls: list[int] = []

        @session.per_session()
        def fail() -> int:
            calls.append(1)
            raise OSError("away")

        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                fail()
        assert len(calls) == 2

    def test_a_new_session_has_nothing(self) -> None:
        cache = file_cache()
        assert file_cache() is cache
        session.reset()
        assert file_cache() is not cache

    def test_libraries_log_no_secret(self, caplog: pytest.LogCaptureFixture) -> None:
        """Also in a notebook, which does not use the command line."""
        caplog.set_level(logging.DEBUG)
        for each in session._LOGGERS:
            session.current()
            logging.getLogger(each).debug("GET %s", "https://host/a.tif?sig=TOPSECRET")
        assert caplog.text.count("https://host/a.tif") == len(session._LOGGERS)
        assert "TOPSECRET" not in caplog.text


def test_pauses_grow_up_to_a_limit() -> None:
    policy = Retry(first_pause_s=1, longest_pause_s=3)
    for retry, pause_s in ((1, 1), (2, 2), (3, 3), (9, 3)):
        assert pause_s <= policy.pause_s(retry) <= 1.5 * pause_s


def test_obstore_gets_the_policy() -> None:
    settings = WRITES.for_obstore()
    assert settings["max_retries"] == WRITES.retries
    assert settings["retry_timeout"].total_seconds() == WRITES.longest_s
    assert settings["backoff"]["max_backoff"].total_seconds() == WRITES.longest_pause_s
