"""Make independent items of the features in a catalogue's answer.

A catalogue may write anything. If a member (id, geometry, datetime, an asset) cannot be used, the item is made without
it, and the property `scene.UNREADABLE` keeps the original value. Then only the time slice of that scene fails, with an
error that names the scene.
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
from s2cube.stac.members import UNREADABLE, check_geometry, instant, numbers, shown, without_surrogates

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")

_MEMBERS = {
    "type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "properties", "links", "assets", "collection",
}  # fmt: skip
"""Members of a STAC Item, by its specification; other members are kept unchanged."""


def from_features(features: list[Any], base: str) -> Iterator[pystac.Item]:
    """Make items of features: with absolute asset hrefs, and no link but their own to the catalogue.

    Parameters
    ----------
    features
        GeoJSON features. If an element is something else, its item says so.
    base
        Address of the catalogue.
    """
    for feature in features:
        yield detached(_item(feature), base)


def _item(feature: Any) -> pystac.Item:
    """Make an item of what can be read of a feature; its properties note what cannot be read."""
    told: dict[str, Any] = feature if isinstance(feature, dict) else {}
    unreadable: dict[str, str] = {}

    def take(name: str, value: Any, check: Callable[[Any], _Value]) -> _Value | None:
        try:
            return None if value is None else check(value)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            unreadable[name] = shown(value)
            return None

    take("type", told.get("type", "none"), _feature)
    properties = take("properties", told.get("properties"), _dict) or {}
    # pystac reads times leniently: "12" would be the 12th of this month.
    when = take("datetime", properties.get("datetime"), instant)
    if when is None:
        properties = {"start_datetime": None, "end_datetime": None, **properties}
    assets = take("assets", told.get("assets"), _dict) or {}
    item = pystac.Item(
        take("id", told.get("id"), _id) or _made_up_id(feature),
        take("geometry", told.get("geometry"), _geometry),
        _bbox(told.get("bbox")),
        when,
        properties,
        collection=take("collection", told.get("collection"), _text),
        stac_extensions=[each for each in _list(told.get("stac_extensions")) if isinstance(each, str)],
        extra_fields={key: value for key, value in told.items() if key not in _MEMBERS},
        assets={
            without_surrogates(key): asset
            for key, each in assets.items()
            if (asset := take(f"assets.{key}", each, _asset))
        },
    )
    own = next((each["href"] for each in _list(told.get("links")) if _is_own(each)), None)
    if own is not None:
        item.add_link(pystac.Link(pystac.RelType.SELF, without_surrogates(own), pystac.MediaType.GEOJSON))
    if unreadable:
        # Added to the notes of an item that was read before, and saved.
        noted = properties.get(UNREADABLE)
        properties[UNREADABLE] = (noted if isinstance(noted, dict) else {}) | unreadable
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
    check_geometry(value)
    return _dict(value)


def _bbox(value: Any) -> list[float] | None:
    """Give a bounding box of numbers; s2cube takes nothing important from it."""
    try:
        return list(numbers(value))
    except ValueError:
        return None


def _asset(value: Any) -> pystac.Asset:
    href = _text(_dict(value).get("href"))
    urlsplit(href)  # raises ValueError for an address such as http://[
    asset = pystac.Asset.from_dict(value)
    # pystac takes a backslash for a slash, but the name of a folder may hold one.
    asset.href = href
    return asset


def _feature(value: Any) -> None:
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


def detached(item: pystac.Item, base: str) -> pystac.Item:
    """Make the asset hrefs of an item absolute, without secrets, and keep no link but its own; see `from_features`."""
    start = base if "://" in base else str(Path(base).absolute())
    link = item.get_single_link(pystac.RelType.SELF)
    # As it is written: pystac would take a relative one for a path from the folder the user is in.
    own = _resolved(str(link.target), start) if link else None
    for key, asset in list(item.assets.items()):
        # A path from the root is this machine's where the catalogue is, wherever the item says that it lived.
        from_root = Path(asset.href).is_absolute() and "://" not in base
        asset.href = _resolved(asset.href, start if from_root else own or start)
        # Nobody vetted what a catalogue on the network says: it has no business with files of this machine.
        if is_remote(base) and not is_remote(asset.href):
            log.warning(
                "%s: asset %s is left out, for it is at %s: a catalogue on the network may only name %s",
                item.id, key, asset.href, ", ".join(REMOTE_SCHEMES),
            )  # fmt: skip
            del item.assets[key]
            continue
        open_to_all = _unsigned({"href": asset.href, **asset.extra_fields}, base)
        asset.href = open_to_all.pop("href")
        asset.extra_fields = open_to_all
    item.clear_links()
    if own:
        item.add_link(pystac.Link(pystac.RelType.SELF, unsigned(own), pystac.MediaType.GEOJSON))
    return item


def _resolved(href: str, start: str) -> str:
    """Make an href absolute; for a file of this machine, a path.

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
    """Take signatures and passwords out of hrefs, however deep: an asset may have alternates."""
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
            _tell_of_signatures(base, urlsplit(bare).netloc)
    return out


@per_session(maxsize=64)
def _tell_of_signatures(base: str, host: str) -> None:
    """Warn of a catalogue that links to a host, once."""
    log.warning(
        "%s: links to %s come with a signature or a password, which is left out: it is secret and runs out. Unless the "
        "files are open to all, name who gives tokens for them by --tokens ([read] tokens), or give s3:// links and "
        "keys in the environment", base, host,
    )  # fmt: skip
