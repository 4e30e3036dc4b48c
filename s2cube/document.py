"""A JSON document of a catalogue: where it was read, what it holds, where its links lead."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

from s2cube.errors import SearchError
from s2cube.paths import existing_path, is_local, local_path

_WEB = ("http://", "https://")
_BROKEN = "Tell whoever runs the catalogue"
_SHOWN_CHARACTERS = 200
"""So much of an href is shown in an error."""


def is_on_web(address: str) -> bool:
    """Tell whether an address is read by HTTP; every other one is a path of this machine."""
    return address.lower().startswith(_WEB)


@dataclass(frozen=True)
class Document:
    """A JSON object and the address that it was read at in the end, after redirects."""

    address: str
    content: dict[str, Any]

    @classmethod
    def parse(cls, address: str, text: bytes) -> Self:
        """Read JSON in UTF-8, with or without a byte order mark.

        Raises
        ------
        SearchError
            If it is no JSON object, or one that is nested too deeply.
        """
        try:
            content = json.loads(text)
        except RecursionError:
            raise SearchError(address, "is nested too deeply to be a STAC", "Check --stac") from None
        except ValueError:
            raise SearchError(
                address, "answers something that is not JSON", "Check --stac: it must be a STAC"
            ) from None
        if not isinstance(content, dict):
            raise SearchError(address, "is JSON but no STAC", "Check --stac")
        return cls(address, content)

    def links(self, relation: str) -> list[dict[str, Any]]:
        """Give the links of a relation.

        Raises
        ------
        SearchError
            If the member ``links`` is no list of JSON objects.
        """
        links = self.content.get("links", [])
        if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
            raise SearchError(self.address, "has links that are no list of objects", _BROKEN)
        return [link for link in links if link.get("rel") == relation]

    def target(self, link: dict[str, Any]) -> str:
        """Give the address that a link leads to: absolute, or a path of this machine.

        A document on the network is not trusted, so it may not name files of this machine.

        Raises
        ------
        SearchError
            If the link has no address, or one that may not be read.
        """
        href = link.get("href")
        if not isinstance(href, str) or not href:
            raise SearchError(self.address, f"has a link '{link.get('rel')}' without an address", _BROKEN)
        if is_on_web(self.address):
            try:
                target = urljoin(self.address, href)
                allowed = is_on_web(target) and bool(urlsplit(target).hostname)
            except ValueError:
                allowed = False
            if not allowed:
                raise SearchError(
                    self.address,
                    f"links to {href[:_SHOWN_CHARACTERS]}: a catalogue on the network may only link to http and https",
                    _BROKEN,
                )
            return target
        if is_on_web(href):
            return href
        if not is_local(href):
            problem = f"links to {href[:_SHOWN_CHARACTERS]}, which is neither a file nor http or https"
            raise SearchError(self.address, problem, _BROKEN)
        return existing_path(os.path.normpath(Path(self.address).parent / local_path(href)))
