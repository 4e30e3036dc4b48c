"""Read the pages of an answer: follow the links to the next page."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2cube.errors import SearchError
from s2cube.stac._document import Document
from s2cube.stac.catalogue_io import CatalogueIO, Request, is_same_server, keep_https

_LARGEST_COUNT = 10**9
"""No catalogue has so many scenes. A larger count is reduced to this number, so that messages stay short."""
_MOST_PAGES_WITHOUT_NEW = 30
"""Maximum number of consecutive pages without a new scene. Some servers divide an answer into pages and filter it then,
so a few pages may be empty."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""Name of an HTTP header, RFC 9110."""
_REPORT_IT = "Report it to the operator of the catalogue"


@dataclass(frozen=True)
class Page:
    """One page of an answer.

    Parameters
    ----------
    matched
        Number of scenes in all pages of the answer, as the server counts them; None if it reports no count.
    following
        The request for the next page; None on the last page.
    """

    features: list[Any]
    matched: int | None
    following: Request | None


def read_pages(io: CatalogueIO, question: Request, retries: int) -> Iterator[Page]:
    """Read all pages of an answer.

    Parameters
    ----------
    retries
        Number of retries after answers 500, 502 and 504.

    Raises
    ------
    AnswerError
        If a page cannot be read.
    SearchError
        If an answer is not a page, or if the pages never end.
    """
    requested, known = {_request_key(question)}, set[str]()
    request, without_new = question, 0
    while True:
        page = _page(io.read(request, retries), request, question)
        yield page
        if page.following is None:
            return
        request = page.following
        if _request_key(request) in requested:
            raise SearchError(question.address, "links back to a page that was already read", _REPORT_IT)
        requested.add(_request_key(request))
        found = {identity(feature) for feature in page.features}
        without_new = 0 if found - known else without_new + 1
        known |= found
        if without_new == _MOST_PAGES_WITHOUT_NEW:
            raise SearchError(
                question.address, f"returns {without_new} pages without a new scene, and more follow", _REPORT_IT
            )


def identity(feature: Any) -> str:
    """Return a text that identifies a scene. An id is unique only within a collection, and some servers repeat ids."""
    if not isinstance(feature, Mapping):
        return repr(feature)
    properties = feature.get("properties")
    instant = properties.get("datetime") if isinstance(properties, Mapping) else None
    return repr((feature.get("collection"), feature.get("id"), instant, feature.get("bbox")))


def _request_key(request: Request) -> str:
    return json.dumps([request.method, request.address, request.parameters, request.headers], sort_keys=True)


def _page(document: Document, request: Request, question: Request) -> Page:
    features = document.content.get("features")
    if not isinstance(features, list):
        raise SearchError(
            question.address, "answers a search with something that is not a page of items",
            f"Try again later; if the error persists: {_REPORT_IT[0].lower()}{_REPORT_IT[1:]}",
        )  # fmt: skip
    return Page(features, _matched(document.content), _following(document, request, question))


def _matched(content: dict[str, Any]) -> int | None:
    context = content.get("context")
    values = content.get("numberMatched"), context.get("matched") if isinstance(context, dict) else None
    counts = [each for each in values if isinstance(each, int) and not isinstance(each, bool) and each >= 0]
    return min(counts[0], _LARGEST_COUNT) if counts else None


def _following(document: Document, request: Request, question: Request) -> Request | None:
    """Read the link to the next page, as STAC API - Item Search 1.0 defines it."""
    links = document.links("next")
    if not links:
        return None
    # Some servers offer the next page by GET and by POST.
    link = next((each for each in links if each.get("method", "GET") == request.method), links[0])
    method = link.get("method", "GET")
    body, headers = link.get("body"), link.get("headers") or {}
    if method not in ("GET", "POST") or not isinstance(body, dict | None) or not _are_headers(headers):
        raise SearchError(document.address, "has a link to the next page that cannot be followed", _REPORT_IT)
    address = keep_https(document.address, document.target(link))
    if not is_same_server(document.address, address):
        # The link sets the body and headers of the request. So it must not go to servers that trust this machine.
        raise SearchError(document.address, f"links to its next page on another server, {address[:200]}", _REPORT_IT)
    if link.get("merge"):
        headers = {**question.headers, **headers}
        body = {**question.parameters, **(body or {})}
    if method == "GET":
        return Request(address, headers=headers)
    return Request(address, method, question.parameters if body is None else body, headers)


def _are_headers(headers: object) -> bool:
    if not isinstance(headers, dict) or not all(isinstance(each, str) for each in headers.values()):
        return False
    return all(_HEADER_NAME.fullmatch(name) for name in headers) and all(map(_is_printable, headers.values()))


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()
