"""Features of a catalogue's answer become items that stand for themselves."""

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pystac
from pystac.utils import is_absolute_href, make_absolute_href

from s2cube.errors import SearchError
from s2cube.remote import REMOTE_SCHEMES, is_remote
from s2cube.sign import endpoint, unsigned

log = logging.getLogger(__name__)


def from_features(features: list[dict[str, Any]], base: str) -> Iterator[pystac.Item]:
    """Make items of features: with absolute asset hrefs, and no link but their own to the catalogue.

    Parameters
    ----------
    base
        Address of the catalogue.

    Raises
    ------
    SearchError
        If a feature is no STAC Item.
    """
    for feature in features:
        try:
            item = pystac.Item.from_dict(feature, migrate=False, preserve_dict=False)
        except (KeyError, ValueError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
            raise SearchError(base, f"holds a feature that is no STAC Item ({error})", "Check --stac") from None
        yield detached(item, base)


def detached(item: pystac.Item, base: str) -> pystac.Item:
    """Make the asset hrefs of an item absolute, without secrets, and keep no link but its own; see `from_features`."""
    link = item.get_single_link(pystac.RelType.SELF)
    # As it is written: pystac would take a relative one for a path from the folder the user is in.
    own = make_absolute_href(str(link.target), make_absolute_href(base)) if link else None
    start = own if own and is_absolute_href(own) else make_absolute_href(base)
    for key, asset in list(item.assets.items()):
        # A path from the root is this machine's where the catalogue is, wherever the item says that it lived.
        if "://" not in asset.href and not (Path(asset.href).is_absolute() and "://" not in base):
            asset.href = urljoin(start, asset.href) if "://" in start else make_absolute_href(asset.href, start)
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


def _unsigned(content: Any, base: str) -> Any:
    """Take signatures and passwords out of hrefs, however deep: an asset may have alternates."""
    if isinstance(content, list):
        return [_unsigned(each, base) for each in content]
    if not isinstance(content, dict):
        return content
    out = {key: _unsigned(value, base) for key, value in content.items()}
    href = out.get("href")
    if isinstance(href, str) and (bare := unsigned(href)) != href:
        out["href"] = bare
        if endpoint(bare) is None:
            _tell_of_signatures(base, urlsplit(bare).netloc)
    return out


@lru_cache(maxsize=64)
def _tell_of_signatures(base: str, host: str) -> None:
    """Warn of a catalogue that links to a host, once."""
    log.warning(
        "%s: links to %s come with a signature or a password, which is left out: it is secret and runs out. Unless the "
        "files are open to all, name who gives tokens for them by --tokens ([read] tokens), or give s3:// links and "
        "keys in the environment", base, host,
    )  # fmt: skip
