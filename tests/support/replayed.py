"""Four real STAC APIs under their own names, replayed by a local proxy from recordings (not part of the project).

The results that a test expects are computed here from the recordings, without s2cube.
"""

import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import requests
import shapely
from rasterio.transform import from_origin

from support.outside import RECORDINGS
from support.servers import free_port, process, require_server


@dataclass(frozen=True)
class Catalogue:
    """One of the APIs with a collection, and an area and dates to search.

    Parameters
    ----------
    key
        Name of the API in the recordings.
    first, last
        Solar days of the area.
    """

    key: str
    stac: str
    collection: str
    area: str
    first: str = "2015-01-01"
    last: str = "2025-12-31"

    @property
    def words(self) -> list[object]:
        return ["--stac", self.stac, "--collection", self.collection, "--aoi", self.path, "--datetime",
                f"{self.first}/{self.last}"]  # fmt: skip

    @property
    def path(self) -> Path:
        return RECORDINGS / f"{self.area}.geojson"

    @property
    def shape(self) -> Any:
        (feature,) = json.loads(self.path.read_text())["features"]
        return shapely.geometry.shape(feature["geometry"])

    def day(self, item: dict[str, Any]) -> date:
        """Return the solar day of a scene: the date of UTC plus one hour per 15 degrees of longitude."""
        instant = datetime.fromisoformat(item["properties"]["datetime"])
        return (instant + timedelta(hours=self.shape.centroid.x / 15)).date()

    def scenes(self) -> list[dict[str, Any]]:
        """Return the items that a search must find."""
        first, last = date.fromisoformat(self.first), date.fromisoformat(self.last)
        return [
            item
            for item in recordings()["items"][self.key]
            if item["collection"] == self.collection
            and shapely.make_valid(shapely.geometry.shape(item["geometry"])).intersects(self.shape)
            and first <= self.day(item) <= last
        ]

    def ids(self) -> list[str]:
        return sorted(item["id"] for item in self.scenes())


EARTH_SEARCH = Catalogue(
    "es", "https://earth-search.aws.element84.com/v1", "sentinel-2-l2a", "alps2", "2017-01-01", "2024-06-12"
)
PLANETARY_COMPUTER = Catalogue(
    "pc", "https://planetarycomputer.microsoft.com/api/stac/v1", "sentinel-2-l2a", "kamchatka"
)
COPERNICUS = Catalogue("cd", "https://stac.dataspace.copernicus.eu/v1", "sentinel-2-l2a", "alps")
DIGITAL_EARTH_AFRICA = Catalogue(
    "dea", "https://explorer.digitalearth.africa/stac", "s2_l2a_c1", "tanzania", "2021-01-01", "2024-12-31"
)


@lru_cache(maxsize=1)
def recordings() -> dict[str, Any]:
    documents: dict[str, Any] = json.loads(lzma.decompress((RECORDINGS / "documents.json.xz").read_bytes()))
    return documents


@dataclass(frozen=True)
class Replay:
    """The proxy that answers for the APIs.

    Parameters
    ----------
    authority
        Certificate of the authority that signed the certificates of the servers.
    log
        Requests to the proxy, one line of JSON per request.
    """

    url: str
    authority: Path
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a process that uses the proxy for all its requests by http and https."""
        return {
            "HTTPS_PROXY": self.url, "HTTP_PROXY": self.url, "NO_PROXY": "127.0.0.1",
            "SSL_CERT_FILE": str(self.authority), "REQUESTS_CA_BUNDLE": str(self.authority),
        }  # fmt: skip

    def forget(self) -> None:
        self.log.write_text("")

    @property
    def asked(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [each for each in lines if each["what"] in ("GET", "HEAD", "POST", "PUT")]

    @property
    def refused(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [each for each in lines if each["what"] not in ("GET", "HEAD", "POST", "PUT")]

    @property
    def hosts(self) -> set[str]:
        return {each["host"] for each in self.asked}

    @property
    def searches(self) -> list[dict[str, Any]]:
        return [each for each in self.asked if each["path"].partition("?")[0].endswith("/search")]

    def post(self, address: str, question: dict[str, Any]) -> dict[str, Any]:
        """Send a search to an API without s2cube."""
        proxies = {"https": self.url}
        done = requests.post(address, json=question, proxies=proxies, verify=str(self.authority), timeout=30)
        done.raise_for_status()
        answer: dict[str, Any] = done.json()
        return answer


@contextmanager
def replay(folder: Path, *modes: str) -> Iterator[Replay]:
    """Run the proxy until the context ends.

    Parameters
    ----------
    folder
        Folder for certificates and the log. The proxy serves the files in its subfolder `files`.
    modes
        Variations of the servers, as `replay.py` names them.
    """
    require_server(shutil.which("openssl") is not None, "openssl")
    subprocess.run(["bash", str(RECORDINGS / "certs.sh"), str(folder)], check=True)
    port, log = free_port(), folder / "requests.jsonl"
    environment = os.environ | {
        "REPLAY_CERTS": str(folder), "REPLAY_FILES": str(folder / "files"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = [sys.executable, str(RECORDINGS / "replay.py"), str(port), str(log), *modes]
    url = f"http://127.0.0.1:{port}"
    with process(command, url, folder / "replay.log", env=environment):
        yield Replay(url, folder / "bundle.pem", log)


DN = 3000
"""Value of every pixel of all served bands."""
_PIXEL_M, _SIDE_M = 60, 109800
_BARE = 5
"""Scene class: bare soil."""
_TILES = {
    # Prefix of file names in the proxy, and the grid of the requested tiles: EPSG code, west and north in metres.
    # The first entry is for the tile 32TNT of Earth Search: the proxy uses these files if no other prefix matches.
    "14tnl": (32632, 499980, 5300040, "tif"),
    "60vuk": (32660, 300000, 6500040, "tif"),
    "32tmt": (32632, 399960, 5300040, "jp2"),
    "37mgp": (32737, 699960, 9400000, "tif"),
}


def write_files(folder: Path) -> None:
    """Write the files of one tile per catalogue, at 60 m. Every band is `DN`, every pixel is bare soil."""
    folder.mkdir()
    side = _SIDE_M // _PIXEL_M
    for name, (epsg, west, north, kind) in _TILES.items():
        for layer, dtype, value in (("b10", "uint16", DN), ("b20", "uint16", DN), ("scl", "uint8", _BARE)):
            path = folder / f"{name}_{layer}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", width=side, height=side, count=1, dtype=dtype, crs=epsg, tiled=True,
                transform=from_origin(west, north, _PIXEL_M, _PIXEL_M), compress="deflate",
            ) as file:  # fmt: skip
                file.write(np.full((side, side), value, dtype), 1)
            if kind == "jp2":
                rasterio.shutil.copy(
                    path, path.with_suffix(".jp2"), driver="JP2OpenJPEG", quality=100, reversible="YES"
                )
