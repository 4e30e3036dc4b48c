"""Requests for S3 objects: signatures (version 4, GET only), and the meaning of refusals.

obstore does not sign these requests: it reads missing settings (an endpoint, a session token) from the AWS variables,
which may belong to another store.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from s2cube.fetch._archives import BucketLocation, Keys
from s2cube.fetch.http import Answer

_EMPTY_BODY_SHA256 = hashlib.sha256(b"").hexdigest()
"""Hash of the empty body of a GET."""

_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")
_REGION = re.compile(rb"<Region>([\w-]{1,40})</Region>")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def object_url(location: BucketLocation, path: str) -> str:
    """Return the URL of an object, in the form that is signed and sent.

    Parameters
    ----------
    path
        Path of an s3:// address.

    Raises
    ------
    ValueError
        If a name in the path is ``.`` or ``..``, because HTTP clients would resolve it.
    """
    key = unquote(path).lstrip("/")
    if {".", ".."} & set(key.split("/")):
        raise ValueError("its path contains . or .. as a name")
    return location.url + quote(key, safe="/-_.~")


def headers_for(
    location: BucketLocation, url: str, headers: Mapping[str, str], now: datetime | None = None
) -> dict[str, str]:
    """Sign a request for an object; return all headers to send, including those of the signature.

    Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)".
    """
    if location.keys is None:
        return dict(headers)
    time = f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    added = {"x-amz-content-sha256": _EMPTY_BODY_SHA256, "x-amz-date": time}
    if location.keys.session_token:
        added["x-amz-security-token"] = location.keys.session_token
    if location.requester_pays:
        added["x-amz-request-payer"] = "requester"
    signed = {name.lower(): value for name, value in {**headers, **added, "host": _host(url)}.items()}
    names = ";".join(sorted(signed))
    listed = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    request = "\n".join(("GET", urlsplit(url).path, "", listed, names, _EMPTY_BODY_SHA256))
    scope = f"{time[:8]}/{location.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()))
    credential = f"Credential={location.keys.access_key_id}/{scope}, SignedHeaders={names}"
    authorization = f"AWS4-HMAC-SHA256 {credential}, Signature={_signature(location.keys, scope, text)}"
    return {**headers, **added, "Authorization": authorization}


def _host(url: str) -> str:
    """Return the value of the Host header: the host, and its port if it is not the default port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _signature(keys: Keys, scope: str, text: str) -> str:
    key = f"AWS4{keys.secret_access_key}".encode()
    for word in (*scope.split("/"), text):
        key = hmac.digest(key, word.encode(), "sha256")
    return key.hex()


def refusal(answer: Answer, location: BucketLocation) -> tuple[str, str]:
    """Return the problem and the remedy if a store refuses a request. The cause is region, keys or object."""
    code = _CODE.search(answer.body)
    problem = f"answers {answer.status}" + (f" ({code[1].decode()})" if code else "")
    region_in_body = _REGION.search(answer.body)
    region = answer.headers.get("x-amz-bucket-region") or (region_in_body[1].decode() if region_in_body else "")
    store = f"s3://{location.bucket}"
    if region and region != location.region and answer.status in (301, 307, 400):
        return (
            f"cannot be read ({store} is in the region {region}, but s2cube asked {location.region})",
            f'Set region = "{region}" under [read.stores."{store}"], or AWS_REGION={region}',
        )
    if answer.status not in (401, 403):
        return problem, ""
    if location.keys:
        return (
            f"cannot be read (its store {problem})",
            f"Check the {location.keys.name}_… keys in the environment, and that they may read {store}",
        )
    return (
        f"cannot be read (its store {problem})",
        f'{store} was read without keys; if it needs keys, name them under [read.stores."{store}"]',
    )
