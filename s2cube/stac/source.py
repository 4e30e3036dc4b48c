"""Open a STAC API, an ItemCollection, an Item, a static catalogue or stac-geoparquet; save items."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pystac

from s2cube.errors import OutputError, SearchError
from s2cube.fetch.addresses import is_local, local_path
from s2cube.stac._document import Document
from s2cube.stac._items import from_features
from s2cube.stac._static import items_below
from s2cube.stac.api import Api
from s2cube.stac.catalogue_io import TIMEOUT_S, CatalogueIO, Request, check_file

_PARQUET = (".parquet", ".geoparquet")
_JSON = (".json", ".geojson")


def open_source(stac: str, timeout_s: float = TIMEOUT_S) -> Api | Iterator[pystac.Item]:
    """Open an address: return an API that can be searched, or the items of any other source.

    Items have absolute asset hrefs without secrets. Their only link is ``self``.

    Parameters
    ----------
    timeout_s
        Time limit of a complete answer of a server, seconds.

    Raises
    ------
    SearchError
        If the source cannot be read or is not STAC. Files of a static catalogue are read while the caller iterates over
        the items, so this error may also be raised then.
    """
    if stac.lower().endswith(_PARQUET):
        return _from_geoparquet(stac)
    io = CatalogueIO(timeout_s)
    path = local_path(stac) if is_local(stac) else None
    root = io.read(Request(stac if path is None else str(Path(path).absolute())))
    relations = _relations(root)
    match root.content.get("type"):
        case "Catalog" if "conformsTo" in root.content or "search" in relations:
            return Api.of(stac, root, io)
        case "FeatureCollection" | "Collection" if relations & {"next", "items"} and not relations & {"item", "child"}:
            raise SearchError(stac, "is a part of a STAC API", "Set --stac to the root of the API, and --collection")
        case "FeatureCollection":
            return from_features(_features(root), root.address)
        case "Feature":
            return from_features([root.content], root.address)
        case "Catalog" | "Collection":
            return items_below(root, io)
    raise SearchError(stac, "is not a STAC catalogue, API or ItemCollection", "Check --stac")


def _relations(root: Document) -> set[object]:
    links = root.content.get("links")
    return {link.get("rel") for link in links if isinstance(link, dict)} if isinstance(links, list) else set()


def _features(root: Document) -> list[Any]:
    features = root.content.get("features")
    if not isinstance(features, list):
        raise SearchError(root.address, "has features that are not a list", "Check --stac")
    return features


def save_items(items: Iterable[pystac.Item], path: Path) -> None:
    """Write scenes as an ItemCollection (``.json``, ``.geojson``) or as stac-geoparquet (``.parquet``).

    Parameters
    ----------
    items
        Scenes, as `search` returns them.
    path
        File to write. Its suffix selects the format. The setting ``stac`` accepts this file.

    Raises
    ------
    OutputError
        If the name has another suffix, or if the file cannot be written.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> from pathlib import Path
    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05")
    >>> s2cube.save_items(items, Path("scenes.geojson"))
    >>> [item.id for item in s2cube.search(aoi, stac="scenes.geojson")] == [item.id for item in items]
    True
    """
    if path.suffix not in _PARQUET + _JSON:
        raise OutputError(
            str(path), "has an ending that is not a format for scenes", "Use .geojson, .json, .parquet or .geoparquet"
        )
    content = pystac.ItemCollection(items).to_dict()
    try:
        if path.suffix in _PARQUET:
            _write_geoparquet(content["features"], path)
        else:
            path.write_bytes(_utf8(content))
    except OSError as error:
        raise OutputError(
            str(path), f"cannot be written ({error.strerror or error})", "Choose another file name"
        ) from None


def _utf8(content: dict[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # UTF-8 cannot contain a lone surrogate. JSON can write it as an escape.
        return json.dumps(content).encode()


def _write_geoparquet(features: list[Any], path: Path) -> None:
    import pyarrow
    from stac_geoparquet import arrow

    try:
        arrow.to_parquet(arrow.parse_stac_items_to_arrow(features), path)
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"cannot be written as stac-geoparquet ({error})"
        raise OutputError(str(path), problem, "Use a file name that ends in .geojson") from None


def _from_geoparquet(path: str) -> Iterator[pystac.Item]:
    import pyarrow.parquet
    from stac_geoparquet import arrow

    if "://" not in path and not Path(path).is_dir():
        check_file(path)
    try:
        features = list(arrow.stac_table_to_items(pyarrow.parquet.read_table(path)))
    except (OSError, pyarrow.ArrowException, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"cannot be read as stac-geoparquet ({type(error).__name__}: {error})"
        raise SearchError(path, problem, "Check --stac") from None
    yield from from_features(features, path)
