"""Rewrite Items of an older form in the form of today. No pixel is read, and no image changes."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.kernels.packing import PACKINGS
from s2cube.output.item_form import Raster, data_bands, extensions, qa_members, raster_properties
from s2cube.storage.image_item import DATA, ITEM_VERSION, QA_IMAGE, ImageItem
from s2cube.storage.json_text import stac_json
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output

_FORMER = ("eo:bands", "raster:bands")
"""Members of assets that STAC 1.1 has replaced by `bands`."""


def is_older(item: ImageItem) -> bool:
    """Return whether an Item has an older form than this version of s2cube writes, and can be rewritten."""
    if item.properties.get(ITEM_VERSION, 1) != 1:
        return False
    try:
        _raster(item)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False  # a member that s2cube does not read otherwise was changed
    return True


def renew(output: Output, slices: Sequence[tuple[str, str]]) -> None:
    """Rewrite the Items of slices, given by the ids of AOI and slice, if they have an older form.

    Each Item is replaced in one step: if the run stops, every Item is the old or the new one.

    Raises
    ------
    BusyError
        If another run writes there now.
    WriteError
        If an Item cannot be written. The old Item remains.
    """
    if not slices:
        return
    output.fence.check()
    with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
        for _ in threads.map(partial(_renew, output), *zip(*slices, strict=True)):
            pass  # raises the error of a thread


def _renew(output: Output, aoi_id: str, slice_id: str) -> None:
    item = output.item(aoi_id, slice_id)
    if item and is_older(item):
        output.destination.put(slice_file(aoi_id, slice_id), stac_json(renewed(item)))


def renewed(item: ImageItem) -> dict[str, Any]:
    """Return an Item of the first form in the form of today.

    Everything that the form does not concern is unchanged. It has no statistics, because they need the pixels, and no
    `processing:software`, because the version that made the image is unknown.
    """
    assets = {name: _without(asset, _FORMER) for name, asset in item.document["assets"].items()}
    raster = _raster(item)
    assets[DATA] |= {"bands": data_bands(raster)}
    if QA_IMAGE in assets:
        assets[QA_IMAGE] |= qa_members()
    properties = {**item.properties, **raster_properties(raster, item.scenes)}
    described = extensions(properties, assets.values())
    own = [each for each in item.document["stac_extensions"] if not _is_replaced(each, described)]
    return {
        **item.document,
        "stac_version": "1.1.0",
        "stac_extensions": sorted([*own, *described]),
        "properties": properties,
        "assets": assets,
    }


def _raster(item: ImageItem) -> Raster:
    properties = item.properties
    dtype = item.document["assets"][DATA]["raster:bands"][0]["data_type"]
    rows, columns = map(int, properties["proj:shape"])
    transform = [float(each) for each in properties["proj:transform"][:6]]
    if len(transform) != 6:
        raise ValueError("proj:transform is too short")
    packing = PACKINGS[dtype]
    return Raster(
        item.bands, dtype, packing.scale, packing.nodata, packing.unit, properties["proj:code"], (rows, columns),
        transform, transform[0],
    )  # fmt: skip


def _is_replaced(extension: str, others: list[str]) -> bool:
    """Return whether others contain the same extension in another version."""
    return any(each.rsplit("/", 2)[0] == extension.rsplit("/", 2)[0] for each in others)


def _without(asset: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in asset.items() if name not in names}
