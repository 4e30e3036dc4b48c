"""An address becomes items: a STAC API, an ItemCollection, a static catalogue, stac-geoparquet."""

import json
import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pystac
from pystac.utils import is_absolute_href, make_absolute_href

from s2cube.errors import OutputError, SearchError
from s2cube.remote import REMOTE_SCHEMES, is_remote
from s2cube.sign import endpoint, unsigned
from s2cube.stac_io import patient_io

if TYPE_CHECKING:
    from pystac_client import Client, ItemSearch
    from pystac_client.stac_api_io import StacApiIO

log = logging.getLogger(__name__)

_PARQUET = (".parquet", ".geoparquet")
_JSON = (".json", ".geojson")


def open_source(stac: str) -> "Client | Iterator[pystac.Item]":
    """Open an address: a client of an API, that can be asked, or the items of anything else.

    Items stand for themselves: with absolute asset hrefs, and no link but their own to the catalogue.

    Raises
    ------
    SearchError
        If it cannot be read or is no STAC; while items are taken too.
    """
    if stac.endswith(_PARQUET):
        return _from_geoparquet(stac)
    io = patient_io()
    root = _read(io, stac)
    relations = {link.get("rel") for link in root.get("links", [])}
    match root.get("type"):
        case "Catalog" if "conformsTo" in root or "search" in relations:
            from pystac_client import Client

            return Client.open(stac, stac_io=io)
        case "FeatureCollection" | "Collection" if relations & {"next", "items"} and not relations & {"item", "child"}:
            raise SearchError(stac, "is a part of a STAC API", "Give its root by --stac, and --collection")
        case "FeatureCollection" | "Feature":
            return _from_features(root.get("features", []) if "features" in root else [root], stac)
        case "Catalog" | "Collection":
            return _from_static(root, io, stac)
    raise SearchError(stac, "is no STAC catalogue, API or ItemCollection", "Check --stac")


def pages(search: "ItemSearch", stac: str) -> Iterator[pystac.Item]:
    """Take the items of every page that an API has for a question.

    pystac-client takes a page without features for the last one; a page is the last one when it has no next.

    Raises
    ------
    SearchError
        If a page cannot be had or is none, or leads back to one that was there.
    """
    io = search._stac_io
    page = io.read_json(search.url, method=search.method, parameters=search.get_parameters())
    seen: set[str] = set()
    while True:
        if not isinstance(page, dict) or not isinstance(page.get("features"), list):
            raise SearchError(stac, "answers a search with something that is no page of items", "Try again later")
        yield from _from_features(page["features"], stac)
        following = next((link for link in page.get("links", []) if link.get("rel") == "next"), None)
        if following is None:
            return
        ticket = json.dumps([following.get("href"), following.get("body")], sort_keys=True)
        if ticket in seen:
            raise SearchError(stac, "leads from page to page in a circle", "Tell whoever runs the catalogue")
        seen.add(ticket)
        page = io.read_json(pystac.Link.from_dict(following), parameters=search.get_parameters())


def save_items(items: Iterable[pystac.Item], path: Path) -> None:
    """Write scenes as an ItemCollection (``.json``, ``.geojson``) or as stac-geoparquet (``.parquet``).

    Raises
    ------
    OutputError
        If the name ends otherwise or the file cannot be written.
    SearchError
        If the package that writes stac-geoparquet is not installed.
    """
    if path.suffix not in _PARQUET + _JSON:
        raise OutputError(str(path), "is no format for scenes", "End the name in .geojson or .parquet")
    content = pystac.ItemCollection(items).to_dict()
    arrow = _geoparquet(str(path)) if path.suffix in _PARQUET else None
    try:
        if arrow:
            arrow.to_parquet(arrow.parse_stac_items_to_arrow(content["features"]), path)
        else:
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror or error})", "Choose another name") from None


def _read(io: "StacApiIO", stac: str) -> dict[str, Any]:
    from pystac_client.exceptions import APIError

    try:
        root = io.read_json(stac)
    except APIError as error:
        # pystac-client sets a status only where there was an answer.
        status = getattr(error, "status_code", None)
        cause = getattr(error.__context__, "args", ()) or (error,)
        problem = f"answers {status}" if status else f"does not answer ({getattr(cause[0], 'reason', cause[0])})"
        raise SearchError(stac, problem, "Check --stac and the network") from None
    except OSError as error:
        raise SearchError(stac, f"cannot be read ({error.strerror})", "Check --stac") from None
    except ValueError:
        raise SearchError(stac, "answers something that is not JSON", "Check --stac: it must be a STAC") from None
    if not isinstance(root, dict):
        raise SearchError(stac, "is JSON but no STAC", "Check --stac")
    return root


def _from_features(features: list[dict[str, Any]], base: str) -> Iterator[pystac.Item]:
    for feature in features:
        try:
            item = pystac.Item.from_dict(feature, migrate=False, preserve_dict=False)
        except (KeyError, ValueError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
            raise SearchError(base, f"holds a feature that is no STAC Item ({error})", "Check --stac") from None
        yield _detached(item, base)


def _from_static(root: dict[str, Any], io: "StacApiIO", base: str) -> Iterator[pystac.Item]:
    from pystac.stac_io import DefaultStacIO
    from pystac_client.exceptions import APIError

    class StaticIO(DefaultStacIO):
        """Read as patiently as an API, but make plain pystac of it."""

        def read_text(self, source: Any, *_: Any, **__: Any) -> str:
            return io.read_text(source)

    try:
        kind = pystac.Collection if root["type"] == "Collection" else pystac.Catalog
        catalog = kind.from_dict(root, href=make_absolute_href(base))
        catalog._stac_io = StaticIO()
        for item in catalog.get_items(recursive=True):
            yield _detached(item.clone(), base)
    except (APIError, OSError, KeyError, ValueError, pystac.STACError, pystac.STACTypeError) as error:
        raise SearchError(base, f"has a broken link ({error})", "Check the catalogue") from error


def _from_geoparquet(path: str) -> Iterator[pystac.Item]:
    arrow = _geoparquet(path)
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        yield from _from_features(list(arrow.stac_table_to_items(table)), path)
    except (OSError, pyarrow.ArrowException) as error:
        raise SearchError(path, f"cannot be read as stac-geoparquet ({error})", "Check --stac") from None


def _geoparquet(path: str) -> Any:
    try:
        import stac_geoparquet.arrow
    except ImportError:
        raise SearchError(
            path, "wants the package stac-geoparquet", "Install it: pip install 's2cube[geoparquet]'"
        ) from None
    return stac_geoparquet.arrow


def _detached(item: pystac.Item, base: str) -> pystac.Item:
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
