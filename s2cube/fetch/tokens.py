"""Add a token to an address just before the file is read.

Items, task graphs, logs and errors contain addresses without tokens. A rule defines which addresses need a token, and
which server issues it. Each process keeps its own tokens, and renews them before they expire.
"""

import json
import os
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from s2cube.errors import AssetReadError
from s2cube.fetch import retry
from s2cube.fetch.http import http_get
from s2cube.fetch.retry import PermanentFailure, TemporaryFailure
from s2cube.fetch.session import per_session

Rules = tuple[tuple[str, str], ...]
"""Pairs of an address prefix and the address of the server that issues the token for it."""

PLANETARY_COMPUTER: Rules = (
    (
        "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2",
        "https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel2l2a01/sentinel2-l2",
    ),
)
"""Prefix of the assets of collection sentinel-2-l2a, from its items of 2019 to 2024. The server issues tokens per
storage account and container; source: planetarycomputer.microsoft.com/docs/concepts/sas."""

_KEYS = {"planetarycomputer.microsoft.com": ("Ocp-Apim-Subscription-Key", "PC_SDK_SUBSCRIPTION_KEY")}
"""Token servers that accept a key: its header, and its environment variable (the same as in the SDK of the server)."""

_MARGIN_S, _MARGIN_SHARE = 300, 0.2
"""A token is renewed this long before it expires, but not before the last fifth of its validity. The margin allows for
requests in flight, for clocks that differ, and for a token server that is unavailable for some minutes."""

_MOST_BYTES = 1 << 16
_QUERY = re.compile(r"[!\"$-~]+")

_SAS = r"sig|se|sv|sp|sr|st|ss|srt|spr|sip|si|sdd|ses|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid"
_SIGNATURES = {
    ("sig", "se"): _SAS,
    ("sig", "sv"): _SAS,
    ("x-amz-signature",): r"x-amz-.*",
    ("awsaccesskeyid", "signature"): r"awsaccesskeyid|signature|expires|x-amz-.*",
    ("x-goog-signature",): r"x-goog-.*",
    ("googleaccessid", "signature"): r"googleaccessid|signature|expires",
    ("key-pair-id", "signature"): r"key-pair-id|signature|expires|policy|hash-algorithm",
}
"""Parameters that identify a signature, and a pattern of all its parameters. Source: the documentation of
Azure SAS, S3 (versions 4 and 2), Google Cloud (versions 4 and 2) and CloudFront."""


def unsigned(href: str) -> str:
    """Return an address without user name, password and known signatures. Other parameters are kept."""
    parts = urlsplit(href)
    if "://" not in href or not (parts.query or "@" in parts.netloc):
        return href
    parameters = [(unquote(each.partition("=")[0]).lower(), each) for each in parts.query.split("&")]
    for names, pattern in _SIGNATURES.items():
        if {*names} <= {name for name, _ in parameters}:
            parameters = [(name, each) for name, each in parameters if not re.fullmatch(pattern, name)]
    query = "&".join(each for _, each in parameters)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def token_server(href: str, rules: Rules = ()) -> str | None:
    """Find the server that issues the token for an address, by the longest prefix that consists of complete names."""
    address = urlsplit(href)
    # If a server or a library resolves .., the address may be outside of the folder.
    if ".." in unquote(address.path).replace("\\", "/").split("/"):
        return None
    fitting = [rule for rule in (*rules, *PLANETARY_COMPUTER) if _is_below(address, urlsplit(rule[0]))]
    return max(fitting, key=lambda rule: len(rule[0].rstrip("/")))[1] if fitting else None


def _is_below(address: SplitResult, prefix: SplitResult) -> bool:
    folder = prefix.path.rstrip("/")
    same_host = (address.scheme, address.netloc.lower()) == (prefix.scheme, prefix.netloc.lower())
    return same_host and (address.path == folder or address.path.startswith(f"{folder}/"))


def sign(href: str, rules: Rules, timeout_s: float, retries: int, refused: str = "") -> str:
    """Return the address of a file with a valid token. If no rule applies, the address does not change.

    Parameters
    ----------
    refused
        An earlier result that the server of the file refused before its token expired. The token is then renewed. If
        it has just been renewed, the same address is returned, because a new token would not help.

    Raises
    ------
    AssetReadError
        If the token server does not issue a token.
    """
    bare = unsigned(href)
    server = token_server(bare, rules)
    if server is None:
        return href
    try:
        token = _tokens().get(server, timeout_s, retries, refused)
    except (TemporaryFailure, PermanentFailure, _NoToken) as error:
        remedy = "Run again later; if the error persists, check [read] tokens and the key in the environment"
        may_pass = isinstance(error, TemporaryFailure) and not error.is_unknown_server
        after = f" after {retries} retries" if retries and may_pass else ""
        raise AssetReadError(
            href, f"cannot be read: {server} gives no token for it ({error}){after}",
            getattr(error, "remedy", "") or remedy, may_pass=may_pass,
        ) from None  # fmt: skip
    return f"{bare}{'&' if '?' in bare else '?'}{token}"


class _NoToken(Exception):
    """The token server does not issue a token."""


@dataclass(frozen=True)
class _Token:
    """A token: the parameters of an address, and times by `time.monotonic`.

    Parameters
    ----------
    renew_s, end_s
        Times at which it is renewed, and at which it expires.
    keep_until_s
        Set if it replaces a refused token. Until this time, it is not replaced even if it is refused, too.
    """

    query: str = field(repr=False)
    renew_s: float
    end_s: float
    keep_until_s: float = 0


class _Tokens:
    """Tokens by server. If several threads need the same token, one of them fetches it and the others wait."""

    def __init__(self) -> None:
        self._kept: dict[str, Future[_Token]] = {}
        self._lock = threading.Lock()

    def get(self, server: str, timeout_s: float, retries: int, refused: str) -> str:
        """Return a valid token: the kept token, or a new one."""
        with self._lock:
            future = self._kept.get(server)
            old, now = future.result() if future and future.done() else None, time.monotonic()
            was_refused = bool(old and refused.endswith(old.query) and now >= old.keep_until_s)
            own_future: Future[_Token] | None = None
            if future is None or (old and (was_refused or now >= old.renew_s)):
                own_future = future = self._kept[server] = Future()
        if own_future:
            try:
                token = _fetched(server, timeout_s, retries)
                own_future.set_result(
                    replace(token, keep_until_s=token.end_s - token.renew_s + now) if was_refused else token
                )
            except BaseException as error:  # noqa: BLE001  the waiting threads receive it, too
                self._handle_failure(server, own_future, None if was_refused else old, error)
        return future.result().query

    def _handle_failure(self, server: str, future: "Future[_Token]", old: _Token | None, error: BaseException) -> None:
        """Keep the old token if it is valid and the failure is temporary; else raise the error in all threads."""
        now = time.monotonic()
        if old and now < old.end_s and isinstance(error, TemporaryFailure):
            # Try again later, while the old token is still valid.
            future.set_result(replace(old, renew_s=now + _MARGIN_SHARE * (old.end_s - now)))
            return
        with self._lock:
            del self._kept[server]
        future.set_exception(error)


@per_session()
def _tokens() -> _Tokens:
    """Return the tokens of this process."""
    return _Tokens()


def _fetched(server: str, timeout_s: float, retries: int) -> _Token:
    header, variable = _KEYS.get(urlsplit(server).netloc, ("", ""))
    headers = {header: os.environ[variable]} if os.environ.get(variable) else {}
    asked_s = time.monotonic()
    answer = retry.REQUESTS.retrying(retries)(http_get, server, headers, timeout_s, _MOST_BYTES)
    if answer.status != 200:
        raise _NoToken(f"answers {answer.status}")
    try:
        content = json.loads(answer.body)
        query, end = content["token"].lstrip("?"), datetime.fromisoformat(content["msft:expiry"])
        # Use the clock of the server, because the clock of this machine may be wrong.
        now = parsedate_to_datetime(answer.headers["Date"]) if "Date" in answer.headers else datetime.now(UTC)
        life_s = (end - now).total_seconds()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _NoToken("the answer contains no token") from None
    if life_s <= 0 or not _QUERY.fullmatch(query):
        raise _NoToken("the token is invalid or has expired")
    return _Token(query, asked_s + life_s - min(_MARGIN_S, _MARGIN_SHARE * life_s), asked_s + life_s)
