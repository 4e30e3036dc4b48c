"""STAC APIs for tests. They can be configured to give wrong answers."""

import json
import socketserver
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pystac
import shapely
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from support import servers

CONFORMS = [f"https://api.stacspec.org/v1.0.0/{part}" for part in ("core", "item-search", "item-search#sort")]
EVERYWHERE = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))

_Test = Callable[[dict[str, Any]], bool]


def scenes_like(item: dict[str, Any], number: int, apart: timedelta = timedelta(hours=8)) -> list[dict[str, Any]]:
    """Make scenes of one place, with a constant interval, beginning on 2024-01-01."""
    return [
        item
        | {
            "id": f"scene{position:04}",
            "links": [],
            "properties": {"datetime": f"{datetime(2024, 1, 1, tzinfo=UTC) + position * apart:%Y-%m-%dT%H:%M:%S.%fZ}"},
        }
        for position in range(number)
    ]


@dataclass
class Asked:
    """A search request that the server has received."""

    method: str
    path: str
    question: dict[str, Any]
    headers: dict[str, str]


class FakeApi:
    """Filters by time, area and ids, sorts, and pages by offset. Attributes configure its faults.

    Parameters
    ----------
    path
        Path of its landing page.
    """

    def __init__(self, http: HTTPServer, features: list[dict[str, Any]], path: str = "") -> None:
        self.http, self.features = http, features
        self.root = http.url_for(path or "/").rstrip("/")
        self.path = path
        self.asked: list[Asked] = []
        self.tokens: list[dict[str, Any]] = []
        self.largest = 100
        """Maximum number of scenes per page, for any limit that a client requests."""
        self.heeds: set[str] = {"datetime", "intersects", "bbox", "ids", "sortby"}
        self.count: Callable[[dict[str, Any], int], int | None] = lambda question, there: there
        self.link: Callable[[dict[str, Any], int], Any] = self.by_offset
        self.refuse: Callable[[str, dict[str, Any], list[Any]], Response | None] = lambda method, question, page: None
        self.prefix = b""
        """Bytes at the beginning of every answer."""
        self.landing: dict[str, Any] = {
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "", "conformsTo": CONFORMS,
            "links": [{"rel": "search", "href": f"{self.root}/search", "method": "POST"}],
        }  # fmt: skip
        http.expect_request(path or "/").respond_with_handler(lambda _: self.write(self.landing))
        http.expect_request(f"{path}/search").respond_with_handler(self.search)

    def by_offset(self, question: dict[str, Any], following: int) -> dict[str, Any]:
        return {"method": "POST", "href": f"{self.root}/search", "body": {**question, "offset": following}}

    def by_token(self, question: dict[str, Any], following: int) -> str:
        """Store the question, like servers whose links to the next page contain only a token."""
        self.tokens.append({**question, "offset": following})
        return f"token={len(self.tokens) - 1}"

    def search(self, request: Request) -> Response:
        question: dict[str, Any] = dict(request.args) | (request.json if request.method == "POST" else {})
        if "token" in question:
            question = self.tokens[int(question["token"])]
        self.asked.append(Asked(request.method, request.path, question, dict(request.headers)))
        found = list(self.find(question))
        first = int(question.get("offset", 0))
        last = first + min(int(question.get("limit", 10)), self.largest)
        page = found[first:last]
        refused = self.refuse(request.method, question, page)
        if refused:
            return refused
        content: dict[str, Any] = {"type": "FeatureCollection", "features": page, "links": []}
        if last < len(found) and (link := self.link(question, last)):
            content["links"] = link if isinstance(link, list) else [{"rel": "next", **link}]
        if (count := self.count(question, len(found))) is not None:
            content["numberMatched"] = count
        return self.write(content)

    def write(self, content: dict[str, Any]) -> Response:
        return Response(self.prefix + json.dumps(content).encode(), content_type="application/geo+json")

    def find(self, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        found = self.features
        for name, test in (("datetime", _in_time), ("intersects", _in_area), ("bbox", _in_box), ("ids", _in_ids)):
            if name in self.heeds and question.get(name):
                meets = test(question[name])
                found = [each for each in found if meets(each)]
        rules = question.get("sortby") or []
        if isinstance(rules, str):
            rules = [{"field": each[1:], "direction": "desc" if each[0] == "-" else "asc"} for each in rules.split(",")]
        for rule in reversed(rules if "sortby" in self.heeds else []):
            found = sorted(found, key=lambda each: _value(each, rule["field"]), reverse=rule["direction"] == "desc")
        return iter(found)

    @property
    def limits(self) -> list[int]:
        return [int(each.question["limit"]) for each in self.asked]


def _value(feature: dict[str, Any], name: str) -> Any:
    return feature["properties"]["datetime"] if name == "properties.datetime" else feature[name]


def _in_time(text: str) -> _Test:
    start, _, end = text.partition("/")
    first = datetime.min.replace(tzinfo=UTC) if start == ".." else datetime.fromisoformat(start)
    last = datetime.max.replace(tzinfo=UTC) if end == ".." else datetime.fromisoformat(end)
    return lambda feature: first <= datetime.fromisoformat(feature["properties"]["datetime"]) <= last


def _in_area(area: Any) -> _Test:
    shape = shapely.geometry.shape(json.loads(area) if isinstance(area, str) else area)
    return lambda feature: bool(shapely.geometry.shape(feature["geometry"]).intersects(shape))


def _in_box(box: Any) -> _Test:
    shape = shapely.box(*map(float, box.split(",") if isinstance(box, str) else box))
    return lambda feature: bool(shapely.geometry.shape(feature["geometry"]).intersects(shape))


def _in_ids(ids: list[str] | str) -> _Test:
    wanted = ids.split(",") if isinstance(ids, str) else ids
    return lambda feature: feature["id"] in wanted


class Server:
    """A STAC API that ignores the question. Tests can add faults."""

    def __init__(self, http: HTTPServer, features: list[dict[str, Any]]) -> None:
        self.http, self.features = http, features
        self.url = http.url_for("/").rstrip("/")
        self.faults: list[Response] = []
        self.searches = 0
        self.posts = True
        conforms = [f"https://api.stacspec.org/v1.0.0/{part}" for part in ("core", "item-search", "collections")]
        self.root = {
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "", "conformsTo": conforms,
            "links": [
                {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
                {"rel": "data", "href": f"{self.url}/collections"},
            ],
        }  # fmt: skip
        self.collection = pystac.Collection("sentinel-2-l2a", "x", EVERYWHERE).to_dict()
        http.expect_request("/").respond_with_handler(lambda _: Response(json.dumps(self.root)))
        http.expect_request("/collections/sentinel-2-l2a").respond_with_handler(
            lambda _: Response(json.dumps(self.collection))
        )
        http.expect_request("/search").respond_with_handler(self.search)

    def search(self, request: Request) -> Response:
        """Return pages of two scenes; ignore the question."""
        self.searches += 1
        if request.method == "POST" and not self.posts:
            return Response("no", status=405)
        if self.faults:
            return self.faults.pop(0)
        asked = request.json if request.method == "POST" else request.args
        first = int(asked.get("first", 0))
        return self.page(self.features[first : first + 2], first + 2)

    def page(self, features: list[dict[str, Any]], following: int) -> Response:
        page: dict[str, Any] = {"type": "FeatureCollection", "features": features, "links": []}
        if following < len(self.features):
            # An empty page also has a link to the next page, as in catalogues that filter after paging.
            link = {"rel": "next", "href": f"{self.url}/search?turn={len(features)}"}
            body = {"method": "POST", "body": {"first": following}} if self.posts else {}
            link |= body or {"href": f"{self.url}/search?first={following}"}
            page["links"].append(link)
        return Response(json.dumps(page), content_type="application/geo+json")


@contextmanager
def raw_server(answer: Callable[[bytes], Iterable[bytes]]) -> Iterator["RawServer"]:
    """Serve raw bytes in pieces. The time between pieces is that of the iterator.

    Parameters
    ----------
    answer
        Yields the pieces for the first line of a request.
    """
    with servers.served(RawServer(("127.0.0.1", 0), answer)) as server:
        yield server


class RawServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], answer: Callable[[bytes], Iterable[bytes]]) -> None:
        super().__init__(address, _RawHandler)
        self.answer = answer
        self.url = "http://{}:{}".format(*self.server_address[:2])
        self.asked = 0
        self.sent_bytes = 0


class _RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        first = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        self.server.asked += 1
        try:
            for piece in self.server.answer(first):
                self.wfile.write(piece)
                self.server.sent_bytes += len(piece)
        except OSError:
            pass
