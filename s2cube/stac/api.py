"""Read the landing page and the collections of a STAC API."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import pystac

from s2cube.errors import SearchError
from s2cube.stac._document import Document
from s2cube.stac._refusal import AnswerError
from s2cube.stac.catalogue_io import CatalogueIO, Request, keep_https
from s2cube.stac.question import Form

if TYPE_CHECKING:
    from pystac_client import Client

_MOST_PAGES = 100
"""Maximum number of pages that are read of a list of collections."""
_REPORT_IT = "Report it to the operator of the catalogue"

_CONFORMANCE = {"COLLECTIONS": {"collections"}, "FEATURES": {"ogcapi-features"}, "SORT": {"item-search#sort"}}
"""Last parts of conformance classes, without the version, by their names in pystac-client."""


@dataclass
class Api:
    """A STAC API that can be searched.

    Parameters
    ----------
    stac
        Address of the API, as the user wrote it.
    io
        Reads the documents of the API.
    client
        pystac-client's object for this API. It only composes requests and does not send them. It is created here,
        because pystac-client cannot read some landing pages.
    addresses
        Addresses for searches, by HTTP method.
    collections
        Address of the list of collections; None if the API does not list collections.
    form
        The form of requests that the API accepts, as far as known. `search_api` changes it if the API refuses a form
        that it announces.
    """

    stac: str
    io: CatalogueIO
    client: "Client"
    addresses: dict[str, str]
    collections: str | None
    form: Form

    @property
    def is_sorted(self) -> bool:
        """Whether searches request the newest scenes first. It becomes False if the API refuses this in a search."""
        return self.form.is_sorted

    @classmethod
    def of(cls, stac: str, root: Document, io: CatalogueIO) -> Self:
        """Read a landing page.

        Raises
        ------
        SearchError
            If the landing page is malformed, or does not announce item search.
        """
        from pystac_client import Client

        conforms = _conforms_to(root)
        links = root.links("search")
        if "item-search" not in conforms and (conforms or not links):
            raise SearchError(
                stac, "cannot be searched: it does not announce item search", "Set another --stac, or a file of items"
            )
        addresses = {str(link.get("method")).upper(): keep_https(root.address, root.target(link)) for link in links}
        any_method = next(iter(addresses.values()), _below(root.address, "search"))
        methods = ("GET", "POST") if set(addresses) == {"GET"} else ("POST", "GET")
        addresses = {method: addresses.get(method, any_method) for method in methods}
        data = root.links("data")
        listing = keep_https(root.address, root.target(data[0])) if data else _below(root.address, "collections")
        client = Client("api", "", href=root.address)
        client.set_conforms_to([])
        for name, last_parts in _CONFORMANCE.items():
            if conforms & last_parts:
                client.add_conforms_to(name)
        client.add_conforms_to("ITEM_SEARCH")
        for method, address in addresses.items():
            link = pystac.Link("search", address, pystac.MediaType.GEOJSON, extra_fields={"method": method})
            client.add_link(link)
        has_list = any(client.conforms_to(part) for part in ("COLLECTIONS", "FEATURES"))
        form = Form(methods, is_sorted=client.conforms_to("SORT"))
        return cls(stac, io, client, addresses, listing if has_list else None, form)

    def collection(self, name: str) -> dict[str, Any] | None:
        """Read a collection; None if no collection has this name; empty if the API does not list collections.

        Raises
        ------
        SearchError
            If the API does not answer.
        """
        if self.collections is None:
            return {}
        try:
            # Do not use `Client.get_collection`: it warns or fails if a collection lacks a member.
            return self.io.read(Request(f"{self.collections.rstrip('/')}/{quote(name, safe='')}")).content
        except AnswerError as error:
            if error.status != 404:
                raise
        return {} if name in self.collection_names() else None

    def collection_names(self) -> list[str]:
        """Return the ids of all collections, sorted.

        Raises
        ------
        SearchError
            If the API does not answer, or answers with something else.
        """
        return sorted({name for document in self._listing() for name in _collection_ids(document)})

    def _listing(self) -> Iterator[Document]:
        address = self.collections
        for _ in range(_MOST_PAGES):
            if address is None:
                return
            document = self.io.read(Request(address))
            yield document
            next_links = document.links("next")
            address = keep_https(document.address, document.target(next_links[0])) if next_links else None


def _conforms_to(root: Document) -> set[str]:
    """Return the last part of each conformance class of the API, such as ``item-search#sort``."""
    names = root.content.get("conformsTo", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SearchError(root.address, "has a conformsTo that is not a list of names", _REPORT_IT)
    return {name.rpartition("/")[2] for name in names}


def _collection_ids(document: Document) -> list[str]:
    collections = document.content.get("collections")
    if not isinstance(collections, list) or not all(isinstance(each, dict) for each in collections):
        raise SearchError(document.address, "has collections that are not a list of objects", _REPORT_IT)
    return [str(each.get("id")) for each in collections]


def _below(address: str, name: str) -> str:
    """Add a name to the path of an address."""
    parts = urlsplit(address)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", query="", fragment="").geturl()
