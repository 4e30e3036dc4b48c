"""Read a static catalogue: files that link to each other."""

from collections.abc import Iterator
from typing import Any

import pystac

from s2cube.errors import SearchError
from s2cube.stac._document import Document, is_on_web
from s2cube.stac._items import from_features
from s2cube.stac.catalogue_io import CatalogueIO, Request

_MOST_FILES = 100_000
"""Maximum number of files. They are read one by one, about 20 per second, so this takes more than an hour. A larger
catalogue needs an API."""
_DEEPEST = 50
"""Maximum number of levels of nested catalogues. A catalogue by tile, year, month and day has six levels."""
_REPORT_IT = "Report it to the operator of the catalogue"


def items_below(root: Document, io: CatalogueIO) -> Iterator[pystac.Item]:
    """Yield the items of a catalogue or collection and of all catalogues below it. Read each file once.

    Raises
    ------
    SearchError
        If the target of a link is missing or has a wrong type. If a document on the network links to a file on this
        machine. If a catalogue contains itself. If there are more than 100,000 files or 50 levels.
    """
    yield from _Walk(io, root.address).below(root, ())


class _Walk:
    def __init__(self, io: CatalogueIO, root: str) -> None:
        self._io = io
        self._root = root
        self._read: set[str] = set()

    def below(self, catalogue: Document, above: tuple[str, ...]) -> Iterator[pystac.Item]:
        if len(above) > _DEEPEST:
            raise SearchError(catalogue.address, f"is nested in more than {_DEEPEST} catalogues", _REPORT_IT)
        if catalogue.address in above:
            raise SearchError(catalogue.address, "is nested in itself", _REPORT_IT)
        path = (*above, catalogue.address)
        for item in self._linked(catalogue, "item", ("Feature",)):
            # The link ``self`` of the item may be wrong. Its hrefs are relative to the address that it was read from.
            own: dict[str, Any] = {"rel": "self", "href": item.address}
            base = self._root if is_on_web(self._root) == is_on_web(item.address) else item.address
            yield from from_features([item.content | {"links": [own]}], base)
        for child in self._linked(catalogue, "child", ("Catalog", "Collection"), path):
            yield from self.below(child, path)

    def _linked(
        self, catalogue: Document, relation: str, types: tuple[str, ...], above: tuple[str, ...] = ()
    ) -> Iterator[Document]:
        for link in catalogue.links(relation):
            address = catalogue.target(link)
            if address in above:
                raise SearchError(catalogue.address, f"is nested in itself: its child is {address}", _REPORT_IT)
            if address in self._read:
                continue
            if len(self._read) == _MOST_FILES:
                raise SearchError(catalogue.address, f"is in a catalogue of more than {_MOST_FILES} files", _REPORT_IT)
            self._read.add(address)
            document = self._open(catalogue, address)
            if document.content.get("type", types[0]) not in types:
                problem = f"has a broken link: {address} is not a {' or '.join(types)}"
                raise SearchError(catalogue.address, problem, _REPORT_IT)
            yield document

    def _open(self, catalogue: Document, address: str) -> Document:
        try:
            return self._io.read(Request(address))
        except SearchError as error:
            problem = f"has a broken link: {error.subject} {error.problem}"
            raise SearchError(catalogue.address, problem, error.remedy) from None
