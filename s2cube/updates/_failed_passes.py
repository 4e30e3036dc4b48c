"""Passes that could not be made are noted in ``sync.jsonl``, too."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s2cube.config.times import timestamp
from s2cube.errors import BusyError, S2CubeError, UsageError, safe_text
from s2cube.storage.output import Output
from s2cube.updates.pass_record import Pass, append_pass, read_passes

log = logging.getLogger(__name__)


@contextmanager
def failures_noted(output: Output) -> Iterator[None]:
    """Note an error that ends a pass in this block, and raise it."""
    began = timestamp()
    try:
        yield
    except BusyError:
        # The other run goes on. Its line says what it has written.
        raise
    except UsageError as error:
        # A mistake in the first command makes no output.
        with suppress(S2CubeError):
            if read_passes(output.destination):
                note_failure(output, began, str(error))
        raise
    except Exception as error:
        note_failure(output, began, str(error) or type(error).__name__)
        raise


def note_failure(output: Output, began: str, why: str) -> None:
    """Add a pass that could not be made to ``sync.jsonl``.

    Parameters
    ----------
    began
        Time at which the pass began, RFC 3339, UTC.
    why
        Cause. Secrets are removed from it.
    """
    try:
        output.destination.prepare()
        append_pass(output.destination, Pass(began, timestamp(), error=safe_text(why)))
    except S2CubeError as error:
        log.warning("%s", error)
