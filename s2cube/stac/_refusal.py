"""Create errors for unusable answers: the cause, the remedy, and the number of retries."""

import json
from dataclasses import dataclass

from s2cube.errors import SearchError, redact
from s2cube.fetch.http import Answer
from s2cube.fetch.retry import BUSY, REQUESTS, PermanentFailure, TemporaryFailure

RETRIES = REQUESTS.retries
"""Number of retries after an answer of a busy server, or after a broken connection."""
_RETRIES_SLOW = 1
"""Number of retries after an answer that takes longer than the timeout. Each retry may take the same time again."""

_LATER = "Try again later"
_SHOWN_CHARACTERS = 200
"""Maximum length of a server's message in an error message."""


@dataclass(eq=False)
class AnswerError(SearchError):
    """A catalogue on the network refuses a request, or does not answer.

    Parameters
    ----------
    status
        HTTP status; 0 if there is no complete answer.
    """

    status: int = 0


class Busy(TemporaryFailure):
    """A failure that may be temporary. `error` is raised if all retries fail."""

    def __init__(self, error: AnswerError, pause_s: float | None, most_retries: int) -> None:
        super().__init__(error.problem, pause_s, most_retries=most_retries)
        self.error = error


def refusal(address: str, answer: Answer, retries: int = RETRIES) -> AnswerError | Busy:
    """Create an error from an answer whose status is not 2xx.

    Parameters
    ----------
    retries
        Number of retries after 500, 502 and 504. The request itself may cause these statuses.
    """
    status = answer.status
    reason = _reason(answer.body)
    problem = f"answers {status}" + (f" ({reason})" if reason else "")
    if status in BUSY and answer.pause_s:
        problem += f", and asks to wait {answer.pause_s:.0f} s"
    error = AnswerError(address, problem, _remedy(status), status=status)
    if status not in BUSY:
        return error
    return Busy(error, answer.pause_s, retries if status in (500, 502, 504) else RETRIES)


def no_answer(address: str, error: TemporaryFailure | PermanentFailure) -> AnswerError:
    """Create an error with the reason why there is no answer."""
    if isinstance(error, Busy):
        return error.error
    remedy = error.remedy or (_LATER if isinstance(error, TemporaryFailure) else "Check --stac")
    return AnswerError(address, f"does not answer ({error})", remedy)


def slow(error: TemporaryFailure) -> TemporaryFailure:
    """Allow only one retry after an answer that takes longer than the timeout."""
    return TemporaryFailure(str(error), error.pause_s, error.remedy, error.is_unknown_server, _RETRIES_SLOW)


def _remedy(status: int) -> str:
    match status:
        case 401 | 403 | 407:
            return "Ask the operator of the catalogue for access; a user and password are taken from ~/.netrc"
        case 404 | 405 | 410 | 501:
            return "Check --stac"
        case 413 | 414 | 431:
            return "Give a simpler --aoi"
        case _ if status in BUSY or status >= 500:
            return _LATER
        case _ if status >= 400:
            return "Check --stac, --collection, --datetime and --aoi"
    return "Check --stac"


def _reason(text: bytes) -> str:
    """Return the error message of a server on one line; empty if the answer is an HTML page."""
    message: object = text.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        members = (content.get(key) for key in ("description", "detail", "message", "title"))
        message = next((each for each in members if each), message)
    line = " ".join((message if isinstance(message, str) else json.dumps(message)).split())
    if line.startswith("<"):
        return ""
    line = redact(line)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
