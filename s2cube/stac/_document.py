"""Read a JSON document of a catalogue: its address, its content, and the targets of its links."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

from s2cube.errors import SearchError
from s2cube.fetch.addresses import existing_path, is_local, local_path

_HTTP = ("http://", "https://")
_REPORT_IT = "Report it to the operator of the catalogue"
_SHOWN_CHARACTERS = 200
"""Maximum length of an href in an error message."""


def is_on_web(address: str) -> bool:
    """Check whether an address is read by HTTP. Any other address is a path on this machine."""
    return address.lower().startswith(_HTTP)


@dataclass(frozen=True)
class Document:
    """A JSON object and its final address, after redirects: an http address, or a path on this machine."""

    address: str
    content: dict[str, Any]

    @classmethod
    def parse(cls, address: str, text: bytes) -> Self:
        """Read JSON in UTF-8, with or without a byte order mark.

        Raises
        ------
        SearchError
            If the text is not a JSON object, or is nested too deeply.
        """
        try:
            content = json.loads(text)
        except RecursionError:
            raise SearchError(address, "is JSON that is nested too deeply", "Check --stac") from None
        except ValueError:
            raise SearchError(
                address, "returns something that is not JSON", "Check --stac: it must be a STAC document"
            ) from None
        if not isinstance(content, dict):
            raise SearchError(address, "is JSON, but not a STAC document", "Check --stac")
        return cls(address, content)

    def links(self, relation: str) -> list[dict[str, Any]]:
        """Return the links with a relation type, such as ``next``.

        Raises
        ------
        SearchError
            If the member ``links`` is not a list of JSON objects.
        """
        links = self.content.get("links", [])
        if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
            raise SearchError(self.address, "has links that are not a list of objects", _REPORT_IT)
        return [link for link in links if link.get("rel") == relation]

    def target(self, link: dict[str, Any]) -> str:
        """Return the target of a link: an absolute address, or a path on this machine.

        Documents from the network are not trusted: they must not link to files of this machine.

        Raises
        ------
        SearchError
            If the link has no address, or its address is not allowed.
        """
        href = link.get("href")
        if not isinstance(href, str) or not href:
            raise SearchError(self.address, f"has a link '{link.get('rel')}' without an address", _REPORT_IT)
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
                    _REPORT_IT,
                )
            return target
        if is_on_web(href):
            return href
        if not is_local(href):
            problem = f"links to {href[:_SHOWN_CHARACTERS]}, which is neither a file nor an http or https address"
            raise SearchError(self.address, problem, _REPORT_IT)
        return existing_path(os.path.normpath(Path(self.address).parent / local_path(href)))
