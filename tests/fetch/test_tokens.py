"""Tokens: had when they are needed, renewed before they end, sent to whom they are for, and told to nobody."""

import json
import logging
import pickle
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.windows import Window

import s2cube
from s2cube.cluster import stream
from s2cube.config.loading import load_config
from s2cube.config.sections import ReadSection
from s2cube.demo.archive import Archive
from s2cube.errors import AssetReadError, ConfigError
from s2cube.fetch import session
from s2cube.fetch import tokens as sign
from s2cube.fetch.store import Access, fetch
from s2cube.fetch.tokens import PLANETARY_COMPUTER, token_server, unsigned
from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.gdal_file import rasters
from s2cube.raster.lattice import rectangles
from s2cube.raster.reader import AssetReader
from s2cube.stac.source import open_source, save_items
from support.cogs import SPEC, WHOLE, means, noise, write_cog
from support.runs import CommandLine, Job
from support.scenes import CLEAR, ramp, rectangle, scene, write_band
from support.servers import Faulty, FaultyHandler, Gate, answer, served


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_session: None) -> Iterator[Gate]:
    """A file behind a gate, whose clock is ours: no test waits."""
    (tmp_path / "archive").mkdir()
    write_cog(tmp_path / "archive" / "a.tif", noise())
    with served(Gate(tmp_path)) as server:
        monkeypatch.setattr(sign, "time", SimpleNamespace(monotonic=lambda: server.now_s))
        yield server


def access(gate: Gate, **options: Any) -> Access:
    return Access(**({"timeout_s": 5, "retries": 2, "tokens": tuple(gate.rule.items())} | options))


def get(gate: Gate, **options: Any) -> bytes:
    return bytes(fetch(f"{gate.url}/archive/a.tif", 0, 8, access(gate, **options)).data)


def refusals(gate: Gate) -> int:
    return sum(each.start < 0 for each in gate.asked)


class TestLives:
    @pytest.mark.parametrize(("life_s", "reads_a_token"), [(100, 8), (10, 8), (86400, 10)])
    def test_reading_outlives_tokens(self, gate: Gate, life_s: float, reads_a_token: int) -> None:
        """A tenth of a life each: a short one is renewed after eight, at a fifth before its end."""
        gate.life_s, gate.step_s = life_s, life_s / 10
        for _ in range(50):
            assert get(gate) == (gate.root / "archive" / "a.tif").read_bytes()[:8]
        assert gate.given == -(-50 // reads_a_token)
        assert refusals(gate) == 0

    def test_an_hour_is_renewed_five_minutes_before(self, gate: Gate) -> None:
        get(gate)
        for now_s, tokens in ((4299, 1), (4301, 2)):
            gate.now_s = now_s
            get(gate)
            assert gate.given == tokens

    def test_pixels(self, gate: Gate) -> None:
        kept = access(gate)
        one = AssetReader(url=f"{gate.url}/archive/a.tif", spec=SPEC, dtype=CELLS, access=kept)
        np.testing.assert_allclose(whole_means(one.read(WHOLE))[0], means(noise()), rtol=1e-5)
        assert kept.usage.traffic.requests == len(gate.asked) == 2
        assert gate.given == 1

    def test_threads_ask_for_one(self, gate: Gate) -> None:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: get(gate), range(64)))
            assert gate.given == 1
            gate.ends.clear()
            list(threads.map(lambda _: get(gate), range(64)))
        assert gate.given == 2

    def test_a_clock_that_is_wrong_does_no_harm(self, gate: Gate) -> None:
        """Ours is months off that of the server, which says when a token ends."""
        gate.life_s = 100
        get(gate)
        gate.now_s += 79
        get(gate)
        assert gate.given == 1
        gate.now_s += 2
        get(gate)
        assert (gate.given, refusals(gate)) == (2, 0)


class TestRefusals:
    def test_a_token_that_is_revoked_is_renewed(self, gate: Gate) -> None:
        get(gate)
        gate.ends.clear()
        get(gate)
        assert (gate.given, refusals(gate)) == (2, 1)

    def test_the_second_is_final_and_no_token_is_asked_for_again_at_once(self, gate: Gate) -> None:
        get(gate)
        gate.fault = lambda *_: answer(403)
        for _ in range(5):
            with pytest.raises(AssetReadError, match=r"a\.tif: answers 403"):
                get(gate)
        assert gate.given == 2

    def test_nobody_gives_one_for_a_while(self, gate: Gate) -> None:
        faults = [answer(503), answer(429, headers="Retry-After: 0\r\n")]
        gate.at_token = lambda: faults.pop() if faults else None
        assert get(gate)
        assert gate.given == 3

    def test_while_one_is_good_it_does(self, gate: Gate) -> None:
        get(gate)
        gate.at_token = lambda: answer(503)
        gate.now_s += 3400
        get(gate)
        asked = gate.given
        get(gate)
        assert gate.given == asked == 4
        gate.now_s += 150
        gate.at_token = lambda: None
        get(gate)
        assert (gate.given, refusals(gate)) == (5, 0)

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (answer(401, b"no"), r"answers 401\)\. "),
            (answer(302, headers="Location: http://127.0.0.1:9/\r\n"), r"answers 302\)\. "),
            (answer(200, b"<html>"), r"the answer contains no token\)\. "),
            (answer(200, b'{"token": "sig=TOPSECRET"}'), r"the answer contains no token\)\. "),
            (
                answer(200, b'{"token": "sig=TOPSECRET", "msft:expiry": "2000-01-01T00:00:00Z"}'),
                r"the token is invalid or has expired\)\. ",
            ),
            (
                answer(200, b'{"token": "TOP SECRET", "msft:expiry": "2900-01-01T00:00:00Z"}'),
                r"the token is invalid or has expired\)\. ",
            ),
            (answer(503), r"answers 503\) after 2 retries\. "),
            (b"", r"[\d.:]+ closed the connection without an answer\) after 2 retries\. "),
        ],
    )
    def test_nobody_gives_one(self, gate: Gate, fault: bytes, told: str) -> None:
        gate.at_token = lambda: fault
        with pytest.raises(
            AssetReadError, match=rf"archive/a\.tif: cannot be read: {gate.url}/token gives no token for it \({told}"
        ) as caught:
            get(gate)
        assert "SECRET" not in str(caught.value)
        assert not gate.asked
        gate.at_token = lambda: None
        assert get(gate)

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (answer(404), "answers 404"),
            (answer(416), "is shorter than its header says"),
            (answer(200, b"x" * 50_000), "ignores HTTP ranges"),
            (answer(503), r"\(answers 503\) after 2 retries"),
            (answer(503, headers="Retry-After: 3600\r\n"), "asks to wait 3600 s"),
            (b"", r"closed the connection without an answer\) after 2 retries"),
            (answer(206, b"12345678", "Content-Range: bytes 7-14/99\r\n"), "server sent other bytes than requested"),
            (answer(206, b"1234567", "Content-Range: bytes 0-6/99\r\n"), "7 of 8 bytes were received"),
            (answer(206, b"12345678", "Content-Range: bytes 0-7/99\r\n")[:-4], r"\(.*\) after 2 retries"),
        ],
    )
    def test_files_fail_as_others_do(self, gate: Gate, fault: bytes, told: str) -> None:
        gate.fault = lambda *_: fault
        with pytest.raises(AssetReadError, match=rf"archive/a\.tif: .*{told}") as caught:
            get(gate)
        assert "SECRET" not in str(caught.value)


class TestWhoIsTold:
    @pytest.mark.parametrize(
        ("href", "gives"),
        [
            ("https://host/a", "https://t/1"),
            ("https://host/a/x.tif", "https://t/1"),
            ("https://HOST/a/x.tif", "https://t/1"),
            ("https://host/a/b/x.tif?versionId=3", "https://t/2"),
            ("https://host/ab/x.tif", None),
            ("http://host/a/x.tif", None),
            ("https://host:8443/a/x.tif", None),
            ("https://host.evil/a/x.tif", None),
            ("https://host@evil/a/x.tif", None),
            ("https://host\\@evil/a/x.tif", None),
            ("https://host/a/../c/x.tif", None),
            ("https://host/a/%2e%2E/c/x.tif", None),
            ("https://host/a/..%5cc/x.tif", None),
            ("s3://host/a/x.tif", None),
            ("/host/a/x.tif", None),
        ],
    )
    def test_prefixes(self, href: str, gives: str | None) -> None:
        assert token_server(href, (("https://host/a/", "https://t/1"), ("https://host/a/b", "https://t/2"))) == gives

    def test_planetary_computers_by_its_items(self, real: Path) -> None:
        hrefs = [
            asset["href"]
            for path in (real / "items").rglob("*.json")
            for key, asset in json.loads(path.read_text())["assets"].items()
            if re.fullmatch(r"B\d[\dA]|SCL", key) and "planetary" in str(path)
        ]
        assert len(hrefs) > 30
        assert {token_server(href) for href in hrefs} == {PLANETARY_COMPUTER[0][1]}
        assert token_server("https://naipeuwest.blob.core.windows.net/naip/x.tif") is None

    def test_no_other_host(self, gate: Gate, tmp_path: Path) -> None:
        """Nor by Referer, where the gate sends us elsewhere."""
        heard: list[str] = []

        class Listening(FaultyHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.path} {self.headers}")
                super().do_GET()

        with served(Faulty(tmp_path, Listening)) as other:
            fetch(f"{other.url}/archive/a.tif", 0, 8, access(gate))
            gate.fault = lambda *_: answer(302, headers=f"Location: {other.url}/archive/a.tif\r\n")
            with pytest.raises(AssetReadError, match="answers 302"):
                get(gate)
            with pytest.raises(AssetReadError):
                rasters(f"{gate.url}/archive/a.tif", access(gate), "JP2OpenJPEG")
        # That of the first line: with a token no redirection is followed, by GDAL neither.
        assert len(heard) == 1
        assert gate.given == 1
        assert "SECRET" not in str(heard)

    def test_a_key_goes_to_whom_it_is_for(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "MYSECRETKEY")
        get(gate)
        assert "MYSECRETKEY" not in str(gate.token_headers)
        (key,) = sign._KEYS.values()
        monkeypatch.setattr(sign, "_KEYS", {gate.url.removeprefix("http://"): key})
        session.reset()
        get(gate)
        assert gate.token_headers[-1]["Ocp-Apim-Subscription-Key"] == "MYSECRETKEY"

    def test_nobody_reads_it(self, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
        """Not in logs of any library, nor in what travels to workers."""
        caplog.set_level(logging.DEBUG)
        shutil.copy(gate.root / "archive" / "a.tif", gate.root / "archive" / "b.tif")
        kept = access(gate)
        one = AssetReader(url=f"{gate.url}/archive/a.tif", spec=SPEC, dtype=CELLS, access=kept)
        one.read(WHOLE)
        rasters(f"{gate.url}/archive/b.tif", kept, "GTiff")[0]
        gate.fault = lambda *_: answer(403)
        with pytest.raises(AssetReadError) as caught:
            get(gate)
        told = [
            caplog.text,
            str(caught.value),
            repr(vars(caught.value)),
            repr([each.result() for each in sign._tokens()._kept.values()]),
            repr(kept),
        ]
        told += [repr(pickle.dumps(each)) for each in (kept, one, caught.value)]
        assert gate.given == 2
        assert "archive" in caplog.text
        assert not [text for text in told if "SECRET" in text]


class TestGdal:
    @pytest.fixture
    def jp2(self, gate: Gate) -> str:
        write_band(gate.root / "plain.tif", ramp(2048, 10), 10)
        options = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}
        with rasterio.open(gate.root / "plain.tif") as file:
            rasterio.shutil.copy(file, gate.root / "archive" / "a.jp2", driver="JP2OpenJPEG", **options)
        return f"{gate.url}/archive/a.jp2"

    def pixels(self, href: str, gate: Gate) -> np.ndarray:
        (raster,) = rasters(href, access(gate), "JP2OpenJPEG")
        pixels = np.zeros((2048, 2048), "uint16")
        for block in raster.blocks(rectangles([Window(0, 0, 2048, 2048)])):
            rows, columns = block.pixels.shape
            pixels[block.row : block.row + rows, block.column : block.column + columns] = block.pixels
        return pixels

    def test_tokens(self, gate: Gate, jp2: str) -> None:
        np.testing.assert_array_equal(self.pixels(jp2, gate), ramp(2048, 10))
        assert (gate.given, refusals(gate)) == (1, 0)
        gate.ends.clear()
        np.testing.assert_array_equal(self.pixels(jp2, gate), ramp(2048, 10))
        assert gate.given == 2

    @pytest.mark.parametrize("fault", [answer(403), answer(503)])
    def test_what_fails_in_the_midst_is_no_pixel(self, gate: Gate, jp2: str, fault: bytes) -> None:
        """GDAL takes an error for the end of the file, and would make pixels of what came before."""
        (raster,) = rasters(jp2, access(gate), "JP2OpenJPEG")
        gate.fault = lambda asked, _: fault if asked.start > 100_000 else None
        with pytest.raises(AssetReadError, match=r"archive/a\.jp2: .*answers (403|503)"):
            list(raster.blocks(rectangles([Window(0, 0, 2048, 2048)])))


KINDS = {
    "sv=2024-05-04&st=2026-01-01T00%3A00%3A00Z&se=2&sr=c&sp=rl&skoid=a&sktid=b&sig=TOPSECRET%3D": "",
    "versionId=3&se=2&sig=TOPSECRET": "versionId=3",
    "X-Amz-Algorithm=A&X-Amz-Credential=TOPSECRET&x-id=GetObject&X-Amz-Signature=TOPSECRET": "x-id=GetObject",
    "AWSAccessKeyId=TOPSECRET&Expires=1&Signature=TOPSECRET&versionId=a%2Fb": "versionId=a%2Fb",
    "X-Goog-Algorithm=A&X-Goog-Signature=TOPSECRET&generation=1": "generation=1",
    "GoogleAccessId=TOPSECRET&Expires=1&Signature=TOPSECRET": "",
    "Expires=1&Signature=TOPSECRET&Key-Pair-Id=TOPSECRET": "",
    "se=north&sp=1": "se=north&sp=1",
    "expires=1&format=png": "expires=1&format=png",
}


@pytest.mark.parametrize(("query", "left"), KINDS.items())
def test_what_a_signature_is(query: str, left: str) -> None:
    assert (
        unsigned(f"https://me:TOPSECRET@host/a%20b.tif?{query}") == f"https://host/a%20b.tif{'?' if left else ''}{left}"
    )
    assert unsigned(f"./a.tif?{query}") == f"./a.tif?{query}"


def test_a_token_takes_the_place_of_a_signature(gate: Gate) -> None:
    """Items that were signed elsewhere, and given in Python."""
    url = sign.sign(f"{gate.url}/archive/a.tif?versionId=3&sv=1&se=2&sig=OLD", tuple(gate.rule.items()), 5, 0)
    assert url == f"{gate.url}/archive/a.tif?versionId=3&{next(iter(gate.ends))}"


class TestItems:
    @pytest.fixture
    def catalogue(self, tmp_path: Path) -> Path:
        session.reset()
        item = scene(tmp_path, blue=ramp(60, 10)).to_dict()
        blue = item["assets"]["blue"]
        blue["href"] = "https://me:TOPSECRET@host/a.tif?versionId=3&se=1&sig=TOPSECRET"
        blue["alternate"] = {"s3": {"href": "https://host/b.tif?X-Amz-Credential=TOPSECRET&X-Amz-Signature=TOPSECRET"}}
        of_pc = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/a.tif"
        item["assets"]["SCL"] = {"href": f"{of_pc}?se=1&sig=TOPSECRET"}
        item["links"] = [{"rel": "self", "href": "https://host/item.json?se=1&sig=TOPSECRET"}]
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [item, item | {"id": "b"}]}))
        return path

    def test_hold_none(self, catalogue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        items: Any = list(open_source(str(catalogue)))  # type: ignore[arg-type]
        assert "TOPSECRET" not in json.dumps([item.to_dict() for item in items])
        assert items[0].assets["blue"].href == "https://host/a.tif?versionId=3"
        (warning,) = [record.message for record in caplog.records]
        assert "links to host come with a signature or a password" in warning
        assert "SECRET" not in warning
        save_items(items, tmp_path / "saved.geojson")
        assert "SECRET" not in (tmp_path / "saved.geojson").read_text()

    def test_a_run_tells_nothing(
        self, s2cube_command: CommandLine, job: Job, archive: Archive, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Items, failures, what is said by -vv, and what goes to workers; one file is refused."""
        page = json.loads(archive.items.read_text())
        for item in page["features"]:
            for asset in item["assets"].values():
                name = asset["href"].removeprefix("./").replace("/", "_")
                shutil.copy(archive.items.parent / asset["href"], gate.root / "archive" / name)
                asset["href"] = f"{gate.url}/archive/{name}?se=2020&sig=OLDSECRET"
        (gate.root / "signed.json").write_text(json.dumps(page))
        refused = Path(page["features"][0]["assets"]["blue"]["href"].partition("?")[0]).name
        gate.fault = lambda asked, _: answer(403) if refused in asked.path else None
        sent: list[bytes] = []
        submit = stream.submit

        def seen(client: Any, key: Any, function: Any, task: Any) -> Any:
            sent.append(cloudpickle.dumps((key, function, task)))
            return submit(client, key, function, task)

        monkeypatch.setattr(stream, "submit", seen)
        rule = ",".join(f"{prefix}={address}" for prefix, address in gate.rule.items())
        words = ["--bands", "blue", "--stac", gate.root / "signed.json", "--tokens", rule, "-vv"]
        done = s2cube_command(*job(*words))
        assert done.status == 3, done.err
        assert len(done.json["failed"]) == 1
        assert len(done.json["written"]) > 2
        assert sent
        texts = [done.out, done.err, *map(repr, sent)]
        texts += [path.read_bytes().decode("latin-1") for path in Path("out").rglob("*") if path.is_file()]
        assert any(refused in text for text in texts)
        assert not [text[:200] for text in texts if "SECRET" in text]
        assert gate.given >= 1


class TestSetting:
    def test_sources(self, tmp_path: Path) -> None:
        (tmp_path / "s2cube.toml").write_text(
            '[read.tokens]\n"https://h/a" = "https://t/1"\n"https://h/b" = "https://t/2"\n'
        )
        wanted = (("https://h/a", "https://t/1"), ("https://h/b", "https://t/2"))
        text = "https://h/a=https://t/1, https://h/b=https://t/2"
        assert load_config({}, {}).read.tokens == wanted
        assert load_config({"tokens": text}, {}).read.tokens == wanted
        assert load_config({}, {"S2CUBE_READ__TOKENS": text}).read.tokens == wanted
        assert ReadSection.of({"tokens": dict(wanted)}).tokens == wanted

    @pytest.mark.parametrize(
        "text",
        [
            "https://h/a",
            "https://h/a=",
            "ftp://h/a=https://t",
            "https://h/a=https://me:TOPSECRET@t",
            "https://h/a=https://t?key=TOPSECRET",
            "s3://h/a=https://t",
        ],
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="--tokens: ") as caught:
            load_config({"tokens": text}, {})
        assert "SECRET" not in str(caught.value)

    def test_in_python(self, gate: Gate, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        for asset in item.assets.values():
            name = Path(asset.href).name
            shutil.copy(asset.href, gate.root / "archive" / name)
            asset.href = f"{gate.url}/archive/{name}"
        cube = s2cube.open_cube([item], rectangle(600, -1200, 1200, -600), bands=["blue"], tokens=gate.rule)
        assert np.isfinite(cube.values).all()
        assert gate.given == 1
        assert "SECRET" not in repr(cloudpickle.dumps(cube))
