"""A search gives every scene that there is, or an error: whatever servers do with pages, counts and links."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import shapely
from odc.geo.geom import Geometry
from pytest_httpserver import HTTPServer
from werkzeug import Request as Asked
from werkzeug import Response

import s2cube
from s2cube.area.aoi import AOI
from s2cube.demo.archive import Archive
from s2cube.errors import SearchError
from s2cube.fetch.http import Answer
from s2cube.stac.api import Api
from s2cube.stac.api_search import search_api
from s2cube.stac.catalogue_io import Request, _redirected, is_same_server, keep_https
from s2cube.stac.question import Form, Question
from s2cube.stac.source import open_source
from support.apis import FakeApi, scenes_like
from support.runs import CommandLine

pytestmark = pytest.mark.usefixtures("new_session")

MANY = 250


@pytest.fixture
def farm(archive: Archive) -> AOI:
    return s2cube.read_aoi(archive.aoi)


@pytest.fixture
def api(httpserver: HTTPServer, archive_items: list[dict[str, Any]]) -> FakeApi:
    return FakeApi(httpserver, scenes_like(archive_items[0], MANY))


@pytest.fixture
def other_server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server
        server.clear()


def found(api: FakeApi, farm: AOI, **settings: Any) -> list[str]:
    return [item.id for item in s2cube.search(farm, stac=api.root, **settings)]


def names(number: int = MANY) -> list[str]:
    return [f"scene{position:04}" for position in range(number)]


def told(question: dict[str, Any], there: int) -> int | None:
    return there


def untold(question: dict[str, Any], there: int) -> int | None:
    return None


class TestCompleteness:
    @pytest.mark.slow
    @pytest.mark.parametrize("count", [told, untold])
    @pytest.mark.parametrize("largest", [100, 64, 20])
    @pytest.mark.parametrize("order", ["newest first", "oldest first", "any"])
    def test_the_link_to_the_next_page_is_forgotten(
        self, api: FakeApi, farm: AOI, count: Any, largest: int, order: str
    ) -> None:
        api.link, api.count, api.largest = (lambda *_: None), count, largest
        if order != "newest first":
            api.heeds.remove("sortby")
        if order == "any":
            random.Random(1).shuffle(api.features)
        assert found(api, farm) == names()
        # The farm lies at 98 degrees west: its days begin at 06:33 UTC.
        assert found(api, farm, datetime="2024-01-02/2024-02-20") == names()[4:154]

    def test_the_third_of_three_links_is_forgotten(self, api: FakeApi, farm: AOI) -> None:
        api.count = untold
        api.link = lambda question, following: None if following > 150 else api.by_offset(question, following)
        assert found(api, farm) == names()

    def test_it_costs_nothing_where_the_count_is_right(self, api: FakeApi, farm: AOI) -> None:
        assert found(api, farm) == names()
        assert len(api.asked) == 3

    def test_it_costs_one_page_where_nothing_is_counted_and_the_last_page_is_full(
        self, api: FakeApi, farm: AOI
    ) -> None:
        api.features, api.count = api.features[:200], untold
        assert found(api, farm) == names(200)
        assert len(api.asked) == 3
        assert api.asked[-1].question["datetime"] == "../2024-01-01T00:00:00Z"

    @pytest.mark.parametrize("link", [True, False])
    def test_fewer_than_it_counts(
        self, s2cube_command: CommandLine, api: FakeApi, archive: Archive, link: bool
    ) -> None:
        api.features, api.count = api.features[:100], lambda *_: MANY
        if not link:
            api.link = lambda *_: None
        done = s2cube_command("search", "--stac", api.root, "--aoi", archive.aoi, "--json")
        assert done.status == 1
        assert "returns 100 scenes, but counts 250" in done.err
        assert len(api.asked) < 100

    def test_context_counts_too(self, api: FakeApi, farm: AOI) -> None:
        """The older member, of STAC API's context extension."""
        api.features = api.features[:7]
        answer = api.search

        def with_context(request: Asked) -> Response:
            page = json.loads(answer(request).get_data())
            page |= {"context": {"matched": page.pop("numberMatched") + 1, "returned": 7}}
            return Response(json.dumps(page))

        api.http.handlers.pop()
        api.http.expect_request("/search").respond_with_handler(with_context)
        with pytest.raises(SearchError, match="returns 7 scenes, but counts 8"):
            found(api, farm)

    def test_an_estimated_count_is_put_right_by_those_of_its_parts(self, api: FakeApi, farm: AOI) -> None:
        api.count = lambda question, there: there + 40 if there > 200 else there
        assert found(api, farm) == names()

    def test_a_count_of_a_thousand_digits(self, api: FakeApi, farm: AOI) -> None:
        api.features, api.count = api.features[:7], lambda *_: 10**1000
        with pytest.raises(SearchError, match="returns 7 scenes, but counts 1000000000\\."):
            found(api, farm)

    @pytest.mark.parametrize("count", ["250", 250.5, True, None, -1, [250]])
    def test_a_count_that_is_none(self, api: FakeApi, farm: AOI, count: Any) -> None:
        api.features, api.count = api.features[:7], lambda *_: count
        assert found(api, farm) == names(7)

    def test_a_count_that_ends_at_ten_thousand(self, api: FakeApi, farm: AOI, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("s2cube.stac._completeness._COUNTED_UP_TO", 100)
        api.count = lambda question, there: min(there, 100)
        api.link = lambda *_: None
        assert found(api, farm) == names()

    def test_a_scene_that_is_listed_and_counted_twice(self, api: FakeApi, farm: AOI) -> None:
        api.features = [*api.features[:7], api.features[6]]
        items = list(search_api(open_source(api.root), Question(api.root, "sentinel-2-l2a", farm.geometry_lonlat)))  # type: ignore[arg-type]
        assert [item.id for item in items] == names(7)[::-1]

    def test_other_scenes_of_one_id_are_scenes(self, api: FakeApi, farm: AOI) -> None:
        twin = json.loads(json.dumps(api.features[3]))
        twin["properties"]["datetime"] = "2024-03-01T00:00:00Z"
        api.features = [*api.features[:7], twin]
        assert found(api, farm) == [*names(7), "scene0003"]

    @pytest.mark.parametrize("takes_id", [True, False])
    def test_a_scene_is_lost_where_pages_meet(self, api: FakeApi, farm: AOI, takes_id: bool) -> None:
        """As at Earth Search: its next pages begin after the sorted fields of the last scene, without a tie-breaker."""
        pair = api.features[MANY - 100]
        pair["properties"]["datetime"] = api.features[MANY - 101]["properties"]["datetime"]
        fields: list[str] = []

        def after_the_last(question: dict[str, Any], following: int) -> dict[str, Any]:
            matching = list(api.find(question))
            fields[:] = [rule["field"] for rule in question.get("sortby") or [{"field": "properties.datetime"}]]
            rank = [[key(each, field) for field in fields] for each in matching]
            following = next(place for place, each in enumerate(rank) if each < rank[following - 1])
            return api.by_offset(question, following)

        def key(feature: dict[str, Any], field: str) -> str:
            return str(feature["properties"]["datetime"] if "datetime" in field else feature["id"])

        def refuse(method: str, question: dict[str, Any], page: Any) -> Response | None:
            has_id = any(rule["field"] == "id" for rule in question.get("sortby", []))
            return Response("cannot sort by id", status=400) if has_id and not takes_id else None

        api.features.reverse()
        api.link, api.refuse = after_the_last, refuse
        assert found(api, farm) == names()
        assert fields == (["properties.datetime", "id"] if takes_id else ["properties.datetime"])
        assert (len(api.asked) == 3) == takes_id


class TestLargePages:
    @pytest.mark.slow
    @pytest.mark.parametrize("status", [413, 500, 502, 504])
    def test_a_page_that_is_too_large_for_the_server(self, api: FakeApi, farm: AOI, status: int) -> None:
        api.refuse = lambda method, question, page: Response("no", status=status) if len(page) > 50 else None
        assert found(api, farm) == names()
        assert api.limits == sorted(api.limits, reverse=True)
        assert api.limits.count(50) == 5
        # And it is not forgotten.
        api.asked.clear()
        catalogue = open_source(api.root)
        for _ in range(2):
            assert len(list(search_api(catalogue, Question(api.root, "x", farm.geometry_lonlat)))) == MANY  # type: ignore[arg-type]
        assert set(api.limits[-5:]) == {50}

    def test_a_later_page_that_is_too_large(self, api: FakeApi, farm: AOI) -> None:
        heavy = {"scene0010", "scene0011", "scene0012", "scene0013"}
        api.refuse = lambda method, question, page: (
            Response("no", status=502) if len(heavy & {each["id"] for each in page}) > 3 and len(page) > 30 else None
        )
        assert found(api, farm) == names()
        assert min(api.limits) == 25

    def test_the_scenes_are_too_large(self, api: FakeApi, farm: AOI) -> None:
        api.refuse = lambda method, question, page: Response("too much", status=504)
        with pytest.raises(SearchError, match=r"during the search \(answers 504 \(too much\)\)\. Try again later"):
            found(api, farm)
        assert set(api.limits) == {100, 50, 25, 12, 6, 3, 1}
        assert len(api.limits) == 6 + 2 * 6

    def test_a_server_that_refuses_a_hundred(self, api: FakeApi, farm: AOI) -> None:
        api.refuse = lambda method, question, page: (
            Response("limit must be 1 to 20", status=400) if question["limit"] > 20 else None
        )
        assert found(api, farm) == names()


class TestLinks:
    @pytest.mark.parametrize("href", ["/stac/search?", "./search?", "search?", "?"])
    def test_relative_to_the_answer(self, httpserver: HTTPServer, api: FakeApi, farm: AOI, href: str) -> None:
        stac = FakeApi(httpserver, api.features[:150], "/stac")
        stac.landing["links"][0]["href"] = "./stac/search"
        stac.link = lambda question, following: {"href": href + stac.by_token(question, following)}
        assert found(stac, farm) == names(150)
        assert [each.method for each in stac.asked] == ["POST", "GET"]

    def test_relative_to_where_a_redirect_led(self, httpserver: HTTPServer, api: FakeApi, farm: AOI) -> None:
        stac = FakeApi(httpserver, api.features[:150], "/v2/stac")
        stac.landing["links"][0]["href"] = "./stac/find"
        for old, new in (("/v1", "/v2/stac"), ("/v2/stac/find", "/v2/stac/search")):
            httpserver.expect_request(old).respond_with_data("", status=308, headers={"Location": new})
        stac.link = lambda question, following: {
            "method": "POST",
            "href": "search",
            "body": {**question, "offset": 100},
        }
        assert [item.id for item in s2cube.search(farm, stac=httpserver.url_for("/v1"))] == names(150)

    def test_merged_with_the_question(self, api: FakeApi, farm: AOI) -> None:
        api.link = lambda question, following: {
            "method": "POST", "href": f"{api.root}/search", "merge": True, "body": {"offset": following},
            "headers": {"X-Token": "of-the-server"},
        }  # fmt: skip
        assert found(api, farm) == names()
        assert [each.question["collections"] for each in api.asked] == [["sentinel-2-l2a"]] * 3
        assert [each.headers.get("X-Token") for each in api.asked] == [None, "of-the-server", "of-the-server"]

    def test_how_it_is_sent_is_not_theirs_to_say(self, api: FakeApi, farm: AOI) -> None:
        headers = {
            "Range": "bytes=0-9", "Accept-Encoding": "identity", "content-length": "5", "Transfer-Encoding": "chunked",
            "HOST": "other", "Content-Type": "text/plain", "X-Token": "theirs",
        }  # fmt: skip
        api.link = lambda question, following: {**api.by_offset(question, following), "headers": headers}
        assert found(api, farm) == names()
        assert [each.headers.get("X-Token") for each in api.asked] == [None, "theirs", "theirs"]
        assert {each.headers["Accept-Encoding"] for each in api.asked} == {"gzip, deflate"}
        assert {each.headers["Host"] for each in api.asked} == {urlsplit(api.root).netloc}

    def test_post_without_a_body_asks_the_same(self, api: FakeApi, farm: AOI) -> None:
        api.link = lambda question, following: {"method": "POST", "href": f"{api.root}/search?offset={following}"}
        assert found(api, farm) == names()
        assert [each.question["collections"] for each in api.asked] == [["sentinel-2-l2a"]] * 3

    def test_by_get_and_by_post(self, api: FakeApi, farm: AOI) -> None:
        api.link = lambda question, following: [
            {"rel": "next", "method": "GET", "href": f"{api.root}/gone?offset={following}"},
            {"rel": "next", **api.by_offset(question, following)},
        ]
        assert found(api, farm) == names()

    @pytest.mark.parametrize("page", ["the same", "empty"])
    def test_for_ever(self, api: FakeApi, farm: AOI, page: str) -> None:
        tokens = iter(range(10_000))
        api.count = untold

        def same(request: Asked) -> Response:
            link = {"rel": "next", "method": "GET", "href": f"{api.root}/again?token={next(tokens)}"}
            features = api.features[:5] if page == "the same" else []
            return Response(json.dumps({"type": "FeatureCollection", "features": features, "links": [link]}))

        api.http.expect_request("/again").respond_with_handler(same)
        api.link = lambda *_: {"href": f"{api.root}/again"}
        with pytest.raises(SearchError, match="returns 30 pages without a new scene, and more follow"):
            found(api, farm)
        assert next(tokens) < 40

    @pytest.mark.slow
    @pytest.mark.parametrize("has_links", [True, False])
    @pytest.mark.parametrize("apart_s", [-7, 0])
    def test_new_scenes_for_ever(
        self, api: FakeApi, farm: AOI, monkeypatch: pytest.MonkeyPatch, has_links: bool, apart_s: int
    ) -> None:
        """Of a server that makes them up as it is asked, at one instant or at one after another."""
        monkeypatch.setattr("s2cube.stac._completeness._MOST_PAGES", 50)
        numbers = itertools.count()
        first = datetime(2024, 1, 1, tzinfo=UTC)

        def made_up(request: Asked) -> Response:
            made = []
            for number in itertools.islice(numbers, 100):
                when = {"datetime": f"{first + number * timedelta(seconds=apart_s):%Y-%m-%dT%H:%M:%SZ}"}
                made.append(api.features[0] | {"id": f"x{number}", "properties": when})
            links = [{"rel": "next", "href": f"{api.root}/search?{next(numbers)}"}] if has_links else []
            return Response(json.dumps({"type": "FeatureCollection", "features": made, "links": links}))

        api.http.handlers.pop()
        api.http.expect_request("/search").respond_with_handler(made_up)
        # All that can be asked for beyond an instant is that instant.
        problem = (
            "more than 50 pages, and more follow" if apart_s or has_links else "full pages of new scenes of one instant"
        )
        with pytest.raises(SearchError, match=f"returns {problem}"):
            found(api, farm)
        assert next(numbers) < 5300

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "href", ["http://127.0.0.2:9/search", "file:///etc/passwd", "ftp://host/x", "http://[", "", 5, None]
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_that_may_not_be_followed(self, api: FakeApi, farm: AOI, href: Any, method: str) -> None:
        api.link = lambda *_: {"method": method, "href": href, "body": {"a": 1}}
        with pytest.raises(SearchError, match=rf"{api.root}.*(another server|only link to http|without an address)"):
            found(api, farm)

    @pytest.mark.parametrize(
        "member",
        [
            {"method": "DELETE"},
            {"method": 5},
            {"body": [1], "method": "POST"},
            {"headers": {"a": 1}},
            {"headers": [1]},
            {"headers": {"a": "b\nc"}},
            {"headers": {"a": "€"}},
            {"headers": {"a b": "c"}},
            {"headers": {"": "c"}},
        ],
    )
    def test_that_are_malformed(self, api: FakeApi, farm: AOI, member: Any) -> None:
        api.link = lambda *_: {"href": f"{api.root}/search", **member}
        with pytest.raises(SearchError, match="a link to the next page that cannot be followed"):
            found(api, farm)

    @pytest.mark.parametrize("links", [None, {}, "next", [5], [None], 0])
    def test_that_are_no_list_of_objects(self, api: FakeApi, farm: AOI, links: Any) -> None:
        body = json.dumps({"type": "FeatureCollection", "features": api.features[:3], "links": links})
        api.refuse = lambda *_: Response(body)
        with pytest.raises(SearchError, match=rf"{api.root}/search: has links that are not a list of objects"):
            found(api, farm)

    @pytest.mark.parametrize("features", [None, {}, "x", 5])
    def test_features_that_are_no_list(self, api: FakeApi, farm: AOI, features: Any) -> None:
        api.refuse = lambda *_: Response(json.dumps({"type": "FeatureCollection", "features": features, "links": []}))
        with pytest.raises(SearchError, match=rf"{api.root}/search: .* something that is not a page"):
            found(api, farm)

    @pytest.mark.parametrize(
        ("address", "target", "safe"),
        [
            ("https://h/a", "http://h/b", "https://h/b"),
            ("https://h/a", "http://h:80/b", "http://h:80/b"),
            ("https://h/a", "http://other/b", "http://other/b"),
            ("http://h/a", "http://h/b", "http://h/b"),
        ],
    )
    def test_that_leave_https_by_mistake(self, address: str, target: str, safe: str) -> None:
        assert keep_https(address, target) == safe

    @pytest.mark.parametrize(
        ("address", "target", "same"),
        [
            ("https://h/a", "https://h:443/b", True),
            ("https://H/a", "https://h/b", True),
            ("http://h/a", "https://h/b", True),
            ("http://h:8080/a", "https://h/b", True),
            ("https://h/a", "http://h/b", False),
            ("https://h/a", "https://h:8443/b", False),
            ("https://h/a", "https://h.evil/b", False),
            ("https://h/a", "https://h@evil/b", False),
            ("https://h/a", "file:///b", False),
            ("https://h/a", "https://h:port/b", False),
        ],
    )
    def test_to_the_same_server(self, address: str, target: str, same: bool) -> None:
        assert is_same_server(address, target) is same


class TestRedirects:
    def redirect(self, api: FakeApi, status: int, target: str) -> None:
        api.landing["links"][0]["href"] = f"{api.root}/old"
        api.http.expect_request("/old").respond_with_data("moved", status=status, headers={"Location": target})

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    @pytest.mark.parametrize("target", ["/search", "{root}/search"])
    def test_a_post_goes_on_with_its_question(self, api: FakeApi, farm: AOI, status: int, target: str) -> None:
        self.redirect(api, status, target.format(root=api.root))
        assert found(api, farm, datetime="2024-01-01/2024-01-02") == names(7)[1:]
        assert [each.method for each in api.asked] == ["POST"]
        start, end = map(datetime.fromisoformat, api.asked[0].question["datetime"].split("/"))
        assert (f"{start:%m-%d %H:%M}", f"{end:%m-%d %H:%M}") == ("01-01 06:32", "01-03 06:32")

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_not_to_another_server(self, api: FakeApi, farm: AOI, other_server: HTTPServer, status: int) -> None:
        other = FakeApi(other_server, api.features)
        self.redirect(api, status, f"{other.root}/search")
        with pytest.raises(
            SearchError, match=rf"redirects a search to another server, {other.root}/search \({status}\)"
        ):
            found(api, farm)
        assert other.asked == []

    def test_not_to_an_answer_without_a_question(self, api: FakeApi, farm: AOI) -> None:
        self.redirect(api, 303, "/search")
        with pytest.raises(SearchError, match=r"redirects a search to a GET request.*\(303\)"):
            found(api, farm)
        assert api.asked == []

    def test_in_a_circle(self, api: FakeApi, farm: AOI) -> None:
        self.redirect(api, 307, "/old")
        with pytest.raises(SearchError, match=r"redirects more than 10 times\). Check --stac"):
            found(api, farm)

    @pytest.mark.parametrize("target", ["https://h/new", "http://h/new", "/new"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_https_stays_https(self, method: str, target: str) -> None:
        """Servers behind a proxy do not know that they are asked by https."""
        asked = Request("https://h/old", method, {"limit": 1})
        moved = _redirected(asked, Answer(307, {"Location": target}, b""), target)
        assert moved.address == "https://h/new"
        assert (moved.method, bool(moved.parameters)) == (method, method == "POST")

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_https_is_not_left(self, method: str) -> None:
        target = "http://other/new"
        with pytest.raises(SearchError, match="to another server|or is less secure"):
            _redirected(Request("https://h/old", method), Answer(307, {"Location": target}, b""), target)

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/", "data:,x"])
    def test_of_a_landing_page_to_what_is_not_http(self, httpserver: HTTPServer, farm: AOI, target: str) -> None:
        httpserver.expect_request("/").respond_with_data("", status=302, headers={"Location": target})
        with pytest.raises(SearchError, match=rf"redirects to {target}, which is not an http or https address"):
            s2cube.search(farm, stac=httpserver.url_for("/"))


class TestRefusals:
    @pytest.mark.slow
    @pytest.mark.parametrize("status", [400, 422])
    def test_an_order_that_is_announced_and_refused(
        self, s2cube_command: CommandLine, api: FakeApi, archive: Archive, status: int
    ) -> None:
        api.refuse = lambda method, question, page: (
            Response('{"description": "no sorting today"}', status=status) if "sortby" in question else None
        )
        words = ["search", "--stac", api.root, "--aoi", archive.aoi, "--json"]
        done = s2cube_command(*words)
        assert done.json["scenes"] == names()
        assert "no sorting today" not in done.err
        assert sum("sortby" in each.question for each in api.asked) == 1
        assert "no sorting today" in s2cube_command(*words, "-v").err
        # The oldest come first, but the newest are wanted.
        assert s2cube_command(*words, "--max-items", 2).json["scenes"] == names()[-2:]

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_a_method(self, api: FakeApi, farm: AOI, status: int) -> None:
        del api.landing["links"][0]["method"]
        api.refuse = lambda method, question, page: Response("", status=status) if method == "POST" else None
        api.link = lambda question, following: {"href": f"?{api.by_token(question, following)}"}
        assert found(api, farm) == names()
        assert [each.method for each in api.asked] == ["POST", "GET", "GET", "GET"]

    def test_get_where_only_get_is_named(self, api: FakeApi, farm: AOI) -> None:
        """And POST where that is refused all the same."""
        api.landing["links"][0]["method"] = "GET"
        api.features = api.features[:7]
        assert found(api, farm) == names(7)
        assert [each.method for each in api.asked] == ["GET"]
        api.refuse = lambda method, question, page: (
            Response("must be sent over a POST request", status=400) if method == "GET" else None
        )
        assert found(api, farm) == names(7)
        assert api.asked[-1].method == "POST"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("status", "remedy"),
        [
            (400, "Check --stac, --collection, --datetime and --aoi"), (401, "~/.netrc"), (403, "~/.netrc"),
            (404, "Check --stac"), (410, "Check --stac"), (413, "Give a simpler --aoi"),
            (414, "Give a simpler --aoi"), (429, "Try again later"), (500, "Try again later"),
            (503, "Try again later"), (504, "Try again later"), (300, "Check --stac"),
        ],
    )  # fmt: skip
    def test_what_to_do(self, api: FakeApi, farm: AOI, status: int, remedy: str) -> None:
        api.refuse = lambda *_: Response("because", status=status)
        with pytest.raises(SearchError) as refused:
            found(api, farm)
        assert f"failed during the search (answers {status} (because)). " in str(refused.value)
        assert remedy in refused.value.remedy
        assert ("later" in str(refused.value)) == (remedy == "Try again later")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("<html>" + "x" * 9999, "answers 400)"),
            ("y" * 9999, "answers 400 (" + "y" * 200 + "…))"),
            ("a\x1b[31m\nb", r"answers 400 (a\x1b[31m b))"),
            ('{"detail": [{"loc": ["body"]}]}', 'answers 400 ([{"loc": ["body"]}]))'),
            ("[" * 100_000, "answers 400 ("),
        ],
    )
    def test_what_a_server_says_is_shown_in_short(self, api: FakeApi, farm: AOI, text: str, shown: str) -> None:
        api.refuse = lambda *_: Response(text, status=400)
        with pytest.raises(SearchError) as refused:
            found(api, farm)
        assert shown in str(refused.value)
        assert len(str(refused.value)) < 400


class TestIds:
    @pytest.fixture
    def asks(self, api: FakeApi) -> Callable[..., list[str]]:
        def call(*ids: str) -> list[str]:
            question = Question(api.root, "sentinel-2-l2a", None, ids=ids)
            return [item.id for item in search_api(open_source(api.root), question)]  # type: ignore[arg-type]

        return call

    def test_some_are_there(self, api: FakeApi, asks: Callable[..., list[str]]) -> None:
        assert sorted(asks("scene0003", "gone", "scene0200")) == ["scene0003", "scene0200"]
        assert api.asked[0].question["ids"] == ["scene0003", "gone", "scene0200"]
        assert not {"intersects", "datetime", "bbox"} & api.asked[0].question.keys()
        assert asks("gone") == []

    @pytest.mark.parametrize("largest", [100, 10])
    def test_more_than_a_page(self, api: FakeApi, asks: Callable[..., list[str]], largest: int) -> None:
        """What a server leaves out has not been withdrawn."""
        api.largest, api.link, api.count = largest, (lambda *_: None), untold
        gone = [f"gone{number}" for number in range(130)]
        assert sorted(asks(*gone, *names(210))) == names(210)

    def test_ids_that_are_ignored(self, api: FakeApi, asks: Callable[..., list[str]]) -> None:
        api.heeds.remove("ids")
        with pytest.raises(SearchError, match="returns scenes with other ids than requested"):
            asks("gone")

    def test_fewer_than_it_counts(self, api: FakeApi, asks: Callable[..., list[str]]) -> None:
        api.count = lambda *_: 3
        with pytest.raises(SearchError, match="returns no scene, but counts 3"):
            asks("gone")


class TestAreas:
    """Of an area that is too long for the server a wider one is asked for: the answer is filtered here."""

    @pytest.fixture
    def coast(self, archive: Archive) -> AOI:
        """A star of 10,000 corners round the middle of the archive."""
        x, y = shapely.box(*s2cube.read_aoi(archive.aoi).bounds_lonlat).centroid.coords[0]
        turns = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
        far = np.where(np.arange(10_000) % 2, 0.05, 0.03)
        points = np.column_stack([x + far * np.cos(turns), y + far * np.sin(turns)])
        return AOI("coast", Geometry(shapely.Polygon(points), "EPSG:4326"))

    def asked(self, api: FakeApi, coast: AOI) -> list[str]:
        """Ask for the outline as it is: a server may find one of a hundred corners too long, too."""
        question = Question(api.root, "sentinel-2-l2a", coast.geometry_lonlat)
        source = open_source(api.root)
        assert isinstance(source, Api)
        return sorted(item.id for item in search_api(source, question))

    @pytest.mark.slow
    def test_few_corners_are_asked_for(self, api: FakeApi, coast: AOI) -> None:
        assert found(api, coast) == names()
        asked = api.asked[0].question["intersects"]
        assert len(json.dumps(asked)) < 4000
        assert shapely.geometry.shape(asked).covers(coast.geometry_lonlat.geom)

    @pytest.mark.slow
    def test_by_post_as_it_is(self, api: FakeApi, coast: AOI) -> None:
        assert self.asked(api, coast) == names()
        assert len(api.asked[0].question["intersects"]["coordinates"][0]) == 10_001

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("status", "text"), [(413, "no"), (414, "no"), (431, "no"), (400, "The request body is too large"), (400, "")]
    )
    @pytest.mark.parametrize(("most", "form"), [(9000, "intersects"), (20, "bbox")])
    def test_too_long(self, api: FakeApi, coast: AOI, status: int, text: str, most: int, form: str) -> None:
        def refuse(method: str, question: dict[str, Any], page: Any) -> Response | None:
            points = len(question["intersects"]["coordinates"][0]) if "intersects" in question else 0
            return Response(text, status=status) if points > most else None

        api.refuse = refuse
        assert self.asked(api, coast) == names()
        taken = api.asked[-1].question
        asked = shapely.geometry.shape(taken["intersects"]) if form == "intersects" else shapely.box(*taken["bbox"])
        assert asked.covers(coast.geometry_lonlat.geom)
        assert asked.area < 2.2 * coast.geometry_lonlat.geom.area
        # Only where a server does not say what it refuses is the order doubted, too.
        assert ("sortby" in taken) == bool(text)

    def test_by_get_only(self, api: FakeApi, coast: AOI) -> None:
        api.landing["links"][0]["method"] = "GET"
        api.link = lambda question, following: {"href": f"?{api.by_token(question, following)}"}
        api.refuse = lambda method, question, page: (
            Response("", status=414) if len(json.dumps(question)) > 8000 else None
        )
        assert self.asked(api, coast) == names()
        assert "bbox" in api.asked[-1].question

    def test_across_the_antimeridian(self, api: FakeApi) -> None:
        """The hull of a shape that is cut at 180 degrees is not that of the whole globe."""
        halves = shapely.union_all([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -15)])
        question = Question(api.root, "x", Geometry(halves, "EPSG:4326"))
        form = Form(("POST",), is_sorted=False, outline="hull")
        source = open_source(api.root)
        assert isinstance(source, Api)
        client = source.client
        hull = shapely.geometry.shape(form.request(client, api.root, question).parameters["intersects"])
        assert hull.bounds == (-180, -17, 180, -15)
        assert hull.covers(halves)
        assert hull.area == pytest.approx(3.5)
        box = replace(form, outline="box").request(client, api.root, question).parameters["bbox"]
        assert box == (-180, -17, 180, -15)
        by_get = replace(form, outline="box", methods=("GET",)).request(client, api.root, question).parameters["bbox"]
        assert by_get == "-180.0,-17.0,180.0,-15.0"

    def test_nothing_helps(self, api: FakeApi, coast: AOI) -> None:
        api.refuse = lambda *_: Response("Payload Too Large", status=413)
        with pytest.raises(SearchError) as refused:
            found(api, coast)
        assert str(refused.value) == (
            f"{api.root}: failed during the search (answers 413 (Payload Too Large)). Give a simpler --aoi"
        )
