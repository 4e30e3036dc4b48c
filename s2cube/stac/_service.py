"""A STAC API as its landing page describes it, and as it really behaves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pystac
from pystac_client import Client

from s2cube.errors import SearchError
from s2cube.stac._document import Document
from s2cube.stac._question import Form
from s2cube.stac._refusal import AnswerError
from s2cube.stac.catalogue_io import CatalogueIO, Request, as_safe

_MOST_PAGES = 100
"""Pages of a list of collections."""
_BROKEN = "Report it to the operator of the catalogue"

_CONFORMANCE = {"COLLECTIONS": {"collections"}, "FEATURES": {"ogcapi-features"}, "SORT": {"item-search#sort"}}
"""Ends of conformance classes, of any version, by pystac-client's names of them."""


@dataclass
class Api:
    """A STAC API that can be searched.

    Parameters
    ----------
    stac
        Its address, as the user gave it.
    client
        Knows the conformance classes, and the addresses of search and collections, also if the landing page writes
        them in a form that pystac-client does not read.
    addresses
        Addresses of search, by HTTP method.
    collections
        Address of the list of collections; None if there is none.
    form
        The form of questions. Every answer may change it.
    """

    stac: str
    io: CatalogueIO
    client: Client
    addresses: dict[str, str]
    collections: str | None
    form: Form

    @classmethod
    def of(cls, stac: str, root: Document, io: CatalogueIO) -> Self:
        """Read a landing page.

        Raises
        ------
        SearchError
            If it is malformed, or announces no search.
        """
        conforms = _conforms_to(root)
        links = root.links("search")
        if "item-search" not in conforms and (conforms or not links):
            raise SearchError(
                stac, "cannot be searched: it does not announce item search", "Give another --stac, or a file of items"
            )
        addresses = {str(link.get("method")).upper(): as_safe(root.address, root.target(link)) for link in links}
        any_method = next(iter(addresses.values()), _below(root.address, "search"))
        methods = ("GET", "POST") if set(addresses) == {"GET"} else ("POST", "GET")
        addresses = {method: addresses.get(method, any_method) for method in methods}
        data = root.links("data")
        listing = as_safe(root.address, root.target(data[0])) if data else _below(root.address, "collections")
        client = Client("api", "", href=root.address)
        client.set_conforms_to([])
        for name, ends in _CONFORMANCE.items():
            if conforms & ends:
                client.add_conforms_to(name)
        client.add_conforms_to("ITEM_SEARCH")
        for method, address in addresses.items():
            link = pystac.Link("search", address, pystac.MediaType.GEOJSON, extra_fields={"method": method})
            client.add_link(link)
        lists = any(client.conforms_to(part) for part in ("COLLECTIONS", "FEATURES"))
        form = Form(methods, is_sorted=client.conforms_to("SORT"))
        return cls(stac, io, client, addresses, listing if lists else None, form)

    def collection(self, name: str) -> dict[str, Any] | None:
        """Read a collection; None if no collection has that name; empty if the API does not list collections.

        Raises
        ------
        SearchError
            If the API gives no answer.
        """
        if self.collections is None:
            return {}
        try:
            # Not `Client.get_collection`: it warns or fails where a collection lacks a member.
            return self.io.read(Request(f"{self.collections.rstrip('/')}/{quote(name, safe='')}")).content
        except AnswerError as error:
            if error.status != 404:
                raise
        return {} if name in self.collection_names() else None

    def collection_names(self) -> list[str]:
        """Give the ids of all collections, sorted.

        Raises
        ------
        SearchError
            If the API does not give them.
        """
        return sorted({name for document in self._listing() for name in _names(document)})

    def _listing(self) -> Iterator[Document]:
        address = self.collections
        for _ in range(_MOST_PAGES):
            if address is None:
                return
            document = self.io.read(Request(address))
            yield document
            following = document.links("next")
            address = as_safe(document.address, document.target(following[0])) if following else None


def _conforms_to(root: Document) -> set[str]:
    """Give the ends of the API's conformance classes, of any version: ``item-search#sort``."""
    names = root.content.get("conformsTo", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SearchError(root.address, "has a conformsTo that is not a list of names", _BROKEN)
    return {name.rpartition("/")[2] for name in names}


def _names(document: Document) -> list[str]:
    collections = document.content.get("collections")
    if not isinstance(collections, list) or not all(isinstance(each, dict) for each in collections):
        raise SearchError(document.address, "has collections that are not a list of objects", _BROKEN)
    return [str(each.get("id")) for each in collections]


def _below(address: str, name: str) -> str:
    parts = urlsplit(address)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", query="", fragment="").geturl()
