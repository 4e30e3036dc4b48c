"""Compute an image chunk by chunk and write its files: COG, QA, picture and Item."""

import shutil
from itertools import compress
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from s2cube.config.sections import OutputSection
from s2cube.cube.facts import SliceFacts
from s2cube.cube.mask import final_qa
from s2cube.cube.offset_check import OffsetCheck
from s2cube.cube.packing import PACKINGS, Packing
from s2cube.errors import OutputError, WriteError
from s2cube.output._cog import write_cog, write_qa
from s2cube.output._item import add_checksums, slice_item
from s2cube.output._picture import write_picture
from s2cube.output._spool import Spool, layout_of, open_spool
from s2cube.sentinel2 import QA, count_classes
from s2cube.storage.json_text import stac_json

_OF_QA = {"count": 1, "dtype": "uint8", "nodata": int(QA.OUTSIDE)}


def write_files(
    image: xr.DataArray, facts: SliceFacts, folder: Path, way: OutputSection, readers: int,
    check: OffsetCheck | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Compute an image and write its files to a folder. Only one chunk of its grid is in memory at a time.

    Parameters
    ----------
    image
        Lazy or computed, dims (band, y, x), as `cut` gives them.
    facts
        What else is known of it.
    readers
        Number of threads that compute.
    check
        Check of the offsets of its scenes.

    Returns
    -------
    tuple of str
        Ids of scenes that are in doubt.

    Raises
    ------
    OutputError
        If it holds values outside its area of interest.
    WriteError
        If they cannot be written whole.
    SliceError
        If a file cannot be read.
    """
    slice_id, of_image = facts.slice, layout_of(image)
    try:
        with open_spool(folder, **of_image) as pixels, open_spool(folder, **of_image | _OF_QA) as reasons:
            with pixels.filling(), reasons.filling():
                counts, tallies = _sum(
                    _filled(image, facts.aoi, pixels, reasons), check.tallies() if check else None, readers
                )
            doubts = check.doubtful(tallies) if check else []
            names = tuple(compress(facts.scenes, doubts))
            write_cog(image, pixels, folder / f"{slice_id}.tif", way)
            write_qa(reasons, folder / f"{slice_id}_qa.tif", way)
            write_picture(tuple(map(str, image.band.values)), pixels, folder / f"{slice_id}.png")
        item = slice_item(image, facts, counts, names)
        add_checksums(item, folder)
        content = item.to_dict(include_self_link=False, transform_hrefs=False)
        (folder / f"{slice_id}.json").write_bytes(stac_json(content))
    except OSError as error:
        # GDAL does not say why.
        free = shutil.disk_usage(folder).free
        problem = f"cannot be written ({error.strerror or error}); {free / 1e6:.1f} MB are free there"
        raise WriteError(f"{folder}/{slice_id}", problem, "Make room there, then run again") from None
    return names


def _sum(counts: da.Array, tallies: da.Array | None, readers: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the counts of the chunks, one chunk after the other, and sum them.

    Dask bounds what it computes ahead only by its threads. A chunk that other chunks need, as masks with dilation do,
    is computed again for these.
    """
    sums: tuple[Any, Any] = (0, 0)
    for down, across in np.ndindex(*counts.numblocks[:2]):
        of_chunk = counts.blocks[down, across], tallies.blocks[:, :, down, across] if tallies is not None else 0
        made = compute(*of_chunk, scheduler="threads", num_workers=readers)
        sums = sums[0] + made[0][0, 0], sums[1] + np.sum(made[1], axis=(2, 3)) if tallies is not None else 0
    return sums


def _filled(image: xr.DataArray, aoi_id: str, pixels: Spool, reasons: Spool) -> da.Array:
    """Write every chunk when it is computed; give what `count_classes` counts in each."""
    values = da.asanyarray(image.data)
    qa = da.asanyarray(image.qa.data).rechunk(values.chunks[1:])
    nothing = np.empty((0, 0, 0), bool)
    holes = da.map_blocks(
        _put_values, values, qa[np.newaxis], draft=pixels, packing=PACKINGS[values.dtype.name],
        aoi_id=aoi_id, chunks=((1,) * values.numblocks[0], *values.chunks[1:]), dtype=bool, meta=nothing,
    )  # fmt: skip
    each = (1,) * qa.numblocks[0], (1,) * qa.numblocks[1], (len(QA),)
    counts: da.Array = da.map_blocks(
        _put_qa, holes.any(axis=0), qa, draft=reasons, new_axis=2, chunks=each, dtype="int64", meta=nothing
    )
    return counts


def _put_values(
    values: np.ndarray, qa: np.ndarray, draft: Spool, packing: Packing, aoi_id: str, block_info: Any
) -> np.ndarray:
    """Write values of some bands; return where any of them is nodata."""
    hole = packing.holes(values)
    if (~hole & (qa == QA.OUTSIDE)).any():
        raise OutputError(
            f"the cube of {aoi_id}",
            "holds values outside its area of interest, so it is not what open_cube made",
            "Write a cube of open_cube, or use its .rio.to_raster",
        )
    draft.put(values, *_corner(block_info))
    return np.asarray(hole.any(axis=0, keepdims=True))


def _put_qa(hole: np.ndarray, qa: np.ndarray, draft: Spool, block_info: Any) -> np.ndarray:
    reasons = final_qa(hole, qa)
    draft.put(reasons[np.newaxis], 0, *_corner(block_info))
    return count_classes(reasons)[np.newaxis, np.newaxis]


def _corner(block_info: Any) -> tuple[int, ...]:
    return tuple(first for first, _ in block_info[0]["array-location"])
