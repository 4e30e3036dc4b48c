"""Compute an image chunk by chunk: a large one into spools, a small one into memory."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask import threaded
from dask.base import compute, is_dask_collection

from s2cube.errors import OutputError
from s2cube.kernels.mask import final_qa
from s2cube.kernels.packing import Packing
from s2cube.output._raster import Layout, Spool
from s2cube.output._statistics import Tally
from s2cube.sentinel2 import QA, class_band_of, count_classes


@dataclass(frozen=True)
class Rule:
    """What holds for the values of an image.

    Parameters
    ----------
    aoi_id
        The area outside of which there may be no value. Empty if values may be everywhere, because they were computed
        from a cube.
    is_class
        For each band, whether it contains classes.
    """

    packing: Packing
    aoi_id: str
    is_class: tuple[bool, ...]

    @classmethod
    def of(cls, layout: Layout, aoi_id: str) -> "Rule":
        """Return the rule for an image."""
        return cls(layout.packing, aoi_id, tuple(class_band_of(name) is not None for name in layout.bands))

    def nodata_in(self, values: np.ndarray, qa: np.ndarray) -> np.ndarray:
        """Return a mask of some bands, (band, y, x), that is True at nodata.

        Parameters
        ----------
        qa
            QA values, dims (y, x), or with one band.

        Raises
        ------
        OutputError
            If there is a value outside the area.
        """
        is_nodata = np.asarray(self.packing.holes(values))
        if self.aoi_id and (~is_nodata & (qa == QA.OUTSIDE.value)).any():
            raise OutputError(
                f"the cube of {self.aoi_id}",
                "has values outside its area of interest, so it was changed after open_cube",
                "Give the images a name, because they are not those of a run: write_cogs(cube, out, name='filled')",
            )
        return is_nodata

    def holes(self, is_nodata: np.ndarray, qa: np.ndarray, first: int = 0) -> np.ndarray:
        """Return a mask that is True where any of some bands is nodata, from the result of `nodata_in`.

        Bands of classes are not in the mask, so that the QA image does not depend on them. If there are no other
        bands, the mask is that of the QA values.

        Parameters
        ----------
        first
            Position of the first of these bands.
        """
        if all(self.is_class):
            return np.asarray(qa != QA.CLEAR.value)
        is_class = np.array(self.is_class[first : first + len(is_nodata)])
        return np.asarray(is_nodata[~is_class].any(axis=0))


def read_whole(
    image: xr.DataArray, tallies: da.Array | None, readers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Compute an image; return its values, its QA values, and the sum of the tallies over its chunks, if there are any.

    For the parameters see `spooled`.
    """
    if not is_dask_collection(image) and tallies is None:
        return image.values, image.qa.values, None
    data = da.asanyarray(image.data)
    qa = da.asanyarray(image.qa.data).rechunk(data.chunks[1:])
    values, reasons = np.empty(data.shape, data.dtype), np.empty(qa.shape, qa.dtype)
    total: Any = 0
    edges = [np.cumsum((0, *lengths)) for lengths in data.chunks[1:]]
    for down, across in np.ndindex(*data.numblocks[1:]):
        of_chunk = tallies.blocks[:, :, down, across] if tallies is not None else 0
        rows, columns = (slice(*edge[at : at + 2]) for edge, at in zip(edges, (down, across), strict=True))
        values[:, rows, columns], reasons[rows, columns], tally = compute(
            data.blocks[:, down, across], qa.blocks[down, across], of_chunk, scheduler=threaded.get, num_workers=readers
        )
        total += np.sum(tally, axis=(2, 3)) if tallies is not None else 0
    return values, reasons, None if tallies is None else total


def spooled(
    image: xr.DataArray, rule: Rule, spools: tuple[Spool, Spool], tallies: tuple[Tally, da.Array | None], readers: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute an image chunk by chunk, and write it to spools. Return the counts of its QA values.

    All chunks together could need too much memory: only the number of threads limits how far Dask computes ahead. If
    neighbours need a chunk too, for example for the dilation of masks, it is computed again for each of them.

    Parameters
    ----------
    spools
        For the pixels, and for the QA values.
    tallies
        For the statistics of the bands, and from `OffsetCheck.tallies`, if there is a check.
    readers
        Number of threads that compute.

    Returns
    -------
    numpy.ndarray
        Result of `count_classes`.
    numpy.ndarray
        The sum of the second tallies over the chunks; None if there is no check.
    """
    counts, of_offsets = _write_lazily(image, rule, spools, tallies[0]), tallies[1]
    count: Any = 0
    total: Any = 0
    for down, across in np.ndindex(*counts.numblocks[:2]):
        of_chunk = of_offsets.blocks[:, :, down, across] if of_offsets is not None else 0
        counted, tally = compute(counts.blocks[down, across], of_chunk, scheduler=threaded.get, num_workers=readers)
        count += counted[0, 0]
        total += np.sum(tally, axis=(2, 3)) if of_offsets is not None else 0
    return count, None if of_offsets is None else total


def _write_lazily(image: xr.DataArray, rule: Rule, spools: tuple[Spool, Spool], tally: Tally) -> da.Array:
    """Return the lazy result of `count_classes` for every chunk. Computing it writes and sums the chunk."""
    pixels, reasons = spools
    values = da.asanyarray(image.data)
    qa = da.asanyarray(image.qa.data).rechunk(values.chunks[1:])
    meta = np.empty((0, 0, 0), bool)
    holes = da.map_blocks(
        _put_values, values, qa[np.newaxis], spool=pixels, tally=tally, rule=rule,
        chunks=((1,) * values.numblocks[0], *values.chunks[1:]), dtype=bool, meta=meta,
    )  # fmt: skip
    count_chunks = (1,) * qa.numblocks[0], (1,) * qa.numblocks[1], (len(QA),)
    counts: da.Array = da.map_blocks(
        _put_qa, holes.any(axis=0), qa, spool=reasons, new_axis=2, chunks=count_chunks, dtype="int64", meta=meta
    )
    return counts


def _put_values(
    values: np.ndarray, qa: np.ndarray, spool: Spool, tally: Tally, rule: Rule, block_info: Any
) -> np.ndarray:
    """Write and sum values of some bands; return `Rule.holes`, with one band."""
    is_nodata = rule.nodata_in(values, qa)
    origin = _chunk_origin(block_info)
    spool.put(values, *origin)
    tally.add(values, ~is_nodata, *origin)
    return rule.holes(is_nodata, qa[0], origin[0])[np.newaxis]


def _put_qa(is_nodata: np.ndarray, qa: np.ndarray, spool: Spool, block_info: Any) -> np.ndarray:
    reasons = final_qa(is_nodata, qa)
    spool.put(reasons[np.newaxis], 0, *_chunk_origin(block_info))
    return count_classes(reasons)[np.newaxis, np.newaxis]


def _chunk_origin(block_info: Any) -> tuple[int, ...]:
    return tuple(first for first, _ in block_info[0]["array-location"])
