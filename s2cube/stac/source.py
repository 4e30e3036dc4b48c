"""Open a STAC API, an ItemCollection, an Item, a static catalogue or stac-geoparquet; read and save items."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pystac

from s2cube.errors import ConfigError, OutputError, SearchError
from s2cube.fetch.addresses import is_local, local_path
from s2cube.stac._document import Document
from s2cube.stac._items import from_features
from s2cube.stac._static import items_below
from s2cube.stac.api import Api
from s2cube.stac.catalogue_io import TIMEOUT_S, CatalogueIO, Request, check_file

_PARQUET = (".parquet", ".geoparquet")
_JSON = (".json", ".geojson")

ItemsLike: TypeAlias = (
    str | Path | pystac.Item | pystac.ItemCollection | Mapping[str, Any] | Iterable[pystac.Item | Mapping[str, Any]]
)
_TAKEN = (
    "Give a list of pystac Items or of their dicts, an ItemCollection, one Item, or the path of an ItemCollection or "
    "of a stac-geoparquet file"
)


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


def to_items(items: ItemsLike) -> list[pystac.Item]:
    """Return the scenes that a user gives as pystac Items.

    Parameters
    ----------
    items
        Items or their dicts in any iterable; an ItemCollection of pystac or as a dict; one Item; or the path of an
        ItemCollection, an Item, a static catalogue or a stac-geoparquet file. Relative hrefs of a dict are relative to
        the current folder.

    Raises
    ------
    ConfigError
        If it is none of these.
    SearchError
        If the file cannot be read.
    """
    if isinstance(items, str | Path):
        source = open_source(str(items))
        if isinstance(source, Api):
            raise ConfigError("items", f"{items} is a STAC API, not scenes", "Search it by s2cube.search(…, stac=…)")
        return list(source)
    if isinstance(items, pystac.Item):
        return [items]
    if isinstance(items, Mapping):
        if items.get("type") not in ("Feature", "FeatureCollection"):
            raise ConfigError("items", "are a dict that is neither an Item nor an ItemCollection", _TAKEN)
        features = items.get("features") if items["type"] == "FeatureCollection" else [items]
        if not isinstance(features, list | tuple):
            raise ConfigError("items", "are an ItemCollection whose features are not a list", _TAKEN)
        return [_to_item(each, position) for position, each in enumerate(features, start=1)]
    if not isinstance(items, Iterable) or isinstance(items, bytes):
        raise ConfigError("items", f"are of the type {type(items).__name__}, not scenes", _TAKEN)
    return [_to_item(each, position) for position, each in enumerate(items, start=1)]


def _to_item(item: object, position: int) -> pystac.Item:
    if isinstance(item, pystac.Item):
        return item
    if isinstance(item, Mapping):
        (converted,) = from_features([dict(item)], str(Path("items.json").absolute()))
        return converted
    raise ConfigError("items", f"contain a {type(item).__name__} at position {position}, not a scene", _TAKEN)


def save_items(items: ItemsLike, path: str | Path) -> None:
    """Write scenes as an ItemCollection (``.json``, ``.geojson``) or as stac-geoparquet (``.parquet``).

    Parameters
    ----------
    items
        Scenes, as `search` returns them, or anything else that `open_cube` takes.
    path
        File to write. Its suffix selects the format. The setting ``stac`` accepts this file.

    Raises
    ------
    OutputError
        If the name has another suffix, or if the file cannot be written.
    ConfigError
        If `items` are not scenes.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = "s2cube-demo/archive/aoi.geojson"
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05")
    >>> s2cube.save_items(items, "scenes.geojson")
    >>> [item.id for item in s2cube.search(aoi, stac="scenes.geojson")] == [item.id for item in items]
    True
    """
    path = Path(path)
    if path.suffix not in _PARQUET + _JSON:
        raise OutputError(
            str(path), "has an ending that is not a format for scenes", "Use .geojson, .json, .parquet or .geoparquet"
        )
    content = pystac.ItemCollection(to_items(items)).to_dict()
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
