"""Compute an image chunk by chunk and write its files: COG, QA image, picture, styles and Item."""

import shutil
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask import threaded
from dask.base import compute

from s2cube.config.sections import OutputSection
from s2cube.cube.facts import SliceFacts
from s2cube.cube.mask import final_qa
from s2cube.cube.offset_check import OffsetCheck
from s2cube.cube.packing import Packing, packing_of
from s2cube.errors import OutputError, WriteError
from s2cube.output._cog import write_cog, write_qa
from s2cube.output._item import add_checksums, slice_item
from s2cube.output._picture import write_picture
from s2cube.output._qgis_style import image_style, qa_style
from s2cube.output._spool import Spool, layout_of, open_spool
from s2cube.output._statistics import Tally
from s2cube.sentinel2 import QA, aoi_cells, class_band_of, count_classes
from s2cube.storage.image_item import QA_STYLE, STYLE, SUFFIXES
from s2cube.storage.json_text import stac_json

_QA_LAYOUT = {"count": 1, "dtype": "uint8", "nodata": int(QA.OUTSIDE)}


def write_files(
    image: xr.DataArray, facts: SliceFacts, folder: Path, settings: OutputSection, readers: int,
    check: OffsetCheck | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Compute an image, one chunk of its grid at a time, and write its files to a folder.

    Parameters
    ----------
    image
        From `cut`, lazy or computed, dims (band, y, x).
    facts
        Facts about the slice of the image.
    settings
        Compression.
    readers
        Number of threads that compute.
    check
        Check of the offsets of the scenes.

    Returns
    -------
    tuple of str
        Ids of scenes whose offset is in doubt.

    Raises
    ------
    OutputError
        If the image has values outside its area of interest.
    WriteError
        If the files cannot be written completely.
    SliceError
        If a source file cannot be read.
    """
    slice_id, layout = facts.slice, layout_of(image)
    tally, bands = Tally(layout["count"]), tuple(map(str, image.band.values))
    try:
        with open_spool(folder, **layout) as pixels, open_spool(folder, **layout | _QA_LAYOUT) as reasons:
            with pixels.filling(), reasons.filling():
                counts, tallies = _sum(
                    _write_lazily(image, "" if facts.name else facts.aoi, (pixels, reasons), tally),
                    check.tallies() if check else None,
                    readers,
                )
            doubts = check.doubtful(tallies) if check else []
            names = tuple(compress(facts.scenes, doubts))
            write_cog(image, pixels, tally, folder / f"{slice_id}.tif", settings)
            write_qa(reasons, folder / f"{slice_id}_qa.tif", settings)
            write_picture(bands, pixels, folder / f"{slice_id}.png", packing_of(image))
        if style := image_style(bands, packing_of(image)):
            (folder / f"{slice_id}{SUFFIXES[STYLE]}").write_bytes(style)
        (folder / f"{slice_id}{SUFFIXES[QA_STYLE]}").write_bytes(qa_style())
        # Images that were computed from a cube may have values outside the area.
        cells = int(counts.sum()) if facts.name else aoi_cells(counts)
        item = slice_item(image, facts, counts, names, tally.statistics(cells))
        add_checksums(item, folder)
        content = item.to_dict(include_self_link=False, transform_hrefs=False)
        (folder / f"{slice_id}.json").write_bytes(stac_json(content))
    except OSError as error:
        # GDAL does not report the reason, so the message contains the free space.
        free = shutil.disk_usage(folder).free
        problem = f"cannot be written ({error.strerror or error}); {free / 1e6:.1f} MB are free there"
        raise WriteError(f"{folder}/{slice_id}", problem, "Free disk space there, then run again") from None
    return names


def _sum(counts: da.Array, tallies: da.Array | None, readers: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the counts of the chunks, one chunk after the other, and sum them.

    All chunks together could need too much memory: only the number of threads limits how far Dask computes ahead. If
    neighbours need a chunk too, for example for the dilation of masks, it is computed again for each of them.
    """
    sums: tuple[Any, Any] = (0, 0)
    for down, across in np.ndindex(*counts.numblocks[:2]):
        of_chunk = counts.blocks[down, across], tallies.blocks[:, :, down, across] if tallies is not None else 0
        # The name "threads" would do the same, but load distributed to learn whether it is a client's name.
        computed = compute(*of_chunk, scheduler=threaded.get, num_workers=readers)
        sums = sums[0] + computed[0][0, 0], sums[1] + np.sum(computed[1], axis=(2, 3)) if tallies is not None else 0
    return sums


def _write_lazily(image: xr.DataArray, aoi_id: str, spools: tuple[Spool, Spool], tally: Tally) -> da.Array:
    """Return the lazy result of `count_classes` for every chunk. Computing it writes and sums the chunk.

    Parameters
    ----------
    aoi_id
        The area outside of which there may be no value. Empty if values may be everywhere, because they were computed
        from a cube.
    spools
        For the pixels, and for the QA values.
    """
    pixels, reasons = spools
    is_class = tuple(class_band_of(str(name)) is not None for name in image.band.values)
    values = da.asanyarray(image.data)
    qa = da.asanyarray(image.qa.data).rechunk(values.chunks[1:])
    meta = np.empty((0, 0, 0), bool)
    holes = da.map_blocks(
        _put_values, values, qa[np.newaxis], sink=_Sink(pixels, tally, aoi_id, packing_of(image), is_class),
        chunks=((1,) * values.numblocks[0], *values.chunks[1:]), dtype=bool, meta=meta,
    )  # fmt: skip
    count_chunks = (1,) * qa.numblocks[0], (1,) * qa.numblocks[1], (len(QA),)
    counts: da.Array = da.map_blocks(
        _put_qa, holes.any(axis=0), qa, spool=reasons, new_axis=2, chunks=count_chunks, dtype="int64", meta=meta
    )
    return counts


@dataclass(frozen=True)
class _Sink:
    """Where the pixels of an image go, and what they are.

    Parameters
    ----------
    aoi_id
        See `_write_lazily`.
    is_class
        For each band, whether it contains classes.
    """

    spool: Spool
    tally: Tally
    aoi_id: str
    packing: Packing
    is_class: tuple[bool, ...]


def _put_values(values: np.ndarray, qa: np.ndarray, sink: _Sink, block_info: Any) -> np.ndarray:
    """Write and sum values of some bands; return a mask that is True where any of them is nodata.

    Bands of classes are not in the mask, so that the QA image does not depend on them. If there are no other bands,
    the mask is that of the QA values.
    """
    is_nodata = sink.packing.holes(values)
    if sink.aoi_id and (~is_nodata & (qa == QA.OUTSIDE)).any():
        raise OutputError(
            f"the cube of {sink.aoi_id}",
            "has values outside its area of interest, so it was changed after open_cube",
            "Give the images a name, because they are not those of a run: write_cogs(cube, out, name='filled')",
        )
    origin = _chunk_origin(block_info)
    sink.spool.put(values, *origin)
    sink.tally.add(values, ~is_nodata, *origin)
    if all(sink.is_class):
        return np.asarray(qa != QA.CLEAR)
    is_class = np.array(sink.is_class[origin[0] : origin[0] + len(values)])
    return np.asarray(is_nodata[~is_class].any(axis=0, keepdims=True))


def _put_qa(is_nodata: np.ndarray, qa: np.ndarray, spool: Spool, block_info: Any) -> np.ndarray:
    reasons = final_qa(is_nodata, qa)
    spool.put(reasons[np.newaxis], 0, *_chunk_origin(block_info))
    return count_classes(reasons)[np.newaxis, np.newaxis]


def _chunk_origin(block_info: Any) -> tuple[int, ...]:
    return tuple(first for first, _ in block_info[0]["array-location"])
