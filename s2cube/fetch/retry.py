"""Explain failed requests, and define retries: when to retry, how often, and after which pause.

There are no other policies than those below. tenacity retries the requests that s2cube sends itself; urllib3 sends each
of them once. obstore retries writes. GDAL reads files on the network by `store.fetch`. Dask does not retry:
`jobs.pipeline` recomputes failed slices. A damaged tile or a changed file is read once more without a pause.
"""

import math
import random
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import tenacity
import urllib3

from s2cube.fetch.connections import causes_of, proxy_for, server_name

BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which a retry may succeed (RFC 9110, RFC 6585)."""

_LONGEST_REQUESTED_S = 120
"""Longest pause that is accepted from a server. If a server requests a longer one, this run does not retry."""

_RETRIES_UNKNOWN_SERVER = 1
"""Number of retries if a server cannot be reached and has never answered this process. Its name may be wrong."""

_OWN_AUTHORITY = (
    "If your network has its own certificate authority, set SSL_CERT_FILE (or REQUESTS_CA_BUNDLE, "
    "CURL_CA_BUNDLE) to the file with its certificate"
)
_CHECK_ADDRESS = "Check the address and your network; behind a proxy, set HTTPS_PROXY and HTTP_PROXY"
_MOST_TEXT = 4000
"""Maximum number of characters to search in the text of an error."""


class TemporaryFailure(Exception):
    """A failure after which a retry may succeed.

    Parameters
    ----------
    pause_s
        Pause that the server requests, seconds.
    is_unknown_server
        Whether the server cannot be reached, and has never answered this process.
    most_retries
        Maximum number of retries; None for the usual number.
    """

    def __init__(
        self,
        problem: str,
        pause_s: float | None = None,
        remedy: str = "",
        is_unknown_server: bool = False,
        most_retries: int | None = None,
    ) -> None:
        super().__init__(problem)
        self.pause_s = pause_s
        self.remedy = remedy
        self.is_unknown_server = is_unknown_server
        self.most_retries = _RETRIES_UNKNOWN_SERVER if is_unknown_server else most_retries


class PermanentFailure(Exception):
    """A failure after which a retry would fail, too."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


def busy(status: int, pause_s: float | None) -> TemporaryFailure:
    """Return the error for a busy server, with the pause that it requests."""
    asked = f", and asks to wait {pause_s:.0f} s" if pause_s else ""
    return TemporaryFailure(f"answers {status}{asked}", pause_s)


@dataclass(frozen=True)
class Retry:
    """A policy for retries: their number, and the pauses before them, seconds.

    Each pause is twice as long as the previous one. A random part is added, so that clients do not retry all at once.

    Parameters
    ----------
    longest_s
        Time after the first request in which a retry may begin.
    """

    retries: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = math.inf
    longest_s: float = math.inf

    def pause_s(self, retry: int) -> float:
        """Return the pause before a retry. The number of the first retry is 1."""
        pause_s: float = self.first_pause_s * 2 ** (retry - 1)
        return min(pause_s, self.longest_pause_s) * random.uniform(1, 1.5)

    def retrying(self, retries: int) -> tenacity.Retrying:
        """Return a caller that retries after `TemporaryFailure`, at most `retries` times, and raises the last one."""

        def is_last(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            most = error.most_retries if isinstance(error, TemporaryFailure) else None
            return state.attempt_number > (retries if most is None else min(retries, most))

        def pause_s(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_s = error.pause_s if isinstance(error, TemporaryFailure) else None
            return float(max(self.pause_s(state.attempt_number), asked_s or 0))

        return tenacity.Retrying(
            stop=is_last, retry=tenacity.retry_if_exception(_is_worth_a_retry), wait=pause_s, reraise=True
        )

    def for_obstore(self) -> dict[str, Any]:
        """Return the policy as settings of obstore."""
        pauses = timedelta(seconds=self.first_pause_s), timedelta(seconds=self.longest_pause_s)
        return {
            "max_retries": self.retries,
            "backoff": {"init_backoff": pauses[0], "max_backoff": pauses[1], "base": 2},
            "retry_timeout": timedelta(seconds=self.longest_s),
        }


REQUESTS = Retry(retries=5, first_pause_s=0.5, longest_pause_s=30)
"""For requests of parts of files, tokens and documents of a catalogue. `[read] retries` replaces the number."""

WRITES = Retry(retries=10, first_pause_s=0.1, longest_pause_s=15, longest_s=120)
"""For requests of obstore that write to an object store."""

SLICES = Retry(first_pause_s=2)
"""For slices. Before a slice fails, its requests have been retried for about a minute.
`[job] slice_retries` replaces the number."""


def _is_worth_a_retry(error: BaseException) -> bool:
    return isinstance(error, TemporaryFailure) and (error.pause_s or 0) <= _LONGEST_REQUESTED_S


@dataclass(frozen=True)
class Diagnosis:
    """The meaning of a failed connection.

    Parameters
    ----------
    may_pass
        Whether a retry may succeed.
    is_first_contact
        Whether the address is probably wrong, if the server has never answered before.
    was_closed
        Whether the server closed the connection instead of answering.
    """

    problem: str
    remedy: str = ""
    may_pass: bool = True
    is_first_contact: bool = False
    was_closed: bool = False


def diagnose(error: BaseException, url: str, timeout_s: float | None = None) -> Diagnosis:
    """Explain an error of urllib3, requests or obstore. Their own messages describe sockets and libraries.

    Parameters
    ----------
    url
        Requested address.
    timeout_s
        Seconds waited, if known.
    """
    causes = list(causes_of(error))
    text = " ".join(str(each)[:_MOST_TEXT] for each in causes)
    is_proxy = any(isinstance(each, urllib3.exceptions.ProxyError) for each in causes)
    server = server_name(proxy_for(url) or url) if is_proxy else server_name(url)
    if is_proxy:
        server = f"the proxy {server}"
        if status := re.search(r"Tunnel connection failed: (\d{3})", text):
            return _refused_by_proxy(server, int(status[1]), server_name(url))
    if any(isinstance(each, urllib3.exceptions.LocationValueError) for each in causes):
        return Diagnosis("its address is not valid", "Correct the address", may_pass=False)
    return (
        _tls_problem(causes, text, server)
        or _no_connection(causes, text, server)
        or _bad_answer(text, server, timeout_s)
    )


def _refused_by_proxy(server: str, status: int, target: str) -> Diagnosis:
    if status == 407:
        remedy = "Set user name and password in HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
        return Diagnosis(f"{server} needs a user name and a password", remedy, may_pass=False)
    may_pass = status in BUSY
    remedy = "Check the address; ask the operator of the proxy, or name the host in NO_PROXY"
    return Diagnosis(
        f"{server} does not connect to {target}: it answers {status}", remedy, may_pass, is_first_contact=may_pass
    )


def _tls_problem(causes: list[BaseException], text: str, server: str) -> Diagnosis | None:
    unverified = next((each for each in causes if isinstance(each, ssl.SSLCertVerificationError)), None)
    rust = re.search(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)", text)
    if unverified or rust:
        why = unverified.verify_message if unverified else rust[1] if rust else ""
        return Diagnosis(f"the certificate of {server} is not trusted: {why}", _OWN_AUTHORITY, may_pass=False)
    if re.search(r"WRONG_VERSION_NUMBER|record layer failure|UNEXPECTED_MESSAGE|InvalidContentType|HTTP_REQUEST", text):
        return Diagnosis(f"{server} does not speak https", "Try http:// in its address", may_pass=False)
    if re.search(r"BadStatusLine\(.{0,3}\\x15\\x03", text):
        return Diagnosis(f"{server} speaks https only", "Write https:// in its address", may_pass=False)
    return None


def _no_connection(causes: list[BaseException], text: str, server: str) -> Diagnosis | None:
    lookup = next((each for each in causes if isinstance(each, socket.gaierror)), None)
    if lookup or "dns error" in text or "failed to lookup address" in text:
        is_temporary = (lookup is not None and lookup.errno == socket.EAI_AGAIN) or "Temporary failure in name" in text
        if is_temporary:
            return Diagnosis(f"the name of {server} cannot be resolved now", _CHECK_ADDRESS, is_first_contact=True)
        return Diagnosis(f"there is no host {server}", _CHECK_ADDRESS, may_pass=False)
    if "Connection refused" in text or "ConnectionRefused" in text:
        return Diagnosis(f"{server} refuses the connection", _CHECK_ADDRESS, is_first_contact=True)
    if re.search(r"unreachable|No route to host", text):
        return Diagnosis(f"there is no network route to {server}", _CHECK_ADDRESS, is_first_contact=True)
    if any(isinstance(each, urllib3.exceptions.ConnectTimeoutError) for each in causes):
        return Diagnosis(f"the connection to {server} timed out", _CHECK_ADDRESS, is_first_contact=True)
    return None


def _bad_answer(text: str, server: str, timeout_s: float | None) -> Diagnosis:
    # Texts of Python's http.client for a header that is too long, and for too many headers.
    if re.search(r"got more than \d+ (bytes when reading|headers)", text):
        return Diagnosis(f"{server} sends headers that are too long", may_pass=False)
    if re.search(r"timed out|TimedOut|Timeout", text):
        limit = f"{timeout_s:g} s" if timeout_s else "time"
        return Diagnosis(f"{server} takes longer than {limit}", "Try a longer --timeout ([read] timeout)")
    if re.search(r"IncompleteRead|Connection broken|end of file before message|UnexpectedEof|error decoding", text):
        return Diagnosis(f"{server} ended its answer too early")
    if re.search(r"reset by peer|ConnectionReset|closed connection|IncompleteMessage|Connection aborted|EOF", text):
        return Diagnosis(f"{server} closed the connection without an answer", was_closed=True)
    if "failed to decode" in text:
        return Diagnosis(f"{server} sends an answer that does not match its Content-Encoding", may_pass=False)
    first = " ".join(text.split("\n")[0].split())
    return Diagnosis(first.rpartition(" - ")[2][:300])
