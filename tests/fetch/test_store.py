"""Parts of files from object stores and odd addresses, by real servers."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import obstore
import pytest
import rasterio
import rasterio.shutil
import requests
from obstore.store import S3Store

from s2cube.errors import AssetReadError
from s2cube.fetch import session
from s2cube.fetch.store import Access, fetch
from s2cube.raster import gdal_file
from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.reader import AssetReader
from support.cogs import SPEC, WHOLE, means, noise, write_cog
from support.scenes import ramp, write_band
from support.servers import Faulty, FaultyHandler, answer, faulty, object_store, served


def read(href: str, access: Access | None = None) -> np.ndarray:
    kept = access or Access(timeout_s=10, retries=1)
    return whole_means(AssetReader(url=href, spec=SPEC, dtype=CELLS, access=kept).read(WHOLE))[0]


def masked() -> np.ndarray:
    """A mask of two 30 m cells: the rest is valid."""
    mask = np.full((600, 600), 255, "uint8")
    mask[:3, :6] = 0
    return mask


@pytest.fixture(scope="module")
def bucket(server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An object in a bucket."""
    folder = tmp_path_factory.mktemp("weed")
    with object_store(folder) as url:
        store = S3Store(
            "archive", endpoint=url, access_key_id="AKTEST", secret_access_key="SKTEST", region="us-east-1",
            client_options={"allow_http": True},
        )  # fmt: skip
        # A bucket is made by a request like that for an object without a name.
        requests.put(obstore.sign(store, "PUT", "", timedelta(minutes=1)), timeout=30).raise_for_status()
        write_cog(folder / "a.tif", noise())
        obstore.put(store, "tiles/14/a b+c.tif", (folder / "a.tif").read_bytes())
        with rasterio.open(folder / "a.tif") as file:
            rasterio.shutil.copy(file, folder / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        write_band(folder / "a.tif", noise(), 10)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(folder / "a.tif", "r+") as file:
            file.write_mask(masked())
        for name in ("a.jp2", "a.tif"):
            obstore.put(store, f"by gdal/{name}", (folder / name).read_bytes())
        yield url


class TestS3:
    @pytest.fixture(params=["AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL"])
    def keys(self, bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        """Keys and place, as GDAL or as AWS calls them."""
        session.reset()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKTEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SKTEST")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        if request.param == "AWS_S3_ENDPOINT":
            monkeypatch.setenv("AWS_S3_ENDPOINT", bucket.removeprefix("http://"))
            monkeypatch.setenv("AWS_HTTPS", "NO")
        else:
            monkeypatch.setenv("AWS_ENDPOINT_URL", bucket)
            monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    @pytest.mark.usefixtures("keys")
    def test_is_read(self) -> None:
        access = Access()
        np.testing.assert_allclose(read("s3://archive/tiles/14/a b+c.tif", access), means(noise()), rtol=1e-5)
        assert access.usage.traffic.requests == 2

    @pytest.mark.usefixtures("keys")
    @pytest.mark.parametrize("name", ["a.jp2", "a.tif"])
    def test_gdal_reads_it_too(self, name: str) -> None:
        """It is given bytes: it knows no key."""
        wanted = means(noise())
        access = Access()
        cells = read(f"s3://archive/by gdal/{name}", access)
        assert list(access.usage.notes) == [f"s3://archive/by gdal/{name}"]
        if name == "a.tif":
            assert (cells[0, :2] == 0).all()
            wanted[0, :2] = 0
        np.testing.assert_allclose(cells, wanted, rtol=1e-5)

    @pytest.mark.usefixtures("keys")
    def test_a_wrong_key_of_gdals_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
        session.reset()
        with pytest.raises(AssetReadError, match=r"s3://archive/by gdal/a\.jp2: cannot be read .*403") as caught:
            gdal_file.rasters("s3://archive/by gdal/a.jp2", Access(retries=0), "JP2OpenJPEG")
        assert not re.search("SECRET|AKTEST|Amz", str(caught.value))

    @pytest.mark.usefixtures("keys")
    def test_what_is_not_there(self) -> None:
        with pytest.raises(
            AssetReadError, match=r"s3://archive/nothing\.tif: (answers 404|cannot be read .*not found)"
        ):
            read("s3://archive/nothing.tif")

    @pytest.mark.usefixtures("keys")
    def test_a_wrong_key_is_named_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
        session.reset()
        with pytest.raises(AssetReadError, match=r"s3://archive/tiles/.*403") as caught:
            read("s3://archive/tiles/14/a b+c.tif")
        assert "WRONGSECRET" not in str(caught.value)


class TestWhoPays:
    """Requests as a server sees them."""

    @pytest.fixture
    def heard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        heard: list[str] = []

        class Listening(FaultyHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.path} {self.headers}")
                super().do_GET()

            do_HEAD = do_GET

        (tmp_path / "archive").mkdir()
        write_cog(tmp_path / "archive" / "a.tif", noise())
        session.reset()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, "us-east-1")
        with served(Faulty(tmp_path, Listening)) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            yield heard

    @pytest.mark.parametrize("said", [True, False])
    def test_the_requester(self, heard: list[str], said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if said:
            monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
        fetch("s3://archive/a.tif", 0, 8, Access())
        assert ("x-amz-request-payer: requester" in heard[0]) is said
        assert bool(re.search("SignedHeaders=[^,]*x-amz-request-payer", heard[0])) is said
        with pytest.raises(AssetReadError):
            gdal_file.rasters("s3://archive/a.tif", Access(retries=0), "JP2OpenJPEG")
        assert ("x-amz-request-payer: requester" in heard[1]) is said
        assert bool(re.search("SignedHeaders=[^,]*x-amz-request-payer", heard[1])) is said
        assert "Signature=" in heard[1]

    def test_nobody_where_nothing_is_signed(self, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        fetch("s3://archive/a.tif", 0, 8, Access())
        with pytest.raises(AssetReadError):
            gdal_file.rasters("s3://archive/a.tif", Access(retries=0), "JP2OpenJPEG")
        assert len(heard) > 1
        assert not re.search("amz|authorization", str(heard), re.IGNORECASE)


class TestAddresses:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Faulty]:
        write_cog(tmp_path / "a.tif", noise())
        with faulty(tmp_path) as server:
            yield server

    def test_a_signature_is_sent_with_every_request_and_never_shown(self, server: Faulty) -> None:
        signed = f"{server.url}/a.tif?sig=a%2Fb%3D&se=2026"
        np.testing.assert_allclose(read(signed), means(noise()), rtol=1e-5)
        assert {each.path for each in server.asked} == {"/a.tif?sig=a%2Fb%3D&se=2026"}
        server.fault = lambda *_: answer(403)
        with pytest.raises(AssetReadError, match=r"/a\.tif\?…: answers 403") as caught:
            fetch(signed, 0, 10, Access())
        assert "a%2Fb" not in str(caught.value)

    def test_odd_names(self, server: Faulty) -> None:
        """They come to the server as they are written in the item."""
        name = "%C3%A4%20b+c%2520.tif"
        (server.root / "a.tif").rename(server.root / name)
        np.testing.assert_allclose(read(f"{server.url}/{name}"), means(noise()), rtol=1e-5)
        assert server.asked[0].path == f"/{name}"

    def test_nobody_is_there(self) -> None:
        with pytest.raises(AssetReadError, match=r"cannot be read \(127\.0\.0\.1:9 refuses the connection\)"):
            fetch("http://127.0.0.1:9/a.tif", 0, 10, Access(retries=0))

    @pytest.mark.parametrize("href", ["file://{folder}/a.tif", "{folder}/a.tif"])
    def test_files_of_this_machine(self, tmp_path: Path, href: str) -> None:
        write_cog(tmp_path / "a.tif", noise())
        access = Access()
        np.testing.assert_allclose(read(href.format(folder=tmp_path), access), means(noise()), rtol=1e-5)
        assert access.usage.traffic.requests == 2

    def test_a_file_that_is_written_anew_is_read_anew(self, tmp_path: Path) -> None:
        write_band(tmp_path / "b.tif", ramp(600, 10), 10)
        first = read(str(tmp_path / "b.tif"))
        write_band(tmp_path / "b.tif", ramp(600, 10) + np.uint16(7), 10)
        np.testing.assert_allclose(read(str(tmp_path / "b.tif")), first + 7, rtol=1e-5)
