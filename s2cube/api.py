"""A STAC API is asked for scenes, page by page."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pystac
from pystac_client import Client, ConformanceClasses

from s2cube.errors import SearchError
from s2cube.items import from_features

if TYPE_CHECKING:
    from odc.geo.geom import Geometry
    from pystac_client import ItemSearch

_PAGE_SIZE = 100


@dataclass(frozen=True)
class Question:
    """Which scenes an API is asked for.

    Parameters
    ----------
    stac
        Address of the API.
    area
        EPSG:4326, by RFC 7946.
    datetime
        RFC 3339 interval; None for all.
    """

    stac: str
    collection: str
    area: "Geometry"
    datetime: str | None = None


def sorts(client: Client) -> bool:
    """Tell whether an API announces that it sorts: then `ask` gives the newest scenes first."""
    return bool(client.conforms_to(ConformanceClasses.SORT))


def ask(client: Client, question: Question) -> Iterator[pystac.Item]:
    """Take the items of every page that an API has for a question; the newest first where it sorts.

    Raises
    ------
    SearchError
        If a page cannot be had or is none, or leads back to one that was there.
    """
    order: dict[str, Any] = {"sortby": "-properties.datetime"} if sorts(client) else {}
    methods = {link.extra_fields.get("method", "GET") for link in client.get_links("search")}
    search = client.search(
        method="POST" if "POST" in methods or not methods else "GET",
        collections=[question.collection],
        intersects=question.area.json,
        datetime=question.datetime,
        limit=_PAGE_SIZE,
        **order,
    )
    return _pages(search, question.stac)


def _pages(search: "ItemSearch", stac: str) -> Iterator[pystac.Item]:
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
        yield from from_features(page["features"], stac)
        following = next((link for link in page.get("links", []) if link.get("rel") == "next"), None)
        if following is None:
            return
        ticket = json.dumps([following.get("href"), following.get("body")], sort_keys=True)
        if ticket in seen:
            raise SearchError(stac, "leads from page to page in a circle", "Tell whoever runs the catalogue")
        seen.add(ticket)
        page = io.read_json(pystac.Link.from_dict(following), parameters=search.get_parameters())
