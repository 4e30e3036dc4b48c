"""Settings of the archives at s3:// addresses: endpoint, region, keys, and whether the reader pays."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from s2cube.config.stores import Store, Stores

_AMAZON = re.compile(r"(.+\.)?amazonaws\.com(\.cn)?")
_AMAZON_KEY = re.compile(r"A[KS]IA[A-Z0-9]{12,}")
"""Long-term and temporary access key IDs, by IAM's "Unique identifiers"."""

_YES, _NO = ("YES", "TRUE", "ON", "1"), ("NO", "FALSE", "OFF", "0")
_ROLES = (
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_METADATA_ENDPOINT",),
)
"""Sets of variables that define the role of a machine. obstore gets the keys of the role from them. Without these
variables, obstore would ask the metadata service. Most machines have no such service, and obstore would trust any host
that answers at its address."""


ARCHIVES: Stores = (
    # Registry of Open Data on AWS, "Digital Earth Africa Sentinel-2 Level-2A". The items of s2_l2a_c1 at
    # explorer.digitalearth.africa link to the second bucket. Their storage:region belongs to the original archive.
    ("s3://deafrica-sentinel-2", Store(region="af-south-1", anonymous=True)),
    ("s3://deafrica-sentinel-2-l2a-c1", Store(region="af-south-1", anonymous=True)),
    # documentation.dataspace.copernicus.eu/APIs/S3.html; the items contain the endpoint, too (storage:schemes).
    ("s3://eodata", Store(endpoint="https://eodata.dataspace.copernicus.eu", region="default", keys="CDSE")),
    # Registry of Open Data on AWS, "Sentinel-2 Cloud-Optimized GeoTIFFs".
    ("s3://sentinel-cogs", Store(region="us-west-2", anonymous=True)),
    # Earth Search, sentinel-2-c1-l2a: its items link to this bucket and region by https, without a signature.
    ("s3://e84-earth-search-sentinel-data", Store(region="us-west-2", anonymous=True)),
    # Registry of Open Data on AWS, "Sentinel-2": some assets of Earth Search's items are in this bucket.
    ("s3://sentinel-s2-l2a", Store(region="eu-central-1", requester_pays=True)),
)

_NOTES = {
    "AWS": "~/.aws is not read",
    "CDSE": "they are free: documentation.dataspace.copernicus.eu/APIs/S3.html",
}
"""Notes for the error about variables that are not set."""


@dataclass(frozen=True)
class Keys:
    """Keys of a store from environment variables, and the prefix of the names of these variables."""

    name: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class BucketLocation:
    """The server of a bucket, and the settings of requests to it.

    Parameters
    ----------
    address
        Address of the server, without the bucket.
    by_host
        Whether the host name contains the name of the bucket.
    keys
        None if requests are not signed, or if the keys come from a role.
    by_role
        Whether the keys come from a role of the machine.
    """

    bucket: str
    address: str
    region: str
    keys: Keys | None = None
    by_role: bool = False
    by_host: bool = False
    requester_pays: bool = False

    @property
    def url(self) -> str:
        """Address of the bucket itself, with a slash at its end."""
        if not self.by_host:
            return f"{self.address}/{self.bucket}/"
        scheme, _, host = self.address.partition("://")
        return f"{self.address}/" if host.startswith(f"{self.bucket}.") else f"{scheme}://{self.bucket}.{host}/"


class NoKeys(Exception):
    """There are no keys for a store, or the existing keys must not be sent to it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def locate(href: str, own: Stores = (), environ: Mapping[str, str] = os.environ) -> BucketLocation:
    """Find the server of the bucket of an s3:// address, and the keys for it.

    The user's settings take precedence over `ARCHIVES`. The AWS variables apply to all other stores. Keys are sent only
    to the store that they belong to.

    Raises
    ------
    NoKeys
        If there are no keys for the store.
    """
    bucket = urlsplit(href).netloc
    user_settings, known = _find_settings(href, own), _find_settings(href, ARCHIVES)
    if user_settings is None and known is None:
        return output_location(bucket, environ)
    store = _merge(user_settings, known)
    region = store.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    address = (store.endpoint or _amazon(region)).rstrip("/")
    location = BucketLocation(bucket, address, region, requester_pays=bool(store.requester_pays))
    if store.anonymous:
        return location
    user_keys = user_settings.keys if user_settings else None
    return _with_keys(location, f"s3://{bucket}", user_keys, store.keys, environ)


def output_location(bucket: str, environ: Mapping[str, str] = os.environ) -> BucketLocation:
    """Find the server of a bucket from the AWS variables alone.

    This is for the output, and for buckets without other settings.

    Raises
    ------
    NoKeys
        If there are no keys.
    """
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    by_host = environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").upper() in _YES
    pays = environ.get("AWS_REQUEST_PAYER", "").lower() in ("requester", "true")
    address = (_own_endpoint(environ) or _amazon(region)).rstrip("/")
    location = BucketLocation(bucket, address, region, by_host=by_host, requester_pays=pays)
    if any(environ.get(name, "").upper() in _YES for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")):
        return location
    return _with_keys(location, f"s3://{bucket}", "AWS", None, environ)


def _with_keys(
    location: BucketLocation, store: str, user_keys: str | None, known: str | None, environ: Mapping[str, str]
) -> BucketLocation:
    """Add the keys that the user names; else the known keys; else the AWS keys, if they belong to this server."""
    name = user_keys or known or "AWS"
    keys, aws_keys_fit = _keys(name, environ), user_keys == "AWS" or _aws_keys_fit(location.address, environ)
    if keys is None and not user_keys and aws_keys_fit:
        keys = _keys("AWS", environ)
    if keys and (keys.name != "AWS" or aws_keys_fit):
        return replace(location, keys=keys)
    if name == "AWS" and aws_keys_fit and not keys and any(all(map(environ.get, each)) for each in _ROLES):
        return replace(location, by_role=True)
    names = f"{name}_ACCESS_KEY_ID and {name}_SECRET_ACCESS_KEY"
    cost_note = "; you pay for what you read" if location.requester_pays else ""
    if name == "AWS" and not aws_keys_fit and _keys("AWS", environ):
        raise NoKeys(
            f"there are no keys for {store}: those in AWS_… are for {_own_endpoint(environ) or 'Amazon'}{cost_note}",
            f"Name other keys under [read.stores.\"{store}\"]: keys = \"NAME\", with NAME_ACCESS_KEY_ID and "
            "NAME_SECRET_ACCESS_KEY in the environment",
        )  # fmt: skip
    source = f" ({note})" if (note := _NOTES.get(name)) else ""
    raise NoKeys(
        f"there are no keys for {store} in the environment{cost_note}",
        f"Set {names}{source}, for workers too" + ("" if known or cost_note else
        f"; if the bucket is public, set anonymous = true under [read.stores.\"{store}\"]"),
    )  # fmt: skip


def _keys(name: str, environ: Mapping[str, str]) -> Keys | None:
    access, secret = environ.get(f"{name}_ACCESS_KEY_ID"), environ.get(f"{name}_SECRET_ACCESS_KEY")
    return Keys(name, access, secret, environ.get(f"{name}_SESSION_TOKEN", "")) if access and secret else None


def _aws_keys_fit(address: str, environ: Mapping[str, str]) -> bool:
    """Return whether the AWS keys belong to a server. Only then may they be sent to it."""
    host = urlsplit(address).netloc.lower()
    own = _own_endpoint(environ)
    if own is None:
        return bool(_AMAZON.fullmatch(host)) or not _AMAZON_KEY.fullmatch(environ.get("AWS_ACCESS_KEY_ID", ""))
    own_host = urlsplit(own).netloc.lower()
    return host == own_host or bool(_AMAZON.fullmatch(host) and _AMAZON.fullmatch(own_host))


def _own_endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the endpoint from the AWS variables. The AWS SDKs, GDAL and obstore use these names."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next(filter(None, map(environ.get, names)), None)
    if endpoint is None or "://" in endpoint:
        return endpoint
    scheme = "http" if environ.get("AWS_HTTPS", "").upper() in _NO else "https"
    return f"{scheme}://{endpoint}"


def _amazon(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _find_settings(href: str, stores: Stores) -> Store | None:
    """Find the settings of an address by the longest matching prefix. A prefix matches only complete names."""
    address = f"s3{href[2:]}"
    fitting = [(prefix, store) for prefix, store in stores if f"{address}/".startswith(f"{prefix}/")]
    return max(fitting, key=lambda each: len(each[0]))[1] if fitting else None


def _merge(user_settings: Store | None, known: Store | None) -> Store:
    """Merge the settings; those of the user take precedence. If the user names keys, requests are signed."""
    chosen = user_settings.model_dump(exclude_none=True) if user_settings else {}
    if chosen.get("keys"):
        chosen.setdefault("anonymous", False)
    if chosen.get("anonymous"):
        chosen.setdefault("keys", None)
    return Store(**((known.model_dump() if known else {}) | chosen))
