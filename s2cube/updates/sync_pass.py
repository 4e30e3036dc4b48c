"""One pass of `s2cube sync`: make what has changed in the catalogue since the last pass, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime

from s2cube.config.sections import JobConfig
from s2cube.jobs.pipeline import Watch
from s2cube.updates.pass_record import Pass


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def make_pass(config: JobConfig, watch: Watch | None = None, clock: Callable[[], datetime] = utc_now) -> Pass:
    """Make one pass, and add it to ``sync.jsonl``.

    Parameters
    ----------
    watch
        Object whose methods are called when the slices are known and after each slice.
    clock
        Function that returns the time, UTC.

    Raises
    ------
    S2CubeError
        If the pass cannot be made: a setting or the AOI is not valid, the catalogue fails, the output cannot be
        written, or another run writes there. A failed slice does not raise an error.
    """
    raise NotImplementedError
