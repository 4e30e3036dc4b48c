"""Create items from the GeoJSON features of a catalogue. The items can be used without the catalogue.

A catalogue may contain invalid values. If a member (id, geometry, datetime, an asset) cannot be used, the item is
created without it, and the property `members.UNREADABLE` stores the original value. Then only the time slice of that
scene fails, with an error that names the scene.
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
"""Members of a STAC Item in the STAC specification. Other members are copied unchanged."""


def from_features(features: list[Any], base: str) -> Iterator[pystac.Item]:
    """Create items from features: asset hrefs are absolute and without secrets; only the link ``self`` is kept.

    Parameters
    ----------
    features
        GeoJSON features. An element of another type also becomes an item; its property `UNREADABLE` has the reason.
    base
        Address of the catalogue. Relative hrefs are relative to it if an item has no link ``self``.
    """
    for feature in features:
        yield _without_catalogue(_item(feature), base)


def _item(feature: Any) -> pystac.Item:
    """Create an item from the members that can be used. Its property `UNREADABLE` stores the others."""
    members: dict[str, Any] = feature if isinstance(feature, dict) else {}
    unreadable: dict[str, str] = {}

    def parsed(name: str, value: Any, parse: Callable[[Any], _Value]) -> _Value | None:
        try:
            return None if value is None else parse(value)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            unreadable[name] = short_json(value)
            return None

    parsed("type", members.get("type", "none"), _check_type)
    properties = parsed("properties", members.get("properties"), _dict) or {}
    # Do not use pystac's parser: it reads "12" as the 12th of this month.
    when = parsed("datetime", properties.get("datetime"), parse_time)
    if when is None:
        properties = {"start_datetime": None, "end_datetime": None, **properties}
    assets = parsed("assets", members.get("assets"), _dict) or {}
    item = pystac.Item(
        parsed("id", members.get("id"), _id_text) or _generated_id(feature),
        parsed("geometry", members.get("geometry"), _geometry),
        _bbox(members.get("bbox")),
        when,
        properties,
        collection=parsed("collection", members.get("collection"), _non_empty_text),
        stac_extensions=[each for each in _list(members.get("stac_extensions")) if isinstance(each, str)],
        extra_fields={key: value for key, value in members.items() if key not in _MEMBERS},
        assets={
            without_surrogates(key): asset
            for key, each in assets.items()
            if (asset := parsed(f"assets.{key}", each, _asset))
        },
    )
    own = next((each["href"] for each in _list(members.get("links")) if _is_self_link(each)), None)
    if own is not None:
        item.add_link(pystac.Link(pystac.RelType.SELF, without_surrogates(own), pystac.MediaType.GEOJSON))
    if unreadable:
        # If the item was read and saved before, keep the values that were stored then.
        earlier = properties.get(UNREADABLE)
        properties[UNREADABLE] = (earlier if isinstance(earlier, dict) else {}) | unreadable
    return item


def _generated_id(feature: Any) -> str:
    content = json.dumps(feature, sort_keys=True, default=repr)
    return f"without-id-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _id_text(value: Any) -> str:
    return _non_empty_text(f"{value}" if isinstance(value, int) and not isinstance(value, bool) else value)


def _non_empty_text(value: Any) -> str:
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
    """Return the bounding box, or None if it is invalid. s2cube does not need it, so this is not an error."""
    try:
        return list(parse_numbers(value))
    except ValueError:
        return None


def _asset(value: Any) -> pystac.Asset:
    href = _non_empty_text(_dict(value).get("href"))
    urlsplit(href)  # raises ValueError for an address such as http://[
    asset = pystac.Asset.from_dict(value)
    # pystac replaces a backslash by a slash, but the name of a folder may contain a backslash.
    asset.href = href
    return asset


def _check_type(value: Any) -> None:
    if value != "Feature":
        raise ValueError


def _is_self_link(link: Any) -> bool:
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


def _without_catalogue(item: pystac.Item, base: str) -> pystac.Item:
    """Change an item so that it can be used without its catalogue; see `from_features`."""
    start = base if "://" in base else str(Path(base).absolute())
    link = item.get_single_link(pystac.RelType.SELF)
    # Do not use pystac's absolute href: it resolves relative links from the user's current folder.
    own = _resolved(str(link.target), start) if link else None
    for key, asset in list(item.assets.items()):
        # In a catalogue on this machine, a path such as /data/a.tif is a file of this machine, even if the item's
        # link ``self`` is an address on the network.
        from_root = Path(asset.href).is_absolute() and "://" not in base
        asset.href = _resolved(asset.href, start if from_root else own or start)
        # Catalogues on the network are not trusted: they must not link to files of this machine.
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
    """Convert an href to an absolute href: an address, or a path on this machine.

    Parameters
    ----------
    start
        Absolute address or path of the document that contains the href.
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
    """Remove signatures and passwords from hrefs at any depth, because an asset may have alternate hrefs."""
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
    """Warn once per catalogue and host."""
    log.warning(
        "%s: links to %s come with a signature or a password, which is removed, because it is secret and expires. "
        "If the files are not public, set the service that issues tokens for them by --tokens ([read] tokens), or use "
        "s3:// links and keys in the environment", base, host,
    )  # fmt: skip
