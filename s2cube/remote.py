"""Object stores and web servers, as the environment says: what keeps the connections to them."""

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from s2cube.web import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    import obstore.store

_Answer = TypeVar("_Answer")

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "az")
"""Where a catalogue on the network may say that its assets lie."""

_WRITE_TIMEOUT_S = 60
_WRITE_RETRY_S = 120
"""So long a store that is busy is asked again, by obstore, with growing pauses."""

_TRUE = ("YES", "TRUE", "ON", "1")


def is_remote(href: str) -> bool:
    """Tell whether an href lies on the network, where a catalogue on the network may point to."""
    return urlsplit(href).scheme.lower() in REMOTE_SCHEMES


def local_path(href: str) -> str:
    """Give the path of a file on this machine, by a path or a ``file:`` address."""
    if not href.lower().startswith("file:"):
        return href
    path = re.sub(r"^//[^/]*", "", href[len("file:") :])
    return existing_path(path)


def existing_path(path: str) -> str:
    """Give a path as it is written, or with its %-escapes decoded where a file lies only there."""
    # The STAC specification wants addresses, but most writers put a plain path there.
    decoded = unquote(path)
    return decoded if decoded != path and not Path(path).exists() and Path(decoded).exists() else path


@lru_cache(maxsize=64)
def store_to_read(scheme: str, place: str, query: str, timeout_s: float) -> "obstore.store.ObjectStore":
    """Give what keeps the connections to a server; a query, as a signature, is sent with every request."""
    from obstore.store import HTTPStore, from_url

    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, timeout_s)),
            "allow_http": True,
        },
        # Asked again, and counted, by `store.fetch`.
        "retry_config": {"max_retries": 0},
    }
    if scheme in ("http", "https"):
        return HTTPStore.from_url(f"{scheme}://{place}/" + (f"?{query}" if query else ""), **options)
    return from_url(f"{scheme}://{place}", **options, **_keys(scheme))


def heed(call: Callable[[], _Answer]) -> _Answer:
    """Call what is deaf to signals for minutes, as obstore is, so that they are heard."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    answer: Future[_Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  it belongs to who waits
            answer.set_exception(error)

    threading.Thread(target=ask, name="s2cube-store", daemon=True).start()
    return answer.result()


@lru_cache(maxsize=8)
def store_to_write(address: str) -> "obstore.store.ObjectStore":
    """Give what keeps the connections to a bucket, or a folder in it."""
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {"timeout": timedelta(seconds=_WRITE_TIMEOUT_S), "allow_http": True},
        "retry_config": {"retry_timeout": timedelta(seconds=_WRITE_RETRY_S)},
    }
    # An address is taken as it is written: what is a name in it must not be read as an escape or a fragment.
    return from_url(quote(address, safe=":/"), **options, **_keys(urlsplit(address).scheme.lower()))


def _keys(scheme: str) -> dict[str, Any]:
    return s3_settings(os.environ) if scheme == "s3" else {}


def s3_settings(environ: Any) -> dict[str, Any]:
    """Take from the environment what GDAL calls otherwise than obstore, which reads all others (AWS_…) itself."""
    settings: dict[str, Any] = {}
    if endpoint := environ.get("AWS_S3_ENDPOINT"):
        safe = environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
        settings["endpoint"] = endpoint if "://" in endpoint else f"{'https' if safe else 'http'}://{endpoint}"
    if any(environ.get(name, "").upper() in _TRUE for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")):
        # Where nothing is signed, an address is made by keys that are none, and cut.
        settings |= {"skip_signature": True, "access_key_id": "none", "secret_access_key": "none"}
    if environ.get("AWS_REQUEST_PAYER", "") == "requester":
        settings["request_payer"] = True
    if not environ.get("AWS_REGION") and (region := environ.get("AWS_DEFAULT_REGION")):
        settings["region"] = region
    return settings
