"""An address becomes items: a STAC API, an ItemCollection, a static catalogue, stac-geoparquet."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac
from pystac.utils import make_absolute_href

from s2cube.errors import OutputError, SearchError
from s2cube.items import detached, from_features
from s2cube.network import diagnose
from s2cube.stac_io import patient_io

if TYPE_CHECKING:
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

_PARQUET = (".parquet", ".geoparquet")
_JSON = (".json", ".geojson")


def open_source(stac: str) -> "Client | Iterator[pystac.Item]":
    """Open an address: a client of an API, that can be asked, or the items of anything else.

    Items stand for themselves: with absolute asset hrefs, and no link but their own to the catalogue.

    Raises
    ------
    SearchError
        If it cannot be read or is no STAC; while items are taken too.
    """
    if stac.endswith(_PARQUET):
        return _from_geoparquet(stac)
    io = patient_io()
    root = _read(io, stac)
    relations = {link.get("rel") for link in root.get("links", [])}
    match root.get("type"):
        case "Catalog" if "conformsTo" in root or "search" in relations:
            from pystac_client import Client

            return Client.open(stac, stac_io=io)
        case "FeatureCollection" | "Collection" if relations & {"next", "items"} and not relations & {"item", "child"}:
            raise SearchError(stac, "is a part of a STAC API", "Give its root by --stac, and --collection")
        case "FeatureCollection" | "Feature":
            return from_features(root.get("features", []) if "features" in root else [root], stac)
        case "Catalog" | "Collection":
            return _from_static(root, io, stac)
    raise SearchError(stac, "is no STAC catalogue, API or ItemCollection", "Check --stac")


def save_items(items: Iterable[pystac.Item], path: Path) -> None:
    """Write scenes as an ItemCollection (``.json``, ``.geojson``) or as stac-geoparquet (``.parquet``).

    Raises
    ------
    OutputError
        If the name ends otherwise or the file cannot be written.
    SearchError
        If the package that writes stac-geoparquet is not installed.
    """
    if path.suffix not in _PARQUET + _JSON:
        raise OutputError(str(path), "is no format for scenes", "End the name in .geojson or .parquet")
    content = pystac.ItemCollection(items).to_dict()
    arrow = _geoparquet(str(path)) if path.suffix in _PARQUET else None
    try:
        if arrow:
            arrow.to_parquet(arrow.parse_stac_items_to_arrow(content["features"]), path)
        else:
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror or error})", "Choose another name") from None


def _read(io: "StacApiIO", stac: str) -> dict[str, Any]:
    from pystac_client.exceptions import APIError

    try:
        root = io.read_json(stac)
    except APIError as error:
        # pystac-client sets a status only where there was an answer.
        status = getattr(error, "status_code", None)
        trouble = diagnose(error, stac)
        problem = f"answers {status}" if status else f"does not answer ({trouble.problem})"
        raise SearchError(stac, problem, trouble.remedy or "Check --stac and the network") from None
    except OSError as error:
        raise SearchError(stac, f"cannot be read ({error.strerror})", "Check --stac") from None
    except ValueError:
        raise SearchError(stac, "answers something that is not JSON", "Check --stac: it must be a STAC") from None
    if not isinstance(root, dict):
        raise SearchError(stac, "is JSON but no STAC", "Check --stac")
    return root


def _from_static(root: dict[str, Any], io: "StacApiIO", base: str) -> Iterator[pystac.Item]:
    from pystac.stac_io import DefaultStacIO
    from pystac_client.exceptions import APIError

    class StaticIO(DefaultStacIO):
        """Read as patiently as an API, but make plain pystac of it."""

        def read_text(self, source: Any, *_: Any, **__: Any) -> str:
            return io.read_text(source)

    try:
        kind = pystac.Collection if root["type"] == "Collection" else pystac.Catalog
        catalog = kind.from_dict(root, href=make_absolute_href(base))
        catalog._stac_io = StaticIO()
        for item in catalog.get_items(recursive=True):
            yield detached(item.clone(), base)
    except (APIError, OSError, KeyError, ValueError, pystac.STACError, pystac.STACTypeError) as error:
        raise SearchError(base, f"has a broken link ({error})", "Check the catalogue") from error


def _from_geoparquet(path: str) -> Iterator[pystac.Item]:
    arrow = _geoparquet(path)
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        yield from from_features(list(arrow.stac_table_to_items(table)), path)
    except (OSError, pyarrow.ArrowException) as error:
        raise SearchError(path, f"cannot be read as stac-geoparquet ({error})", "Check --stac") from None


def _geoparquet(path: str) -> Any:
    try:
        import stac_geoparquet.arrow
    except ImportError:
        raise SearchError(
            path, "wants the package stac-geoparquet", "Install it: pip install 's2cube[geoparquet]'"
        ) from None
    return stac_geoparquet.arrow
