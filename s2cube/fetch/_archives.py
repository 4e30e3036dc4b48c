"""Settings of the archives at s3:// addresses: endpoint, region, keys, and who pays."""

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
"""Variables of a machine that has a role; obstore gets its keys from them. Without these variables obstore would ask
the machine's metadata service. Most machines have none, and obstore would trust any host that answers there."""


ARCHIVES: Stores = (
    # Registry of Open Data on AWS, "Digital Earth Africa Sentinel-2 Level-2A". The items of s2_l2a_c1 at
    # explorer.digitalearth.africa name the second bucket; their storage:region is that of the original archive.
    ("s3://deafrica-sentinel-2", Store(region="af-south-1", anonymous=True)),
    ("s3://deafrica-sentinel-2-l2a-c1", Store(region="af-south-1", anonymous=True)),
    # documentation.dataspace.copernicus.eu/APIs/S3.html; the items give the endpoint in storage:schemes, too.
    ("s3://eodata", Store(endpoint="https://eodata.dataspace.copernicus.eu", region="default", keys="CDSE")),
    # Registry of Open Data on AWS, "Sentinel-2 Cloud-Optimized GeoTIFFs".
    ("s3://sentinel-cogs", Store(region="us-west-2", anonymous=True)),
    # Earth Search's sentinel-2-c1-l2a: its items link to the same bucket by https, unsigned, in this region.
    ("s3://e84-earth-search-sentinel-data", Store(region="us-west-2", anonymous=True)),
    # Registry of Open Data on AWS, "Sentinel-2": some assets of Earth Search's items are there.
    ("s3://sentinel-s2-l2a", Store(region="eu-central-1", requester_pays=True)),
)

_NOTES = {
    "AWS": "~/.aws is not read",
    "CDSE": "they are free: documentation.dataspace.copernicus.eu/APIs/S3.html",
}
"""Notes for the error about variables that are not set."""


@dataclass(frozen=True)
class Keys:
    """Keys of a store, as the environment holds them, and the prefix of their variables."""

    name: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class BucketLocation:
    """The server of a bucket, and how requests to it are made.

    Parameters
    ----------
    address
        Address of the server, without the bucket.
    by_host
        Whether the host name contains the bucket.
    keys
        None if requests are not signed, or if a role gives the keys.
    by_role
        Whether the machine has a role that gives keys.
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
    """There are no keys for a store, or none that may be sent to it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def locate(href: str, own: Stores = (), environ: Mapping[str, str] = os.environ) -> BucketLocation:
    """Find the server of the bucket of an s3:// address, and the keys for it.

    The user's settings come before the settings in `ARCHIVES`. The AWS variables apply to every other store. Keys are
    sent only to the store that they belong to.

    Raises
    ------
    NoKeys
        If there are no keys for the store.
    """
    bucket = urlsplit(href).netloc
    given, known = _longest(href, own), _longest(href, ARCHIVES)
    if given is None and known is None:
        return output_location(bucket, environ)
    store = _merged(given, known)
    region = store.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    address = (store.endpoint or _amazon(region)).rstrip("/")
    location = BucketLocation(bucket, address, region, requester_pays=bool(store.requester_pays))
    if store.anonymous:
        return location
    explicit = given.keys if given else None
    return _with_keys(location, f"s3://{bucket}", explicit, store.keys, environ)


def output_location(bucket: str, environ: Mapping[str, str] = os.environ) -> BucketLocation:
    """Find the server of a bucket by the AWS variables alone: of the output, or of a bucket without other settings.

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
    location: BucketLocation, store: str, explicit: str | None, known: str | None, environ: Mapping[str, str]
) -> BucketLocation:
    """Add the keys: those that the user names; else the known ones; else the AWS keys, if they are for this server."""
    name = explicit or known or "AWS"
    keys, fit = _keys(name, environ), explicit == "AWS" or _fits(location.address, environ)
    if keys is None and not explicit and fit:
        keys = _keys("AWS", environ)
    if keys and (keys.name != "AWS" or fit):
        return replace(location, keys=keys)
    if name == "AWS" and fit and not keys and any(all(map(environ.get, each)) for each in _ROLES):
        return replace(location, by_role=True)
    names = f"{name}_ACCESS_KEY_ID and {name}_SECRET_ACCESS_KEY"
    bill = "; you pay for what you read" if location.requester_pays else ""
    if name == "AWS" and not fit and _keys("AWS", environ):
        raise NoKeys(
            f"there are no keys for {store}: those in AWS_… are for {_own_endpoint(environ) or 'Amazon'}{bill}",
            f"Name other keys under [read.stores.\"{store}\"]: keys = \"NAME\", with NAME_ACCESS_KEY_ID and "
            "NAME_SECRET_ACCESS_KEY in the environment",
        )  # fmt: skip
    source = f" ({note})" if (note := _NOTES.get(name)) else ""
    raise NoKeys(
        f"there are no keys for {store} in the environment{bill}",
        f"Set {names}{source}, for workers too" + ("" if known or bill else
        f"; if it is public, set anonymous = true under [read.stores.\"{store}\"]"),
    )  # fmt: skip


def _keys(name: str, environ: Mapping[str, str]) -> Keys | None:
    access, secret = environ.get(f"{name}_ACCESS_KEY_ID"), environ.get(f"{name}_SECRET_ACCESS_KEY")
    return Keys(name, access, secret, environ.get(f"{name}_SESSION_TOKEN", "")) if access and secret else None


def _fits(address: str, environ: Mapping[str, str]) -> bool:
    """Say whether the AWS keys may be sent to a server: only to the server that they belong to."""
    host = urlsplit(address).netloc.lower()
    own = _own_endpoint(environ)
    if own is None:
        return bool(_AMAZON.fullmatch(host)) or not _AMAZON_KEY.fullmatch(environ.get("AWS_ACCESS_KEY_ID", ""))
    own_host = urlsplit(own).netloc.lower()
    return host == own_host or bool(_AMAZON.fullmatch(host) and _AMAZON.fullmatch(own_host))


def _own_endpoint(environ: Mapping[str, str]) -> str | None:
    """Give the endpoint of the AWS variables, by the names that the AWS SDKs, GDAL and obstore use."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next(filter(None, map(environ.get, names)), None)
    if endpoint is None or "://" in endpoint:
        return endpoint
    scheme = "http" if environ.get("AWS_HTTPS", "").upper() in _NO else "https"
    return f"{scheme}://{endpoint}"


def _amazon(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _longest(href: str, stores: Stores) -> Store | None:
    """Find the settings with the longest prefix that ends at a ``/`` of the address, or at its end."""
    address = f"s3{href[2:]}"
    fitting = [(prefix, store) for prefix, store in stores if f"{address}/".startswith(f"{prefix}/")]
    return max(fitting, key=lambda each: len(each[0]))[1] if fitting else None


def _merged(given: Store | None, known: Store | None) -> Store:
    """Put the user's settings over the known ones. A user who names keys does not use anonymous requests."""
    chosen = given.model_dump(exclude_none=True) if given else {}
    if chosen.get("keys"):
        chosen.setdefault("anonymous", False)
    if chosen.get("anonymous"):
        chosen.setdefault("keys", None)
    return Store(**((known.model_dump() if known else {}) | chosen))
