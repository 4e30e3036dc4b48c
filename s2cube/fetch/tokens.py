"""Hrefs without secrets become addresses with a token, just before they are read.

Items, graphs, logs and errors know hrefs only. A rule says which hrefs want a token and who gives it; tokens stay in
the process, and are renewed before they end.
"""

import json
import logging
import os
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from s2cube.errors import AssetReadError, redact
from s2cube.fetch.http import Lasting, Passing, ask, patience

Rules = tuple[tuple[str, str], ...]
"""Where hrefs begin, and the address that gives the token for them."""

PLANETARY_COMPUTER: Rules = (
    (
        "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2",
        "https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel2l2a01/sentinel2-l2",
    ),
)
"""Where the assets of its sentinel-2-l2a lie, by its items of 2019 to 2024; who gives tokens for a storage account and
a container, by planetarycomputer.microsoft.com/docs/concepts/sas."""

_KEYS = {"planetarycomputer.microsoft.com": ("Ocp-Apim-Subscription-Key", "PC_SDK_SUBSCRIPTION_KEY")}
"""Who is sent a key: in which header, from which variable (as its own SDK calls it)."""

_MARGIN_S, _MARGIN_SHARE = 300, 0.2
"""So long before its end, but no more than this share of its life, a token is renewed: GDAL, which gets an address once
a window, has to come to its end; clocks differ; and whoever gives tokens may be away for some minutes."""

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
"""By which parameters a signature is known, and which belong to it: Azure's SAS, S3 (versions 4 and 2), Google Cloud
(likewise), CloudFront; as their documentation names them."""


class _Discreet(logging.Filter):
    """Libraries log addresses with all that stands in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


for _library in ("urllib3.connectionpool", "rasterio._base", "rasterio._env", "rasterio._err"):
    logging.getLogger(_library).addFilter(_Discreet())


def unsigned(href: str) -> str:
    """Give an href without user name, password and signatures of a known kind; other parameters stay."""
    parts = urlsplit(href)
    if "://" not in href or not (parts.query or "@" in parts.netloc):
        return href
    words = [(unquote(word.partition("=")[0]).lower(), word) for word in parts.query.split("&")]
    for known_by, belongs in _SIGNATURES.items():
        if {*known_by} <= {name for name, _ in words}:
            words = [(name, word) for name, word in words if not re.fullmatch(belongs, name)]
    query = "&".join(word for _, word in words)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def endpoint(href: str, rules: Rules = ()) -> str | None:
    """Find who gives the token for an href: by the longest prefix that ends where a name in it does."""
    place = urlsplit(href)
    # What leads out of a folder, whoever resolves it, is in none.
    if ".." in unquote(place.path).replace("\\", "/").split("/"):
        return None
    fitting = [rule for rule in (*rules, *PLANETARY_COMPUTER) if _lies_in(place, urlsplit(rule[0]))]
    return max(fitting, key=lambda rule: len(rule[0].rstrip("/")))[1] if fitting else None


def _lies_in(place: SplitResult, prefix: SplitResult) -> bool:
    folder = prefix.path.rstrip("/")
    same_host = (place.scheme, place.netloc.lower()) == (prefix.scheme, prefix.netloc.lower())
    return same_host and (place.path == folder or place.path.startswith(f"{folder}/"))


def sign(href: str, rules: Rules, timeout_s: float, retries: int, refused: str = "") -> str:
    """Give the address to read a file at, with a token that is good; the href itself where no rule is for it.

    Parameters
    ----------
    refused
        An address that this gave before, and that was not taken though its token should be good. The token is
        renewed then; but if that was done just now the same address comes again: another one would do no better.

    Raises
    ------
    AssetReadError
        If no token can be had.
    """
    bare = unsigned(href)
    address = endpoint(bare, rules)
    if address is None:
        return href
    try:
        token = _TOKENS.give(address, timeout_s, retries, refused)
    except (Passing, Lasting, _NoToken) as error:
        remedy = "Run again later; if it persists, check [read] tokens and the key in the environment"
        again = f" after {retries} retries" if retries and isinstance(error, Passing) and not error.is_stranger else ""
        raise AssetReadError(
            href, f"cannot be read: {address} gives no token for it ({error}){again}",
            getattr(error, "remedy", "") or remedy, may_pass=isinstance(error, Passing) and not error.is_stranger,
        ) from None  # fmt: skip
    return f"{bare}{'&' if '?' in bare else '?'}{token}"


class _NoToken(Exception):
    """Whoever gives tokens gives none."""


@dataclass(frozen=True)
class _Token:
    """A query that opens files, and when, by `time.monotonic`, it is renewed and ends.

    Parameters
    ----------
    spared_until_s
        It came for one that was refused, so it is not given up before, though it is refused too.
    """

    query: str = field(repr=False)
    renew_s: float
    end_s: float
    spared_until_s: float = 0


class _Tokens:
    """Tokens by who gives them; threads that want the same wait for one of them."""

    def __init__(self) -> None:
        self._kept: dict[str, Future[_Token]] = {}
        self._lock = threading.Lock()

    def give(self, address: str, timeout_s: float, retries: int, refused: str) -> str:
        """Give a token that is good, kept or new."""
        with self._lock:
            coming = self._kept.get(address)
            old, now = coming.result() if coming and coming.done() else None, time.monotonic()
            was_refused = bool(old and refused.endswith(old.query) and now >= old.spared_until_s)
            mine: Future[_Token] | None = None
            if coming is None or (old and (was_refused or now >= old.renew_s)):
                mine = coming = self._kept[address] = Future()
        if mine:
            try:
                token = _fetched(address, timeout_s, retries)
                mine.set_result(
                    replace(token, spared_until_s=token.end_s - token.renew_s + now) if was_refused else token
                )
            except BaseException as error:  # noqa: BLE001  it belongs to those who wait, too
                self._do_without(address, mine, None if was_refused else old, error)
        return coming.result().query

    def _do_without(self, address: str, mine: "Future[_Token]", old: _Token | None, error: BaseException) -> None:
        now = time.monotonic()
        if old and now < old.end_s and isinstance(error, Passing):
            # It is good for a while; who was away may be back by then.
            mine.set_result(replace(old, renew_s=now + _MARGIN_SHARE * (old.end_s - now)))
            return
        with self._lock:
            del self._kept[address]
        mine.set_exception(error)


_TOKENS = _Tokens()
"""Those of this process."""


def _fetched(address: str, timeout_s: float, retries: int) -> _Token:
    header, variable = _KEYS.get(urlsplit(address).netloc, ("", ""))
    headers = {header: os.environ[variable]} if os.environ.get(variable) else {}
    asked_s = time.monotonic()
    answer = patience(retries)(ask, address, headers, timeout_s, _MOST_BYTES)
    if answer.status != 200:
        raise _NoToken(f"answers {answer.status}")
    try:
        content = json.loads(answer.body)
        query, end = content["token"].lstrip("?"), datetime.fromisoformat(content["msft:expiry"])
        # By its own clock, for ours may be wrong.
        now = parsedate_to_datetime(answer.headers["Date"]) if "Date" in answer.headers else datetime.now(UTC)
        life_s = (end - now).total_seconds()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _NoToken("answers something else") from None
    if life_s <= 0 or not _QUERY.fullmatch(query):
        raise _NoToken("answers one that is no good")
    return _Token(query, asked_s + life_s - min(_MARGIN_S, _MARGIN_SHARE * life_s), asked_s + life_s)
