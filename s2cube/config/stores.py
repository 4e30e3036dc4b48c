"""Read the setting `stores`: endpoint, region and key names of s3:// stores, by address prefix."""

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from s2cube.config.wording import problem_of

_NAME = re.compile(r"[A-Za-z_]\w*")


class Store(BaseModel):
    """Settings of one store, or of a folder in it.

    Parameters
    ----------
    endpoint
        Address of the server. Default: the address of Amazon S3 in the region.
    keys
        Prefix of the environment variables with the keys: ``CDSE`` means ``CDSE_ACCESS_KEY_ID``,
        ``CDSE_SECRET_ACCESS_KEY`` and, if set, ``CDSE_SESSION_TOKEN``.
    anonymous
        Whether requests are sent without a signature.
    requester_pays
        Whether the requester pays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    region: str | None = None
    keys: str | None = None
    anonymous: bool | None = None
    requester_pays: bool | None = None


Stores = tuple[tuple[str, Store], ...]
"""Pairs of an address prefix and the settings of its store."""


def parse_stores(value: object) -> object:
    """Read the setting `stores`: a table by prefix, or JSON. Errors do not show values: they may be secret keys.

    Raises
    ------
    ValueError
        If the setting is not valid.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (ValueError, RecursionError):
            raise ValueError("is not a JSON object") from None
    if isinstance(value, tuple):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a table by prefix, such as {'s3://bucket': {'keys': 'NAME'}}")
    return tuple((_prefix(prefix), _store(prefix, settings)) for prefix, settings in value.items())


def _prefix(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("a prefix must be a text: s3://BUCKET or s3://BUCKET/FOLDER")
    parts = urlsplit(text)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a prefix must be s3://BUCKET or s3://BUCKET/FOLDER")
    return text.rstrip("/")


def _store(prefix: object, settings: object) -> Store:
    if isinstance(settings, Store):
        return settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"{prefix} must be a table")
    known = ", ".join(Store.model_fields)
    if unknown := sorted(map(str, settings.keys() - Store.model_fields.keys())):
        secret = "; put keys in the environment only" if re.search("(?i)key|secret|token", unknown[0]) else ""
        raise ValueError(f"{prefix}: '{unknown[0]}' is unknown; use {known}{secret}")
    try:
        store = Store.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{prefix}: {first['loc'][0]}: its value {problem_of(first)}") from None
    if store.keys is not None and not _NAME.fullmatch(store.keys):
        raise ValueError(f"{prefix}: keys must be the prefix of the variables' names, such as CDSE")
    if store.anonymous and store.keys:
        raise ValueError(f"{prefix}: anonymous excludes keys")
    if store.endpoint is not None:
        parts = urlsplit(store.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{prefix}: endpoint must be an http or https address")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"{prefix}: endpoint must not contain a user, a password or a query")
    return store
