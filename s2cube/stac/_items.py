"""Make items of the GeoJSON features that a catalogue gives, so that they can be used without the catalogue.

A catalogue may write anything. If a member (id, geometry, datetime, an asset) cannot be used, the item is made without
it, and the property `members.UNREADABLE` keeps the original value. Then only the time slice of that scene fails, with
an error that names the scene.
"""

import hashlib
import json
import logging
import os.path
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import pystac

from s2cube.fetch.addresses import REMOTE_SCHEMES, existing_path, is_remote, local_path
from s2cube.fetch.session import per_session
from s2cube.fetch.tokens import token_server, unsigned
from s2cube.stac.members import (
    UNREADABLE,
    parse_geometry,
    parse_numbers,
    parse_time,
    short_json,
    without_surrogates,
)

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")

_MEMBERS = {
    "type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "properties", "links", "assets", "collection",
}  # fmt: skip
"""Members of a STAC Item, by its specification; other members are kept unchanged."""


def from_features(features: list[Any], base: str) -> Iterator[pystac.Item]:
    """Make items of features, with absolute asset hrefs without secrets. Of the links, only the item's own remains.

    Parameters
    ----------
    features
        GeoJSON features. An element of another type also becomes an item: one that notes what is wrong.
    base
        Address of the catalogue. Relative hrefs start from it if an item has no own link.
    """
    for feature in features:
        yield _independent(_item(feature), base)


def _item(feature: Any) -> pystac.Item:
    """Make an item of the members that can be used; its properties keep the others."""
    members: dict[str, Any] = feature if isinstance(feature, dict) else {}
    unreadable: dict[str, str] = {}

    def take(name: str, value: Any, parse: Callable[[Any], _Value]) -> _Value | None:
        try:
            return None if value is None else parse(value)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            unreadable[name] = short_json(value)
            return None

    take("type", members.get("type", "none"), _check_is_feature)
    properties = take("properties", members.get("properties"), _dict) or {}
    # Not pystac's parser: it reads "12" as the 12th of this month.
    when = take("datetime", properties.get("datetime"), parse_time)
    if when is None:
        properties = {"start_datetime": None, "end_datetime": None, **properties}
    assets = take("assets", members.get("assets"), _dict) or {}
    item = pystac.Item(
        take("id", members.get("id"), _id) or _made_up_id(feature),
        take("geometry", members.get("geometry"), _geometry),
        _bbox(members.get("bbox")),
        when,
        properties,
        collection=take("collection", members.get("collection"), _text),
        stac_extensions=[each for each in _list(members.get("stac_extensions")) if isinstance(each, str)],
        extra_fields={key: value for key, value in members.items() if key not in _MEMBERS},
        assets={
            without_surrogates(key): asset
            for key, each in assets.items()
            if (asset := take(f"assets.{key}", each, _asset))
        },
    )
    own = next((each["href"] for each in _list(members.get("links")) if _is_own(each)), None)
    if own is not None:
        item.add_link(pystac.Link(pystac.RelType.SELF, without_surrogates(own), pystac.MediaType.GEOJSON))
    if unreadable:
        # The item may have been read and saved before: keep what that noted.
        earlier = properties.get(UNREADABLE)
        properties[UNREADABLE] = (earlier if isinstance(earlier, dict) else {}) | unreadable
    return item


def _made_up_id(feature: Any) -> str:
    content = json.dumps(feature, sort_keys=True, default=repr)
    return f"without-id-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _id(value: Any) -> str:
    return _text(f"{value}" if isinstance(value, int) and not isinstance(value, bool) else value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return without_surrogates(value)


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _geometry(value: Any) -> dict[str, Any]:
    parse_geometry(value)
    return _dict(value)


def _bbox(value: Any) -> list[float] | None:
    """Give the bounding box, or None. s2cube does not need it, so a wrong one is no failure."""
    try:
        return list(parse_numbers(value))
    except ValueError:
        return None


def _asset(value: Any) -> pystac.Asset:
    href = _text(_dict(value).get("href"))
    urlsplit(href)  # raises ValueError for an address such as http://[
    asset = pystac.Asset.from_dict(value)
    # pystac turns a backslash into a slash, but the name of a folder may contain one.
    asset.href = href
    return asset


def _check_is_feature(value: Any) -> None:
    if value != "Feature":
        raise ValueError


def _is_own(link: Any) -> bool:
    return (
        isinstance(link, dict)
        and link.get("rel") == "self"
        and isinstance(link.get("href"), str)
        and _is_address(link["href"])
    )


def _is_address(href: str) -> bool:
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _independent(item: pystac.Item, base: str) -> pystac.Item:
    """Change an item so that it can be used without its catalogue; see `from_features`."""
    start = base if "://" in base else str(Path(base).absolute())
    link = item.get_single_link(pystac.RelType.SELF)
    # Not pystac's absolute href: it resolves a relative link from the user's current folder.
    own = _resolved(str(link.target), start) if link else None
    for key, asset in list(item.assets.items()):
        # A path such as /data/a.tif in a catalogue on this machine is a file of this machine, whatever the item's own
        # link says.
        from_root = Path(asset.href).is_absolute() and "://" not in base
        asset.href = _resolved(asset.href, start if from_root else own or start)
        # A catalogue on the network is not trusted, so it may not name files of this machine.
        if is_remote(base) and not is_remote(asset.href):
            log.warning(
                "%s: asset %s is left out, because it is at %s: a catalogue on the network may only name %s",
                item.id, key, asset.href, ", ".join(REMOTE_SCHEMES),
            )  # fmt: skip
            del item.assets[key]
            continue
        fields = _unsigned({"href": asset.href, **asset.extra_fields}, base)
        asset.href = fields.pop("href")
        asset.extra_fields = fields
    item.clear_links()
    if own:
        item.add_link(pystac.Link(pystac.RelType.SELF, unsigned(own), pystac.MediaType.GEOJSON))
    return item


def _resolved(href: str, start: str) -> str:
    """Make an href absolute: an address, or a path on this machine.

    Parameters
    ----------
    start
        Absolute address or path of the document that holds the href.
    """
    if href.lower().startswith("file:"):
        return local_path(href)
    if "://" in href:
        return href
    if start.lower().startswith("file:"):
        start = local_path(start)
    if "://" in start:
        return urljoin(start, href)
    # In a file name, # and ? are ordinary characters.
    return existing_path(os.path.normpath(Path(start).parent / href))


def _unsigned(content: Any, base: str) -> Any:
    """Remove signatures and passwords from hrefs at any depth: an asset may have alternates."""
    if isinstance(content, list):
        return [_unsigned(each, base) for each in content]
    if not isinstance(content, dict):
        return content
    out = {key: _unsigned(value, base) for key, value in content.items()}
    href = out.get("href")
    if isinstance(href, str) and not _is_address(href):
        del out["href"]
    elif isinstance(href, str) and (bare := unsigned(href)) != href:
        out["href"] = bare
        if token_server(bare) is None:
            _warn_about_signatures(base, urlsplit(bare).netloc)
    return out


@per_session(maxsize=64)
def _warn_about_signatures(base: str, host: str) -> None:
    """Warn once for each catalogue and host."""
    log.warning(
        "%s: links to %s come with a signature or a password, which is removed, because it is secret and expires. "
        "Unless the files are public, name the service that gives tokens for them by --tokens ([read] tokens), or use "
        "s3:// links and keys in the environment", base, host,
    )  # fmt: skip
