"""Object stores by obstore, as the environment defines them: Google's, Azure's, and every store that is written to."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from s2cube.fetch._archives import NoKeys, Place, output_place
from s2cube.fetch._network import certificates, pem, proxy_and_exceptions
from s2cube.fetch.http import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    import obstore.store

_Answer = TypeVar("_Answer")

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "az")
"""Where a catalogue on the network may say that its assets lie."""

_WRITE_TIMEOUT_S = 60
_WRITE_RETRY_S = 120
"""So long a store that is busy is asked again, by obstore, with growing pauses."""

_METADATA = "169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal"
"""Hosts that give keys to a machine with a role: they are reached without a proxy."""

SERVERS = {"gs": "https://storage.googleapis.com", "az": "https://blob.core.windows.net"}
"""Servers of buckets of other schemes than s3."""

_OPEN_TO_ALL = ("gcp-public-data-",)
"""Prefixes of the names of Google's public buckets (cloud.google.com/storage/docs/public-datasets)."""

_SIGNS_OF_KEYS = {
    "gs": (
        "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN", "GOOGLE_SKIP_SIGNATURE", "GCE_METADATA_HOST",
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE",
        "AZURE_STORAGE_USE_EMULATOR", "AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT",
        "AZURE_CLIENT_SECRET AZURE_CLIENT_ID AZURE_TENANT_ID",
        "AZURE_STORAGE_CLIENT_SECRET AZURE_STORAGE_CLIENT_ID AZURE_STORAGE_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE AZURE_CLIENT_ID AZURE_TENANT_ID",
    ),
}  # fmt: skip
"""Variables that say where keys come from; some need others. Without any, obstore would ask the machine's metadata
service, which most machines do not have."""

_GOOGLE_FILE = Path(".config/gcloud/application_default_credentials.json")


def is_remote(href: str) -> bool:
    """Tell whether an href lies on the network, where a catalogue on the network may point to."""
    return urlsplit(href).scheme.lower() in REMOTE_SCHEMES


@lru_cache(maxsize=64)
def store_to_read(
    scheme: str, bucket: str, timeout_s: float, place: Place | None = None
) -> "obstore.store.ObjectStore":
    """Give the obstore client for a bucket that is read.

    Parameters
    ----------
    place
        Of a bucket at s3://.

    Raises
    ------
    NoKeys
        If the environment has no keys for it.
    """
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, timeout_s)),
            **_network_options(place.url if place else SERVERS[scheme]),
        },
        # Asked again, and counted, by `store.fetch`.
        "retry_config": {"max_retries": 0},
    }
    settings = _s3_settings(place) if place else _other_settings(scheme, bucket, os.environ)
    return from_url(f"{scheme}://{bucket}", **options, **settings)


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
    """Give the obstore client for a bucket, or for a folder in it.

    Raises
    ------
    ValueError
        If the environment has no keys for it.
    """
    from obstore.store import from_url

    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    try:
        place = output_place(parts.netloc) if scheme == "s3" else None
        settings = _s3_settings(place) if place else _other_settings(scheme, parts.netloc, os.environ)
    except NoKeys as error:
        raise ValueError(str(error)) from None
    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=_WRITE_TIMEOUT_S),
            **_network_options(place.url if place else SERVERS[scheme]),
        },
        "retry_config": {"retry_timeout": timedelta(seconds=_WRITE_RETRY_S)},
    }
    # An address is taken as it is written: what is a name in it must not be read as an escape or a fragment.
    return from_url(quote(address, safe=":/"), **options, **settings)


def _network_options(server: str) -> dict[str, Any]:
    options: dict[str, Any] = {"allow_http": True, "root_certificate": pem(certificates())}
    proxy, exceptions = proxy_and_exceptions(server)
    keys_from = urlsplit(os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")).hostname or ""
    return options | ({"proxy_url": proxy, "proxy_excludes": f"{exceptions},{_METADATA},{keys_from}"} if proxy else {})


def _s3_settings(place: Place) -> dict[str, Any]:
    """Give the settings that obstore would otherwise take from the AWS variables; it reads the keys there itself."""
    settings: dict[str, Any] = {
        "endpoint": place.url.rstrip("/") if place.by_host else place.address, "region": place.region,
        "virtual_hosted_style_request": place.by_host, "request_payer": place.requester_pays,
    }  # fmt: skip
    return settings | ({} if place.keys or place.by_role else {"skip_signature": True})


def _other_settings(scheme: str, bucket: str, environ: Mapping[str, str]) -> dict[str, Any]:
    if bucket.startswith(_OPEN_TO_ALL):
        return {"skip_signature": True}
    if any(all(map(environ.get, names.split())) for names in _SIGNS_OF_KEYS[scheme]):
        return {}
    if scheme == "gs" and (Path.home() / _GOOGLE_FILE).exists():
        return {}
    usual = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"}
    unsigned = {"gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}[scheme]
    raise NoKeys(
        f"there are no keys for {scheme}://{bucket} in the environment",
        f"Set {usual[scheme]}, for workers too; or {unsigned}=true if it is public",
    )
