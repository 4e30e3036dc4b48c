"""Archives at s3:// addresses: each by its own endpoint and keys; keys of one are never another's."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import rasterio
import rasterio.shutil
import requests
from obstore.store import S3Store

import s2cube
from s2cube.config.loading import load_config
from s2cube.config.sections import ReadSection
from s2cube.config.stores import Store, parse_stores
from s2cube.demo.archive import Archive
from s2cube.errors import AssetReadError, ConfigError, OutputError, redact
from s2cube.fetch import _s3 as s3
from s2cube.fetch import object_store as remote
from s2cube.fetch._archives import ARCHIVES, BucketLocation, Keys, NoKeys, locate, output_location
from s2cube.fetch.store import Access, fetch
from s2cube.raster import gdal_file
from s2cube.raster.lattice import rectangles
from s2cube.storage._bucket import Bucket
from support.cogs import noise, write_cog
from support.network import Certificates, write_certificates
from support.proxies import Proxy, Secure, proxy
from support.runs import CommandLine, Job, Outcome
from support.scenes import CLEAR, EPSG, ramp, rectangle, scene, write_band
from support.servers import Asked, Faulty, FaultyHandler, answer, object_store, served

pytestmark = pytest.mark.usefixtures("open_network")

AMAZON_KEY = "AKIAIOSFODNN7EXAMPLE"
"""Of Amazon's documentation."""


def keys(name: str, access: str = "", secret: str = "") -> dict[str, str]:
    return {f"{name}_ACCESS_KEY_ID": access or f"AK{name}", f"{name}_SECRET_ACCESS_KEY": secret or f"SK{name}"}


def get(href: str, *stores: tuple[str, Store], **options: Any) -> bytes:
    return bytes(fetch(href, 0, 8, Access(**({"timeout_s": 5, "retries": 5, "stores": stores} | options))).data)


class TestTable:
    @pytest.mark.parametrize(
        ("href", "address", "region"),
        [
            ("s3://deafrica-sentinel-2/a.tif", "https://s3.af-south-1.amazonaws.com", "af-south-1"),
            ("s3://deafrica-sentinel-2-l2a-c1/37/M/a.tif", "https://s3.af-south-1.amazonaws.com", "af-south-1"),
            ("s3://sentinel-cogs/a.tif", "https://s3.us-west-2.amazonaws.com", "us-west-2"),
            ("S3://e84-earth-search-sentinel-data/a", "https://s3.us-west-2.amazonaws.com", "us-west-2"),
        ],
    )
    @pytest.mark.parametrize("environ", [{}, keys("AWS") | {"AWS_ENDPOINT_URL": "http://own", "AWS_REGION": "x"}])
    def test_archives_that_are_open_to_all(self, href: str, address: str, region: str, environ: dict[str, str]) -> None:
        place = locate(href, (), environ)
        assert (place.address, place.region, place.keys, place.by_role) == (address, region, None, False)

    def test_copernicus(self) -> None:
        environ = keys("CDSE") | keys("AWS", AMAZON_KEY) | {"AWS_SESSION_TOKEN": "t", "AWS_REGION": "eu-west-1"}
        place = locate("s3://eodata/Sentinel-2/a.jp2", (), environ)
        assert place.url == "https://eodata.dataspace.copernicus.eu/eodata/"
        assert (place.region, place.keys) == ("default", Keys("CDSE", "AKCDSE", "SKCDSE", ""))

    def test_copernicus_by_the_names_that_its_own_examples_take(self) -> None:
        for own in ({}, {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu"}):
            place = locate("s3://eodata/a", (), keys("AWS") | own)
            assert place.keys == Keys("AWS", "AKAWS", "SKAWS")

    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"CDSE_ACCESS_KEY_ID": "a"},
            keys("AWS", AMAZON_KEY),
            keys("AWS") | {"AWS_ENDPOINT_URL": "https://store.example"},
            keys("AWS") | {"AWS_S3_ENDPOINT": "store.example"},
        ],
    )
    def test_keys_of_another_store_are_none(self, environ: dict[str, str]) -> None:
        with pytest.raises(NoKeys, match="there are no keys for s3://eodata") as caught:
            locate("s3://eodata/a", (), environ)
        assert caught.value.remedy.startswith("Set CDSE_ACCESS_KEY_ID and CDSE_SECRET_ACCESS_KEY")

    def test_requester_pays(self) -> None:
        place = locate("s3://sentinel-s2-l2a/a.jp2", (), keys("AWS", AMAZON_KEY) | {"AWS_REGION": "us-east-1"})
        assert (place.requester_pays, place.region) == (True, "eu-central-1")
        assert place.keys == Keys("AWS", AMAZON_KEY, "SKAWS")
        with pytest.raises(NoKeys, match="you pay for what you read"):
            locate("s3://sentinel-s2-l2a/a.jp2", (), {})
        with pytest.raises(NoKeys, match=r"those in AWS_… are for http://own:9000") as caught:
            locate("s3://sentinel-s2-l2a/a.jp2", (), keys("AWS") | {"AWS_ENDPOINT_URL": "http://own:9000"})
        assert 'keys = "NAME"' in caught.value.remedy

    def test_every_other_store_is_by_the_aws_variables(self) -> None:
        environ = keys("AWS") | {"AWS_ENDPOINT_URL": "http://own:9000/", "AWS_DEFAULT_REGION": "r"}
        place = locate("s3://mine/a", (), environ)
        assert (place.url, place.region, place.keys) == ("http://own:9000/mine/", "r", Keys("AWS", "AKAWS", "SKAWS"))
        assert place == output_location("mine", environ)
        assert locate("s3://sentinel-cogs-of-mine/a", (), environ).keys
        with pytest.raises(NoKeys, match=r"no keys for s3://mine in the environment"):
            locate("s3://mine/a", (), {})

    @pytest.mark.parametrize(
        ("environ", "url"),
        [
            ({}, "https://s3.us-east-1.amazonaws.com/b/"),
            ({"AWS_REGION": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn/b/"),
            ({"AWS_S3_ENDPOINT": "own:1", "AWS_HTTPS": "NO"}, "http://own:1/b/"),
            ({"AWS_S3_ENDPOINT": "own:1"}, "https://own:1/b/"),
            ({"AWS_ENDPOINT_URL_S3": "http://a", "AWS_ENDPOINT_URL": "http://b"}, "http://a/b/"),
            ({"AWS_ENDPOINT": "http://c"}, "http://c/b/"),
            ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, "https://b.s3.us-east-1.amazonaws.com/"),
            ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_ENDPOINT": "http://b.own"}, "http://b.own/"),
        ],
    )
    def test_endpoints_of_the_environment(self, environ: dict[str, str], url: str) -> None:
        assert output_location("b", keys("AWS") | environ).url == url

    def test_the_endpoint_is_one_that_real_items_name(self, real: Path) -> None:
        named = set()
        for path in (real / "items" / "cdse").glob("*.json"):
            schemes = json.loads(path.read_text())["properties"]["storage:schemes"]
            named |= {each["platform"] for each in schemes.values()}
        assert dict(ARCHIVES)["s3://eodata"].endpoint in named


class TestSettings:
    def test_the_users_go_first(self) -> None:
        own = parse_stores({"s3://eodata": {"endpoint": "https://eodata.cloudferro.com", "keys": "MINE"}})
        place = locate("s3://eodata/a", own, keys("MINE") | keys("CDSE"))  # type: ignore[arg-type]
        assert (place.address, place.region) == ("https://eodata.cloudferro.com", "default")
        assert place.keys == Keys("MINE", "AKMINE", "SKMINE")
        with pytest.raises(NoKeys, match="no keys for s3://eodata"):
            locate("s3://eodata/a", own, keys("CDSE") | keys("AWS"))  # type: ignore[arg-type]

    def test_the_longest_prefix_that_ends_where_a_name_does(self) -> None:
        own = (("s3://b", Store(keys="A")), ("s3://b/x", Store(keys="B")), ("s3://b/x/y", Store(anonymous=True)))
        environ = keys("A") | keys("B") | keys("AWS")
        wanted = {"s3://b/q": "A", "s3://b/xy": "A", "s3://b/x/q": "B", "s3://b/x": "B", "s3://bb/x": "AWS"}
        for href, name in wanted.items():
            place = locate(href, own, environ)
            assert place.keys
            assert place.keys.name == name
        assert locate("s3://b/x/y/z", own, environ).keys is None

    def test_the_aws_keys_are_for_another_store_only_if_it_says_so(self) -> None:
        environ = keys("AWS") | {"AWS_ENDPOINT_URL": "http://own"}
        with pytest.raises(NoKeys, match="those in AWS_… are for http://own"):
            locate("s3://b/a", (("s3://b", Store(endpoint="http://other")),), environ)
        place = locate("s3://b/a", (("s3://b", Store(endpoint="http://other", keys="AWS")),), environ)
        assert place.keys
        assert place.address == "http://other"

    def test_sources(self, tmp_path: Path) -> None:
        (tmp_path / "s2cube.toml").write_text(
            '[read.stores."s3://eodata"]\nendpoint = "https://e.example"\nkeys = "CDSE"\nregion = "default"\n'
            'anonymous = false\nrequester_pays = false\n[read.stores."s3://b/c/"]\nanonymous = true\n'
        )
        store = Store(
            endpoint="https://e.example", keys="CDSE", region="default", anonymous=False, requester_pays=False
        )
        wanted = (("s3://eodata", store), ("s3://b/c", Store(anonymous=True)))
        table = {prefix: each.model_dump(exclude_none=True) for prefix, each in wanted}
        assert load_config({}, {}).read.stores == wanted
        assert load_config({"stores": json.dumps(table)}, {}).read.stores == wanted
        assert load_config({}, {"S2CUBE_READ__STORES": json.dumps(table)}).read.stores == wanted
        assert ReadSection.of({"stores": table}).stores == wanted
        assert load_config({"stores": ""}, {}).read.stores == ()
        assert load_config({"stores": json.dumps(table)}, {}).for_workers().read.stores == wanted

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("{", "is not a JSON object"),
            ("[]", "must be a table by prefix"),
            ('{"s3://b": 3}', "s3://b must be a table"),
            ('{"https://b": {}}', "a prefix must be s3://BUCKET"),
            ('{"s3://me:TOPSECRET@b": {}}', "a prefix must be s3://BUCKET"),
            ('{"s3://b": {"secret_access_key": "TOPSECRET"}}', "'secret_access_key' is unknown.*environment only"),
            ('{"s3://b": {"endpiont": "x"}}', "'endpiont' is unknown; use endpoint, region, keys, anonymous"),
            ('{"s3://b": {"keys": "TOPSECRET/+x"}}', "keys must be the prefix of the variables' names"),
            ('{"s3://b": {"keys": "A", "anonymous": true}}', "anonymous excludes keys"),
            ('{"s3://b": {"endpoint": "host:9000"}}', "endpoint must be an http or https address"),
            ('{"s3://b": {"endpoint": "https://me:TOPSECRET@h"}}', "endpoint must not contain a user"),
            ('{"s3://b": {"endpoint": "https://h?key=TOPSECRET"}}', "endpoint must not contain a user"),
            ('{"s3://b": {"anonymous": "TOPSECRET"}}', "anonymous: its value is neither true nor false"),
        ],
    )  # fmt: skip
    def test_refused(self, text: str, told: str) -> None:
        with pytest.raises(ConfigError, match=f"--stores: .*{told}") as caught:
            load_config({"stores": text}, {})
        assert "TOPSECRET" not in str(caught.value)

    def test_a_misspelt_key_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "s2cube.toml").write_text('[read.stores."s3://b"]\nsecret = "TOPSECRET"\n')
        with pytest.raises(ConfigError, match=r"s2cube\.toml: \[read\] stores: s3://b: 'secret' is unknown") as caught:
            load_config({}, {})
        assert "TOPSECRET" not in str(caught.value)

    def test_keys_of_any_name_are_redacted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for each in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
            monkeypatch.setenv(f"CDSE_{each}", f"VALUE{each}")
            assert f"VALUE{each}" not in redact(f"it is VALUE{each}.")
        assert "SKCDSE" not in repr(Keys("CDSE", "AKCDSE", "SKCDSE", "TKCDSE"))


class TestSignature:
    def test_amazons_own_example(self) -> None:
        """Of "Signature Calculations for the Authorization Header: … GET Object"."""
        key = Keys("AWS", AMAZON_KEY, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        place = BucketLocation("examplebucket", "https://s3.amazonaws.com", "us-east-1", key, by_host=True)
        url = s3.object_url(place, "/test.txt")
        signed = s3.headers_for(place, url, {"Range": "bytes=0-9"}, datetime(2013, 5, 24, tzinfo=UTC))
        assert url == "https://examplebucket.s3.amazonaws.com/test.txt"
        assert signed["Authorization"] == (
            f"AWS4-HMAC-SHA256 Credential={AMAZON_KEY}/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        )

    @pytest.mark.parametrize("path", ["/a/../b.tif", "/./b.tif", "/a/%2e%2e/b.tif"])
    def test_no_step_up(self, path: str) -> None:
        with pytest.raises(AssetReadError, match="its path contains . or .. as a name"):
            get(f"s3://sentinel-cogs{path}")


class Listening(FaultyHandler):
    """A store that gives everything to everybody, and notes what it hears."""

    def do_GET(self) -> None:
        self.server.heard.append(f"{self.command} {self.path}\n{self.headers}")  # type: ignore[attr-defined]
        super().do_GET()

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.server.heard.append(f"{self.command} {self.path}\n{self.headers}")  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.connection.sendall(answer(200, headers='ETag: "1"\r\n'))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "b").mkdir()
    write_cog(tmp_path / "b" / "a.tif", noise())
    server = Faulty(tmp_path, Listening)
    server.heard = []  # type: ignore[attr-defined]
    with served(server):
        yield server


class TestWhatIsSent:
    def test_an_archive_hears_nothing_of_the_outputs_keys(
        self, listening: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither its session token, nor who pays, nor its encryption; by our reader and for GDAL."""
        environ = keys("AWS", "AKOUTPUT", "SKOUTPUT") | keys("CDSE") | {
            "AWS_SESSION_TOKEN": "TKOUTPUT", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REQUEST_PAYER": "requester",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_SSE_CUSTOMER_KEY_BASE64": "OUTPUT",
        }  # fmt: skip
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        store = ("s3://b", Store(endpoint=listening.url, keys="CDSE", region="r"))
        get("s3://b/a.tif", store)
        gdal_file.rasters("s3://b/a.tif", Access(stores=(store,)), "GTiff")
        assert len(listening.heard) > 1
        for each in listening.heard:
            assert "Credential=AKCDSE/" in each
            assert "/r/s3/aws4_request" in each
            assert not re.search("OUTPUT|payer|encryption", each, re.IGNORECASE)
        listening.heard.clear()
        get("s3://b/a.tif", ("s3://b", Store(endpoint=listening.url, anonymous=True, requester_pays=True)))
        assert not re.search("amz|authorization", str(listening.heard), re.IGNORECASE)

    def test_the_output_hears_nothing_of_an_archives_keys(
        self, listening: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        environ = keys("AWS", "AKOUTPUT", "SKOUTPUT") | keys("CDSE") | {"CDSE_SESSION_TOKEN": "TKCDSE"}
        for name, value in (environ | {"AWS_ENDPOINT_URL": listening.url}).items():
            monkeypatch.setenv(name, value)
        obstore.put(remote.store_to_write("s3://b/out"), "x", b"1")
        assert "Credential=AKOUTPUT/" in listening.heard[0]
        assert "CDSE" not in str(listening.heard)

    def test_a_session_token_goes_with_its_keys(self, listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (keys("X") | {"X_SESSION_TOKEN": "TKX"}).items():
            monkeypatch.setenv(name, value)
        get("s3://b/a.tif", ("s3://b", Store(endpoint=listening.url, keys="X", requester_pays=True)))
        assert "x-amz-security-token: TKX" in listening.heard[0]
        assert re.search("SignedHeaders=.*x-amz-request-payer;x-amz-security-token", listening.heard[0])

    def test_no_redirection_takes_keys_elsewhere(self, listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in keys("X").items():
            monkeypatch.setenv(name, value)
        listening.fault = lambda *_: answer(307, headers="Location: http://127.0.0.1:9/evil\r\n")
        with pytest.raises(AssetReadError, match="answers 307"):
            get("s3://b/a.tif", ("s3://b", Store(endpoint=listening.url, keys="X")))
        assert len(listening.heard) == 1

    def test_no_item_says_where_keys_go(self, listening: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody vetted the endpoints that items name."""
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        item.properties["storage:schemes"] = {"cdse-s3": {"type": "custom-s3", "platform": listening.url}}
        for asset in item.assets.values():
            asset.href = f"s3://eodata/{Path(asset.href).name}"
            asset.extra_fields["storage:refs"] = ["cdse-s3"]
        for name, value in keys("CDSE").items():
            monkeypatch.setenv(name, value)
        with proxy() as there:
            monkeypatch.setenv("HTTPS_PROXY", there.url)
            cube = s2cube.open_cube([item], rectangle(600, -1200, 1200, -600), bands=["blue"], retries=0)
            with pytest.raises(AssetReadError, match=r"does not connect to eodata\.dataspace\.copernicus\.eu"):
                cube.compute()
            assert set(there.passed) == {"CONNECT eodata.dataspace.copernicus.eu:443"}
        assert not listening.heard


class TestWhoHasNoKeys:
    """It is said at once; nobody else is asked for some."""

    @pytest.fixture
    def net(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
        """All that leaves this process, by http or https."""
        monkeypatch.setenv("HOME", str(tmp_path))
        with proxy() as there:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                monkeypatch.setenv(name, there.url)
            yield there

    @pytest.mark.parametrize(
        ("href", "told"),
        [
            ("s3://eodata/a.jp2", "CDSE_ACCESS_KEY_ID and CDSE_SECRET_ACCESS_KEY"),
            ("s3://mine/a.tif", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            ("s3://sentinel-s2-l2a/a.jp2", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            ("gs://mine/a.tif", "GOOGLE_APPLICATION_CREDENTIALS"),
            ("az://mine/a.tif", "AZURE_STORAGE_ACCOUNT_KEY"),
        ],
    )
    def test_reading(self, net: Proxy, href: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
        began = time.monotonic()
        with pytest.raises(AssetReadError, match=rf"cannot be read \(there are no keys for .*{told}") as caught:
            get(href)
        assert not caught.value.may_pass
        assert time.monotonic() - began < 1
        assert not net.passed

    @pytest.mark.parametrize("address", ["s3://mine/out", "gs://mine/out", "az://mine/out"])
    def test_writing(self, net: Proxy, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
        with pytest.raises(OutputError, match=rf"there are no keys for {address[:9]}.* in the environment"):
            Bucket(address).prepare()
        assert not net.passed

    @pytest.mark.parametrize(
        "half",
        [
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/x"},
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/x"},
            {"AWS_ACCESS_KEY_ID": "abcdef"},
        ],
    )
    def test_half_of_what_is_needed(self, net: Proxy, half: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in half.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(AssetReadError, match="there are no keys"):
            get("s3://mine/a.tif")
        assert not net.passed

    def test_public_buckets_of_google(self, net: Proxy) -> None:
        with pytest.raises(AssetReadError):
            get("gs://gcp-public-data-sentinel-2/a.jp2", retries=0)
        assert {each.rpartition(":")[0] for each in net.passed} == {"CONNECT storage.googleapis.com"}


class TestRegion:
    @pytest.mark.parametrize(
        "refused",
        [
            answer(301, b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: af-south-1\r\n"),
            answer(
                400,
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'r' is wrong; expecting "
                b"'af-south-1'</Message><Region>af-south-1</Region></Error>",
            ),
        ],
    )
    def test_it_is_named_at_once(self, listening: Any, refused: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in keys("X").items():
            monkeypatch.setenv(name, value)
        listening.fault = lambda *_: refused
        store = ("s3://b", Store(endpoint=listening.url, keys="X", region="r"))
        with pytest.raises(AssetReadError, match=r"s3://b is in the region af-south-1, but s2cube asked r") as caught:
            get("s3://b/a.tif", store)
        assert 'region = "af-south-1" under [read.stores."s3://b"]' in caught.value.remedy
        assert len(listening.heard) == 1
        assert not caught.value.may_pass

    def test_what_a_store_says_is_told(self, listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in keys("X").items():
            monkeypatch.setenv(name, value)
        ways = (Store(endpoint=listening.url, keys="X"), Store(endpoint=listening.url, anonymous=True))
        stores = [("s3://b", each) for each in ways]
        listening.fault = lambda *_: answer(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
        for store, told in zip(stores, ("Check the X_… keys", "was read without keys"), strict=True):
            with pytest.raises(AssetReadError, match=rf"answers 403 \(InvalidAccessKeyId\).*{told}"):
                get("s3://b/a.tif", store)
        listening.fault = lambda *_: answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        with pytest.raises(AssetReadError, match=r"answers 404 \(NoSuchBucket\)"):
            get("s3://b/a.tif", stores[0])
        listening.fault = lambda *_: answer(503, b"<Error><Code>SlowDown</Code></Error>", "Retry-After: 0\r\n")
        with pytest.raises(AssetReadError, match=r"answers 503\) after 2 retries"):
            get("s3://b/a.tif", stores[0], retries=2)


def store_at(url: str, owner: str, bucket: str) -> S3Store:
    return S3Store(
        bucket, endpoint=url, access_key_id=f"AK{owner}", secret_access_key=f"SK{owner}", region="us-east-1",
        client_options={"allow_http": True},
    )  # fmt: skip


def make_bucket(url: str, owner: str, bucket: str) -> S3Store:
    store = store_at(url, owner, bucket)
    requests.put(obstore.sign(store, "PUT", "", timedelta(minutes=1)), timeout=30).raise_for_status()
    return store


@pytest.fixture(scope="module")
def stores(
    server_processes: None, tmp_path_factory: pytest.TempPathFactory, archive: Archive
) -> Iterator[dict[str, str]]:
    """Three real stores: an archive's and the output's, each with keys of its own, and one that is open to all."""
    with ExitStack() as ends:
        urls = {}
        for name, anonymous in (("ARCHIVE", False), ("OUTPUT", False), ("OPEN", True)):
            folder = tmp_path_factory.mktemp(name)
            urls[name] = ends.enter_context(object_store(folder, name, anonymous))
            bucket = make_bucket(urls[name], name, {"ARCHIVE": "eodata", "OUTPUT": "mine", "OPEN": "public"}[name])
            if name != "OUTPUT":
                for path in archive.items.parent.rglob("*.tif"):
                    obstore.put(bucket, str(path.relative_to(archive.items.parent)), path.read_bytes())
        yield urls


@pytest.fixture
def two_archives(archive: Archive, tmp_path: Path) -> Path:
    """Items whose blue band lies in one archive, and the rest in another."""
    page = json.loads(archive.items.read_text())
    for item in page["features"]:
        for key, asset in item["assets"].items():
            bucket = "eodata" if key == "blue" else "public"
            asset["href"] = f"s3://{bucket}/{asset['href'].removeprefix('./')}"
    path = tmp_path / "s3.json"
    path.write_text(json.dumps(page))
    return path


def read_stores(stores: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        "s3://eodata": {"endpoint": stores["ARCHIVE"], "keys": "CDSE", "region": "default"},
        "s3://public": {"endpoint": stores["OPEN"], "anonymous": True},
    }


class TestRealStores:
    @pytest.fixture(autouse=True)
    def environment(self, open_network: None, stores: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        environ = keys("CDSE", "AKARCHIVE", "SKARCHIVE") | keys("AWS", "AKOUTPUT", "SKOUTPUT")
        for name, value in (environ | {"AWS_ENDPOINT_URL": stores["OUTPUT"], "AWS_ALLOW_HTTP": "true"}).items():
            monkeypatch.setenv(name, value)

    @pytest.mark.parametrize("by", ["file", "flag"])
    def test_a_run_from_two_archives_into_a_bucket(
        self, s2cube_command: CommandLine, job: Job, stores: dict[str, str], two_archives: Path, by: str
    ) -> None:
        """The same pixels as from files, on workers of our own: the suite's cluster began without keys."""
        words = ["--stac", two_archives, "--scheduler", "", "--workers", "1", "--bands", "blue", "--log-json", "-vv"]
        table = read_stores(stores)
        if by == "flag":
            words += ["--stores", json.dumps(table)]
        else:
            lines = [
                f'[read.stores."{prefix}"]\n' + "".join(f"{key} = {json.dumps(value)}\n" for key, value in each.items())
                for prefix, each in table.items()
            ]
            Path("s2cube.toml").write_text("".join(lines))
        done = s2cube_command(*job(*words, "--out", f"s3://mine/{by}"))
        assert done.status == 0, done.err
        assert len(done.json["written"]) > 2
        assert not re.search("AKARCHIVE|SKARCHIVE|AKOUTPUT|SKOUTPUT", done.out + done.err)
        plain = s2cube_command(*job("--bands", "blue"))
        assert plain.status == 0
        there = store_at(stores["OUTPUT"], "OUTPUT", "mine")
        for address in done.json["written"]:
            name = address.partition(f"/{by}/")[2]
            image = bytes(obstore.get(there, f"{by}/{name}").bytes())
            with rasterio.MemoryFile(image) as memory, memory.open() as one, rasterio.open(Path("out") / name) as other:
                np.testing.assert_array_equal(one.read(), other.read())

    def test_plan_reads_headers_with_the_same_keys(
        self, s2cube_command: CommandLine, job: Job, stores: dict[str, str], two_archives: Path
    ) -> None:
        words = ["--stac", two_archives, "--bands", "blue", "--headers", "--stores", json.dumps(read_stores(stores))]
        planned = s2cube_command(*job(*words, command="plan"))
        assert planned.status == 0, planned.err
        plain = s2cube_command(*job("--bands", "blue", "--headers", command="plan"))
        assert planned.json == plain.json
        assert planned.json["exact"]

    def test_in_a_notebook(self, stores: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        plain = s2cube.open_cube([item], rectangle(600, -1200, 1200, -600), bands=["blue"]).values
        bucket = store_at(stores["ARCHIVE"], "ARCHIVE", "eodata")
        for asset in item.assets.values():
            obstore.put(bucket, Path(asset.href).name, Path(asset.href).read_bytes())
            asset.href = f"s3://eodata/{Path(asset.href).name}"
        cube = s2cube.open_cube([item], rectangle(600, -1200, 1200, -600), bands=["blue"], stores=read_stores(stores))
        np.testing.assert_array_equal(cube.values, plain)
        assert (plain != -9999).all()

    def test_gdal_reads_with_the_same_keys(self, stores: dict[str, str], tmp_path: Path) -> None:
        write_band(tmp_path / "plain.tif", noise(), 10)
        with rasterio.open(tmp_path / "plain.tif") as file:
            options = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}
            rasterio.shutil.copy(file, tmp_path / "a.jp2", driver="JP2OpenJPEG", **options)
        for name, bucket, owner in (("eodata", "ARCHIVE", "ARCHIVE"), ("public", "OPEN", "OPEN")):
            obstore.put(store_at(stores[bucket], owner, name), "a.jp2", (tmp_path / "a.jp2").read_bytes())
            access = Access(stores=ReadSection.of({"stores": read_stores(stores)}).stores)
            (raster,) = gdal_file.rasters(f"s3://{name}/a.jp2", access, "JP2OpenJPEG")
            window = rasterio.windows.Window(100, 200, 300, 100)
            pixels = np.concatenate([block.pixels for block in raster.blocks(rectangles([window]))])
            np.testing.assert_array_equal(pixels, noise()[200:300, 100:400])
            assert raster.lattice.crs.to_epsg() == EPSG
            assert access.usage.traffic.requests > 1
            assert access.usage.traffic.bytes < 2 * (tmp_path / "a.jp2").stat().st_size

    def test_the_wrong_keys_open_nothing(self, stores: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Each of the two stores knows its own keys only."""
        for own, other in (("ARCHIVE", "OUTPUT"), ("OUTPUT", "ARCHIVE")):
            for name, value in keys("X", f"AK{other}", f"SK{other}").items():
                monkeypatch.setenv(name, value)
            bucket = {"ARCHIVE": "eodata", "OUTPUT": "mine"}[own]
            store = (f"s3://{bucket}", Store(endpoint=stores[own], keys="X"))
            with pytest.raises(AssetReadError, match=r"answers 403 \(InvalidAccessKeyId\).*Check the X_… keys"):
                get(f"s3://{bucket}/a.tif", store)

    @pytest.mark.parametrize("odd", ["a b+c", "ä%&=", "x~y_z.(1)!*'", "deep/er/ü"])
    def test_odd_names(self, stores: dict[str, str], odd: str) -> None:
        obstore.put(store_at(stores["ARCHIVE"], "ARCHIVE", "eodata"), f"odd/{odd}.tif", b"12345678")
        href = f"s3://eodata/odd/{odd.replace('%', '%25')}.tif"
        assert get(href, ("s3://eodata", Store(endpoint=stores["ARCHIVE"]))) == b"12345678"

    def test_a_role_gives_keys(self, stores: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """As Amazon's containers have one: obstore asks for its keys."""

        class Role(FaultyHandler):
            def do_GET(self) -> None:
                given = {"AccessKeyId": "AKOUTPUT", "SecretAccessKey": "SKOUTPUT", "Token": ""}
                given["Expiration"] = "2900-01-01T00:00:00Z"
                self.server.asked.append(Asked("GET", self.path, 0, 0, 0))
                self.connection.sendall(answer(200, json.dumps(given).encode()))

        obstore.put(store_at(stores["OUTPUT"], "OUTPUT", "mine"), "role.tif", b"12345678")
        for name in keys("AWS"):
            monkeypatch.delenv(name)
        (tmp_path / "token").write_text("abcdef")
        with served(Faulty(tmp_path, Role)) as role:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{role.url}/keys")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
            assert get("s3://mine/role.tif", retries=0) == b"12345678"
            assert [each.path for each in role.asked] == ["/keys"]
            with pytest.raises(AssetReadError, match=r"s3://mine/none\.tif: (answers 404|.*not found)"):
                get("s3://mine/none.tif", retries=0)


HOSTS = ("s3.af-south-1.amazonaws.com", "eodata.dataspace.copernicus.eu")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("hosts") / "certificates", *HOSTS)


class TestUnderTheirOwnNames:
    """The archives as they are called, by a proxy that leads to this machine: nothing but the keys is set."""

    @pytest.fixture
    def server(self, open_network: None, authority: Certificates, tmp_path: Path) -> Iterator[Any]:
        server: Any = Secure(tmp_path / "files", authority, Listening)
        server.heard = []
        with served(server), proxy(dict.fromkeys(HOSTS, server.server_port)) as there:
            server.passed = there.passed
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HTTPS_PROXY", there.url)
                patch.setenv("SSL_CERT_FILE", str(authority.ca))
                patch.setenv("NO_PROXY", "127.0.0.1")
                server.patch = patch
                yield server

    @pytest.fixture
    def run(self, s2cube_command: CommandLine, job: Job, archive: Archive, server: Any) -> Callable[[str], Outcome]:
        """Run on the archive as if it lay in a bucket, on workers that begin in this environment."""

        def run(bucket: str) -> Outcome:
            folder = server.root / bucket
            folder.parent.mkdir()
            folder.symlink_to(archive.items.parent)
            page = json.loads(archive.items.read_text())
            for item in page["features"]:
                for asset in item["assets"].values():
                    asset["href"] = f"s3://{bucket}/{asset['href'].removeprefix('./')}"
            Path("named.json").write_text(json.dumps(page))
            words = ["--stac", "named.json", "--bands", "blue", "--scheduler", "", "--workers", "1"]
            return s2cube_command(*job(*words))

        return run

    @pytest.mark.parametrize(
        ("bucket", "host", "named"),
        [("deafrica-sentinel-2-l2a-c1", HOSTS[0], ""), ("eodata", HOSTS[1], "CDSE"), ("eodata", HOSTS[1], "AWS")],
    )
    def test_a_run(self, run: Callable[[str], Outcome], server: Any, bucket: str, host: str, named: str) -> None:
        for name, value in (keys(named) if named else {}).items():
            server.patch.setenv(name, value)
        done = run(bucket)
        assert done.status == 0, done.err
        assert len(done.json["written"]) > 2
        assert set(server.passed) == {f"CONNECT {host}:443"}
        assert all(f" /{bucket}/" in each for each in server.heard)
        if named:
            assert all(f"Credential=AK{named}/" in each and "/default/s3/" in each for each in server.heard)
        else:
            assert not re.search("amz|authorization", str(server.heard), re.IGNORECASE)

    def test_a_run_without_keys_fails_by_name_and_asks_nobody(self, run: Callable[[str], Outcome], server: Any) -> None:
        began = time.monotonic()
        done = run("eodata")
        assert done.status == 3, done.err
        told = Path("out/failures.jsonl").read_text()
        assert "there are no keys for s3://eodata" in told
        assert "CDSE_ACCESS_KEY_ID" in told
        assert not server.passed
        assert time.monotonic() - began < 20
