"""Create obstore clients from environment variables: for Google and Azure, and for all stores that are written.

obstore's `PlanetaryComputerCredentialProvider` is not used. It supports only Azure's interface. Planetary Computer's
files are read by `http`, with its retries, limits and counts. `tokens` also supports other archives that need tokens
(setting `[read] tokens`).
"""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from s2cube.config.stores import Stores
from s2cube.fetch import retry
from s2cube.fetch._archives import BucketLocation, NoKeys, locate, output_location
from s2cube.fetch.connections import certificates, pem_text, proxy_and_exceptions
from s2cube.fetch.http import CONNECT_TIMEOUT_S
from s2cube.fetch.session import per_session

if TYPE_CHECKING:
    import obstore.store

_Answer = TypeVar("_Answer")

_WRITE_TIMEOUT_S = 60

_METADATA = "169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal"
"""Metadata services, which send keys to a machine with a role. They are reached without a proxy."""

SERVERS = {"gs": "https://storage.googleapis.com", "az": "https://blob.core.windows.net"}
"""Server of the buckets of each scheme except s3."""

_PUBLIC_PREFIXES = ("gcp-public-data-",)
"""Prefixes of the names of Google's public buckets (cloud.google.com/storage/docs/public-datasets)."""

_KEY_VARIABLES = {
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
"""Sets of variables that define the source of keys. If none of them is set, obstore would ask the metadata service,
which most machines do not have."""

_GOOGLE_FILE = Path(".config/gcloud/application_default_credentials.json")


@per_session(maxsize=64)
def store_to_read(
    scheme: str, bucket: str, timeout_s: float, location: BucketLocation | None = None
) -> "obstore.store.ObjectStore":
    """Return the obstore client to read a bucket.

    Parameters
    ----------
    location
        The server of the bucket, if the scheme is s3.

    Raises
    ------
    NoKeys
        If the environment has no keys for the bucket.
    """
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, timeout_s)),
            **_network_options(location.url if location else SERVERS[scheme]),
        },
        # `store.fetch` retries requests, and counts them.
        "retry_config": {"max_retries": 0},
    }
    settings = _s3_settings(location) if location else _other_settings(scheme, bucket, os.environ)
    return from_url(f"{scheme}://{bucket}", **options, **settings)


def interruptible(operation: Callable[[], _Answer]) -> _Answer:
    """Run a blocking operation of obstore in a thread, so that Ctrl-C still works."""
    if threading.current_thread() is not threading.main_thread():
        return operation()
    answer: Future[_Answer] = Future()

    def run_operation() -> None:
        try:
            answer.set_result(operation())
        except BaseException as error:  # noqa: BLE001  the waiting thread receives it
            answer.set_exception(error)

    threading.Thread(target=run_operation, name="s2cube-store", daemon=True).start()
    return answer.result()


@per_session(maxsize=8)
def store_to_write(address: str, stores: Stores = ()) -> "obstore.store.ObjectStore":
    """Return the obstore client to write to a bucket, or to a folder in it.

    Parameters
    ----------
    stores
        Settings of stores at s3:// addresses. If there are none, only the AWS variables count.

    Raises
    ------
    ValueError
        If the environment has no keys for the bucket.
    """
    from obstore.store import from_url

    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    try:
        location = None
        if scheme == "s3":
            location = locate(address, stores) if stores else output_location(parts.netloc)
        settings = _s3_settings(location) if location else _other_settings(scheme, parts.netloc, os.environ)
    except NoKeys as error:
        raise ValueError(str(error)) from None
    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=_WRITE_TIMEOUT_S),
            **_network_options(location.url if location else SERVERS[scheme]),
        },
        "retry_config": retry.WRITES.for_obstore(),
    }
    # The address is a path, not a URL: a % or # in a name is a part of the name.
    return from_url(quote(address, safe=":/"), **options, **settings)


def _network_options(server: str) -> dict[str, Any]:
    options: dict[str, Any] = {"allow_http": True, "root_certificate": pem_text(certificates())}
    proxy, exceptions = proxy_and_exceptions(server)
    key_server = urlsplit(os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")).hostname or ""
    return options | ({"proxy_url": proxy, "proxy_excludes": f"{exceptions},{_METADATA},{key_server}"} if proxy else {})


def _s3_settings(location: BucketLocation) -> dict[str, Any]:
    """Return all settings except keys in the AWS variables, which obstore reads itself."""
    settings: dict[str, Any] = {
        "endpoint": location.url.rstrip("/") if location.by_host else location.address, "region": location.region,
        "virtual_hosted_style_request": location.by_host, "request_payer": location.requester_pays,
    }  # fmt: skip
    keys = location.keys
    if keys and keys.name != "AWS":
        named = {"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key}
        # Without a provider, obstore would add a session token from the AWS variables.
        settings["credential_provider"] = lambda: {**named, "token": keys.session_token or None, "expires_at": None}
    return settings | ({} if keys or location.by_role else {"skip_signature": True})


def _other_settings(scheme: str, bucket: str, environ: Mapping[str, str]) -> dict[str, Any]:
    if bucket.startswith(_PUBLIC_PREFIXES):
        return {"skip_signature": True}
    if any(all(map(environ.get, names.split())) for names in _KEY_VARIABLES[scheme]):
        return {}
    if scheme == "gs" and (Path.home() / _GOOGLE_FILE).exists():
        return {}
    usual = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"}
    unsigned = {"gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}[scheme]
    raise NoKeys(
        f"there are no keys for {scheme}://{bucket} in the environment",
        f"Set {usual[scheme]}, for workers too; or {unsigned}=true if the bucket is public",
    )
