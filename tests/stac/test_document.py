"""Documents of a catalogue: what is read, what is refused, and within which bounds."""

import gzip
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import SearchSection
from s2cube.demo.archive import Archive
from s2cube.errors import SearchError
from s2cube.scenes.search import open_catalogue
from s2cube.stac._document import Document
from s2cube.stac.api_search import search_api
from s2cube.stac.catalogue_io import CatalogueIO, Request
from s2cube.stac.question import Question
from s2cube.stac.source import open_source
from support import servers
from support.apis import CONFORMS, FakeApi, raw_server, scenes_like
from support.runs import CommandLine

pytestmark = pytest.mark.usefixtures("new_session")

BOM = b"\xef\xbb\xbf"
DEEP = 200_000
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"


@pytest.fixture
def farm(archive: Archive) -> AOI:
    return s2cube.read_aoi(archive.aoi)


Publish = Callable[[str, Any], str]


@pytest.fixture
def publish(httpserver: HTTPServer) -> Publish:
    """Put a document on the network; gives its address."""

    def call(path: str, content: Any) -> str:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        httpserver.expect_request(f"/{path}").respond_with_data(body, content_type="application/json")
        return httpserver.url_for(f"/{path}")

    return call


def catalogue(*links: Any, kind: str = "Catalog", **members: Any) -> dict[str, Any]:
    return {"type": kind, "stac_version": "1.0.0", "id": "c", "description": "", "links": list(links)} | members


def link(relation: str, href: Any) -> dict[str, Any]:
    return {"rel": relation, "href": href}


def ids(stac: object, aoi: AOI) -> list[str]:
    return [item.id for item in s2cube.search(aoi, stac=str(stac))]


class TestStaticOnTheNetwork:
    @pytest.fixture
    def scenes(self, archive_items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return scenes_like(archive_items[0], 4)

    def test_every_way_to_write_a_link(self, publish: Publish, scenes: list[dict[str, Any]], farm: AOI) -> None:
        for number, scene in enumerate(scenes):
            publish(f"a/b/{number}.json", scene)
        publish(
            "a/b/collection.json", catalogue(link("item", "0.json"), link("item", "/a/b/1.json"), kind="Collection")
        )
        publish("a/catalog.json", catalogue(link("item", "./b/2.json"), link("child", "b/collection.json")))
        root = publish("catalog.json", catalogue(link("child", "a/catalog.json"), link("item", "../a/b/3.json")))
        assert ids(root, farm) == ["scene0000", "scene0001", "scene0002", "scene0003"]
        first = s2cube.search(farm, stac=root)[0]
        assert first.get_self_href() == root.replace("catalog.json", "a/b/0.json")
        assert (
            first.assets["blue"].href == root.replace("catalog.json", "a/b/") + scenes[0]["assets"]["blue"]["href"][2:]
        )

    def test_what_two_catalogues_name_is_read_once(
        self, publish: Publish, scenes: list[dict[str, Any]], farm: AOI, httpserver: HTTPServer
    ) -> None:
        publish("0.json", scenes[0])
        for name in ("east", "west"):
            publish(f"{name}.json", catalogue(link("item", "0.json"), link("child", "both.json")))
        publish("both.json", catalogue(link("item", "0.json")))
        root = publish("catalog.json", catalogue(link("child", "east.json"), link("child", "west.json")))
        assert ids(root, farm) == ["scene0000"]
        assert len(httpserver.log) == 5

    @pytest.mark.parametrize("relation", ["item", "child"])
    @pytest.mark.parametrize(
        "href",
        [
            "file:///dev/zero",
            "file:/dev/zero",
            "FILE:///etc/passwd",
            "ftp://host/x",
            "data:,{}",
            "C:\\x.json",
            "http://[",
        ],
    )
    def test_links_to_files_of_this_machine(self, publish: Publish, farm: AOI, relation: str, href: str) -> None:
        root = publish("catalog.json", catalogue(link(relation, href)))
        with pytest.raises(SearchError) as refused:
            s2cube.search(farm, stac=root)
        assert str(refused.value).startswith(
            f"{root}: links to {href}: a catalogue on the network may only link to http and https."
        )

    def test_a_path_from_the_root_is_one_of_the_server(
        self, publish: Publish, scenes: list[dict[str, Any]], farm: AOI, httpserver: HTTPServer
    ) -> None:
        publish("dev/zero", scenes[0])
        assert ids(publish("catalog.json", catalogue(link("item", "/dev/zero"))), farm) == ["scene0000"]
        root = publish("other.json", catalogue(link("child", "/etc/passwd")))
        httpserver.expect_request("/etc/passwd").respond_with_data("", status=404)
        with pytest.raises(SearchError, match=r"has a broken link: .*/etc/passwd answers 404\. Check --stac"):
            s2cube.search(farm, stac=root)

    def test_redirects_to_files_of_this_machine(
        self, publish: Publish, farm: AOI, httpserver: HTTPServer, tmp_path: Path
    ) -> None:
        (tmp_path / "secret.json").write_text("{}")
        httpserver.expect_request("/x.json").respond_with_data(
            "", status=302, headers={"Location": f"file://{tmp_path}/secret.json"}
        )
        with pytest.raises(SearchError, match="which is not an http or https address"):
            s2cube.search(farm, stac=publish("catalog.json", catalogue(link("child", "x.json"))))

    def test_a_catalogue_on_the_network_is_not_trusted_wherever_it_is_named(
        self, publish: Publish, farm: AOI, tmp_path: Path
    ) -> None:
        (tmp_path / "catalog.json").write_text(
            json.dumps(
                catalogue(link("child", publish("x.json", catalogue(link("item", f"file://{tmp_path}/a.json")))))
            )
        )
        with pytest.raises(SearchError, match="may only link to http and https"):
            s2cube.search(farm, stac=str(tmp_path / "catalog.json"))

    @pytest.mark.parametrize("way", ["itself", "its child", "by a redirect"])
    def test_catalogues_below_themselves(self, publish: Publish, farm: AOI, httpserver: HTTPServer, way: str) -> None:
        httpserver.expect_request("/back").respond_with_data("", status=302, headers={"Location": "/catalog.json"})
        publish("child.json", catalogue(link("child", "catalog.json")))
        child = {"itself": "./catalog.json", "its child": "child.json", "by a redirect": "back"}[way]
        root = publish("catalog.json", catalogue(link("child", child)))
        with pytest.raises(SearchError, match="is nested in itself"):
            s2cube.search(farm, stac=root)
        assert len(httpserver.log) < 5

    def test_catalogues_without_end(self, farm: AOI, httpserver: HTTPServer) -> None:
        numbers = itertools.count()
        httpserver.expect_request("/catalog.json").respond_with_handler(
            lambda _: Response(json.dumps(catalogue(link("child", f"catalog.json?{next(numbers)}"))))
        )
        with pytest.raises(SearchError, match="is nested in more than 50 catalogues"):
            s2cube.search(farm, stac=httpserver.url_for("/catalog.json"))
        assert next(numbers) < 60

    def test_items_without_end(
        self, publish: Publish, scenes: list[dict[str, Any]], farm: AOI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("s2cube.stac._static._MOST_FILES", 3)
        for number, scene in enumerate(scenes):
            publish(f"{number}.json", scene)
        three = publish("three.json", catalogue(*(link("item", f"{number}.json") for number in range(3))))
        assert len(ids(three, farm)) == 3
        with pytest.raises(SearchError, match="is in a catalogue of more than 3 files"):
            s2cube.search(
                farm, stac=publish("four.json", catalogue(*(link("item", f"{each}.json") for each in range(4))))
            )

    @pytest.mark.parametrize(
        ("members", "problem"),
        [
            ({"links": None}, "has links that are not a list of objects"),
            ({"links": {"rel": "item"}}, "has links that are not a list of objects"),
            ({"links": [5]}, "has links that are not a list of objects"),
            ({"links": [None]}, "has links that are not a list of objects"),
            ({"links": [{"rel": "item"}]}, "has a link 'item' without an address"),
            ({"links": [{"rel": "child", "href": None}]}, "has a link 'child' without an address"),
            ({"links": [{"rel": "child", "href": 5}]}, "has a link 'child' without an address"),
            ({"links": [{"rel": "item", "href": "catalog.json"}]}, "is not a Feature"),
            ({"conformsTo": None}, "has a conformsTo that is not a list of names"),
            ({"conformsTo": "x"}, "has a conformsTo that is not a list of names"),
            ({"conformsTo": [5]}, "has a conformsTo that is not a list of names"),
            ({"conformsTo": [], "links": None}, "has links that are not a list of objects"),
            ({"conformsTo": []}, "does not announce item search"),
            ({"type": "FeatureCollection"}, "has features that are not a list"),
            ({"type": "FeatureCollection", "features": None}, "has features that are not a list"),
            ({"type": "FeatureCollection", "features": {}}, "has features that are not a list"),
            ({"type": ["Catalog"]}, "is not a STAC catalogue, API or ItemCollection"),
            ({"type": None}, "is not a STAC catalogue, API or ItemCollection"),
        ],
    )
    @pytest.mark.parametrize("where", ["network", "file"])
    def test_malformed(
        self, publish: Publish, farm: AOI, tmp_path: Path, members: Any, problem: str, where: str
    ) -> None:
        content = catalogue() | members
        stac = publish("catalog.json", content)
        if where == "file":
            stac = str(tmp_path / "catalog.json")
            Path(stac).write_text(json.dumps(content))
        with pytest.raises(SearchError, match=problem) as refused:
            s2cube.search(farm, stac=stac)
        assert stac in str(refused.value)
        assert "later" not in str(refused.value)

    @pytest.mark.parametrize("collections", [None, {}, "x", [5], [None]])
    def test_malformed_collections(self, publish: Publish, farm: AOI, httpserver: HTTPServer, collections: Any) -> None:
        httpserver.expect_request("/collections/sentinel-2-l2a").respond_with_data("", status=404)
        publish("collections", {"collections": collections, "links": []})
        root = catalogue(
            link("search", "search"), conformsTo=[*CONFORMS, "https://api.stacspec.org/v1.0.0/collections"]
        )
        with pytest.raises(SearchError, match="/collections: has collections that are not a list of objects"):
            s2cube.search(farm, stac=publish("", root))

    @pytest.mark.parametrize(
        "members",
        [
            {"extent": None},
            {"description": None},
            {"id": None},
            {"links": None},
            {"links": [{}]},
            {"summaries": [1]},
            {"stac_version": 5},
            {"stac_version": "0.6.0"},
            {"stac_extensions": 5},
            {"extent": {"spatial": 1}},
            {"description": "\ud800"},
            {"cube:dimensions": float("nan")},
            {"deprecated": True},
        ],
        ids=str,
    )
    def test_a_collection_that_is_malformed_is_there(self, publish: Publish, members: dict[str, Any]) -> None:
        """Without a warning, and what it says of its level is heeded."""
        content = catalogue(kind="Collection", extent={}, **{"processing:level": "x"}) | members
        there = {name: value for name, value in content.items() if value is not None or name == "links"}
        publish("collections/other", there)
        publish("collections/first", {"summaries": {"processing:level": ["L1C"]}, **there})
        root = catalogue(
            link("search", "search"), conformsTo=[*CONFORMS, "https://api.stacspec.org/v1.0.0/collections"]
        )
        stac = publish("", root)
        open_catalogue(SearchSection(stac=stac, collection="other"))
        if "summaries" not in members:
            with pytest.raises(SearchError, match="no Level-2A .*: it says processing:level"):
                open_catalogue(SearchSection(stac=stac, collection="first"))

    def test_collections_by_pages(self, publish: Publish, farm: AOI, httpserver: HTTPServer) -> None:
        httpserver.expect_request("/collections/sentinel-2-l2a").respond_with_data("", status=404)
        publish("collections", {"collections": [{"id": "b"}], "links": [link("next", "more")]})
        publish("more", {"collections": [{"id": "a"}], "links": []})
        root = catalogue(
            link("search", "search"), conformsTo=[*CONFORMS, "https://api.stacspec.org/v1.0.0/collections"]
        )
        with pytest.raises(SearchError, match="has no collection 'sentinel-2-l2a'. Its collections: a, b"):
            s2cube.search(farm, stac=publish("", root))


class TestBounds:
    @pytest.mark.parametrize(
        "text", ["[" * DEEP, '{"a":' * DEEP, '{"type": "FeatureCollection", "features": ' + "[" * DEEP]
    )
    @pytest.mark.parametrize("where", ["network", "file"])
    def test_depth(self, publish: Publish, farm: AOI, tmp_path: Path, text: str, where: str) -> None:
        stac = publish("catalog.json", text.encode())
        if where == "file":
            stac = str(tmp_path / "catalog.json")
            Path(stac).write_text(text)
        with pytest.raises(SearchError, match="is JSON that is nested too deeply"):
            s2cube.search(farm, stac=stac)

    @pytest.mark.parametrize("where", ["body", "headers"])
    def test_time(self, s2cube_command: CommandLine, archive: Archive, where: str) -> None:
        """A byte a moment, for ever: every one of them is in time."""

        def drip(first: bytes) -> Iterator[bytes]:
            yield OK + (b'Content-Length: 99999\r\n\r\n{"type": "' if where == "body" else b"X-Long: ")
            for _ in range(600):
                time.sleep(0.1)
                yield b"x"

        with raw_server(drip) as server:
            begin = time.monotonic()
            done = s2cube_command("search", "--stac", server.url, "--aoi", archive.aoi, "--timeout", "0.5")
            assert time.monotonic() - begin < 5
            assert server.asked == 2
        assert done.status == 1
        assert "takes longer than 0.5 s). Try a longer --timeout" in done.err

    def test_time_of_redirects(self) -> None:
        """They share the time of the answer that they lead to."""

        def wait(first: bytes) -> Iterator[bytes]:
            time.sleep(0.3)
            head = f"HTTP/1.1 302 Found\r\nLocation: /{server.asked}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            yield head.encode()

        with raw_server(wait) as server:
            begin = time.monotonic()
            with pytest.raises(SearchError, match="takes longer than 0.7 s"):
                CatalogueIO(0.7).read(Request(server.url))
            assert time.monotonic() - begin < 3
            # Two attempts, of at most three answers each; on a busy machine of fewer.
            assert 4 <= server.asked <= 6

    def test_time_of_a_page(self, archive_items: list[dict[str, Any]], farm: AOI) -> None:
        """It is asked for once more, and no smaller."""
        with HTTPServer(threaded=True) as http:
            api = FakeApi(http, archive_items)
            api.refuse = lambda *_: time.sleep(1)  # type: ignore[assignment, func-returns-value]
            question = Question(api.root, "x", farm.geometry_lonlat)
            with pytest.raises(SearchError, match=r"failed during the search \(.* takes longer than 0.3 s\)\)"):
                search_api(open_source(api.root, 0.3), question)  # type: ignore[arg-type]
            assert api.limits == [100, 100]

    @pytest.mark.slow
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
    def test_size_unpacked(self, publish: Publish, httpserver: HTTPServer, encoding: str) -> None:
        """300 MB of blanks, packed into 300 KB or less."""
        pack = zlib.compressobj(wbits=31 if "gzip" in encoding else 15)
        body = b"".join(pack.compress(b" " * 1_000_000) for _ in range(300)) + pack.flush()
        body = gzip.compress(body) if "," in encoding else body
        httpserver.expect_request("/bomb").respond_with_data(body, headers={"Content-Encoding": encoding})
        with pytest.raises(SearchError, match="returns more than 128 MB. Request less; or save the answer as a file"):
            CatalogueIO().read(Request(httpserver.url_for("/bomb")))

    @pytest.mark.parametrize(
        ("head", "most_bytes"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\n", 200_000_000),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", 20_000_000),
            (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", 80_000_000),
        ],
    )
    def test_size_without_end(self, head: bytes, most_bytes: int) -> None:
        def zeros(first: bytes) -> Iterable[bytes]:
            return itertools.chain([head], itertools.repeat(b"\0" * 100_000))

        with raw_server(zeros) as server:
            with pytest.raises(SearchError, match="more than 128 MB|answers 400|redirects more than 10 times"):
                CatalogueIO().read(Request(server.url))
            assert server.sent_bytes < most_bytes

    def test_a_body_that_is_not_what_it_says(self, httpserver: HTTPServer) -> None:
        httpserver.expect_request("/x").respond_with_data(b"no gzip", headers={"Content-Encoding": "gzip"})
        with pytest.raises(SearchError, match="does not match its Content-Encoding"):
            CatalogueIO().read(Request(httpserver.url_for("/x")))

    @pytest.mark.parametrize(
        "text", [b"", b"\x00", b"\xff\xfe", b"{", b"{} {}", b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}", b"nan"]
    )
    def test_what_is_no_json(self, text: bytes) -> None:
        with pytest.raises(SearchError, match="not JSON|not a STAC"):
            Document.parse("x", text)


class TestNoAnswer:
    def test_refused(self) -> None:
        url = f"http://127.0.0.1:{servers.free_port()}/v1"
        with pytest.raises(SearchError) as refused:
            CatalogueIO().read(Request(url))
        assert f"{url}: does not answer (127.0.0.1:{urlsplit(url).port} refuses the connection). " in str(refused.value)

    def test_no_such_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        asked: list[object] = []

        def unknown(*words: object, **_: object) -> None:
            asked.append(words)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(SearchError, match=r"\(there is no host nowhere.invalid\). Check the address"):
            CatalogueIO().read(Request("http://nowhere.invalid/v1"))
        assert len(asked) == 1

    def test_http_for_https(self, httpserver: HTTPServer) -> None:
        with pytest.raises(SearchError, match=r"does not answer \(.* does not speak https\). Try http://"):
            CatalogueIO().read(Request(httpserver.url_for("/").replace("http:", "https:")))

    def test_a_certificate_that_nobody_knows(self, tmp_path: Path) -> None:
        import ssl

        from support.network import write_certificates

        made = write_certificates(tmp_path / "certificates")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert, made.key)
        with HTTPServer(ssl_context=context) as server:
            begin = time.monotonic()
            with pytest.raises(SearchError, match="the certificate of .* is not trusted: .*REQUESTS_CA_BUNDLE"):
                CatalogueIO().read(Request(server.url_for("/")))
            assert time.monotonic() - begin < 5

    def test_cut_connections_are_made_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("s2cube.fetch.http.speaks_tls", lambda *_: False)

        def cut(first: bytes) -> Iterable[bytes]:
            asked.append(first)
            return [] if len(asked) < 4 else [OK + b"\r\n{}"]

        asked: list[bytes] = []
        with raw_server(cut) as server:
            assert CatalogueIO(1).read(Request(server.url)).content == {}
        assert len(asked) == 4

    @pytest.mark.parametrize("asked", ["soon", "-5", "", "Wed, 99 Foo 2020"])
    def test_a_pause_that_is_none(self, httpserver: HTTPServer, asked: str) -> None:
        httpserver.expect_oneshot_request("/").respond_with_data("", status=503, headers={"Retry-After": asked})
        httpserver.expect_request("/").respond_with_data("{}")
        assert CatalogueIO().read(Request(httpserver.url_for("/"))).content == {}

    def test_a_pause_that_is_too_long(self, httpserver: HTTPServer) -> None:
        """It is not waited for; but how long it is, is said."""
        httpserver.expect_request("/").respond_with_data("full", status=503, headers={"Retry-After": "9999"})
        with pytest.raises(SearchError, match=r"answers 503 \(full\), and asks to wait 9999 s\. Try again later"):
            CatalogueIO().read(Request(httpserver.url_for("/")))
        assert len(httpserver.log) == 1

    @pytest.mark.parametrize(
        ("head", "problem"),
        [
            (b"X: y\r\n" * 101 + b"\r\n{}", "sends headers that are too long"),
            (b"X: " + b"y" * 70_000 + b"\r\n\r\n{}", "sends headers that are too long"),
            (b"Content-Encoding: gzip\r\n\r\n{}", "does not match its Content-Encoding"),
        ],
    )
    def test_what_would_come_again(self, head: bytes, problem: str) -> None:
        with raw_server(lambda _: [OK + head]) as server:
            with pytest.raises(SearchError, match=problem):
                CatalogueIO().read(Request(server.url))
            assert server.asked == 1

    @pytest.mark.parametrize("address", ["http://", "http://[", "http://a b/", "https://\udc80/", "http://x:99999/"])
    def test_no_address(self, address: str) -> None:
        with pytest.raises(SearchError, match=r"its address is not valid\)"):
            CatalogueIO().read(Request(address))

    def test_a_proxy_that_does_not_connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with raw_server(lambda _: [b"HTTP/1.1 403 Forbidden\r\n\r\n"]) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            with pytest.raises(SearchError, match=r"\(the proxy .* does not connect to host.invalid: it answers 403\)"):
                CatalogueIO().read(Request("https://host.invalid/"))


class TestFiles:
    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "pipe", "pipe.parquet", "/dev", "."])
    def test_special_files(self, s2cube_command: CommandLine, archive: Archive, tmp_path: Path, name: str) -> None:
        if name.startswith("pipe"):
            os.mkfifo(tmp_path / name)
        begin = time.monotonic()
        done = s2cube_command("search", "--stac", name, "--aoi", archive.aoi)
        assert time.monotonic() - begin < 5
        assert done.status == 1
        kind = "a folder" if name in ("/dev", ".") else "a device or a pipe"
        assert f"is {kind}, not a file. Set a file, such as catalog.json, by --stac" in done.err

    @pytest.mark.parametrize("name", ["s3://bucket/catalog.json", "file://host/x.json", "ftp://host/x.json", "\0"])
    def test_what_is_read_by_no_one(self, farm: AOI, name: str) -> None:
        with pytest.raises(SearchError, match="is neither a file nor an http or https address|cannot be read"):
            s2cube.search(farm, stac=name)

    def test_a_link_to_a_special_file(self, farm: AOI, tmp_path: Path) -> None:
        (tmp_path / "catalog.json").write_text(json.dumps(catalogue(link("item", "/dev/zero"))))
        with pytest.raises(SearchError, match="has a broken link: /dev/zero is a device or a pipe"):
            s2cube.search(farm, stac=str(tmp_path / "catalog.json"))

    @pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a\\b", "ü 小"])
    def test_names_of_folders(self, archive_items: list[dict[str, Any]], farm: AOI, tmp_path: Path, name: str) -> None:
        (tmp_path / name / "items").mkdir(parents=True)
        (tmp_path / name / "items" / "1#2.json").write_text(json.dumps(scenes_like(archive_items[0], 1)[0]))
        (tmp_path / name / "c.json").write_text(json.dumps(catalogue(link("item", "./items/1#2.json"))))
        (tmp_path / name / "d.json").write_text(json.dumps(catalogue(link("child", "./c.json"))))
        assert ids(tmp_path / name / "d.json", farm) == ["scene0000"]
        assert ids(f"{name}/d.json", farm) == ["scene0000"]
        assert ids((tmp_path / name / "d.json").as_uri(), farm) == ["scene0000"]

    @pytest.mark.parametrize(
        "href", ["./a%20b.json", "{folder}/a%20b.json", "file://{folder}/a%20b.json", "./a b.json"]
    )
    def test_escapes_in_links(self, archive_items: list[dict[str, Any]], farm: AOI, tmp_path: Path, href: str) -> None:
        (tmp_path / "a b.json").write_text(json.dumps(scenes_like(archive_items[0], 1)[0]))
        (tmp_path / "c.json").write_text(json.dumps(catalogue(link("item", href.format(folder=tmp_path)))))
        assert ids(tmp_path / "c.json", farm) == ["scene0000"]

    def test_a_parquet_file_that_is_no_stac(self, farm: AOI, tmp_path: Path) -> None:
        import geopandas
        import pyarrow
        import pyarrow.parquet

        geopandas.GeoDataFrame(geometry=geopandas.points_from_xy([0], [0])).to_parquet(tmp_path / "points.parquet")
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "table.parquet")
        (tmp_path / "text.parquet").write_text("a,b")
        for name in ("points", "table", "text", "gone"):
            with pytest.raises(SearchError, match="parquet|Parquet"):
                s2cube.search(farm, stac=str(tmp_path / f"{name}.parquet"))

    def test_half_of_a_surrogate_pair_is_saved(self, archive_items: list[dict[str, Any]], tmp_path: Path) -> None:
        scene = scenes_like(archive_items[0], 1)[0]
        scene["properties"]["title"] = "\ud800 小"
        s2cube.save_items([pystac.Item.from_dict(scene)], tmp_path / "x.geojson")
        (saved,) = json.loads((tmp_path / "x.geojson").read_bytes())["features"]
        assert saved["properties"]["title"] == "\ud800 小"


class TestByteOrderMark:
    """Some editors begin a file with one."""

    def test_item_collection(self, publish: Publish, archive: Archive, farm: AOI, tmp_path: Path) -> None:
        (tmp_path / "items.json").write_bytes(BOM + archive.items.read_bytes())
        there = ids(archive.items, farm)
        assert len(there) == 11
        assert ids(tmp_path / "items.json", farm) == there
        assert ids(publish("items.json", BOM + archive.items.read_bytes()), farm) == there

    @pytest.mark.parametrize("where", ["network", "file"])
    def test_static_catalogue(
        self, publish: Publish, archive_items: list[dict[str, Any]], farm: AOI, tmp_path: Path, where: str
    ) -> None:
        files = {
            "0.json": scenes_like(archive_items[0], 1)[0],
            "collection.json": catalogue(link("item", "0.json"), kind="Collection"),
            "catalog.json": catalogue(link("child", "collection.json")),
        }
        for name, content in files.items():
            body = BOM + json.dumps(content).encode()
            (tmp_path / name).write_bytes(body)
            stac = publish(name, body) if where == "network" else str(tmp_path / name)
            assert ids(stac, farm) == ["scene0000"]

    def test_api(self, httpserver: HTTPServer, archive_items: list[dict[str, Any]], farm: AOI) -> None:
        api = FakeApi(httpserver, scenes_like(archive_items[0], 150))
        api.prefix = BOM
        assert len(ids(api.root, farm)) == 150
