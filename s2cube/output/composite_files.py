"""Write the files of a composite: COGs of the values, counts and days, picture, style and Item."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import threaded
from dask.base import compute, is_dask_collection
from odc.geo.geobox import GeoBox

from s2cube.config.sections import OutputSection
from s2cube.cube.composite_facts import CompositeFacts
from s2cube.kernels.packing import Packing
from s2cube.output._cog import small_cog, write_cog
from s2cube.output._composite_item import COUNT_PACKING, DATE_PACKING, Found, composite_text
from s2cube.output._item import FileFacts
from s2cube.output._picture import image_style, small_picture, write_picture
from s2cube.output._raster import Layout, Spool, open_spool
from s2cube.output._statistics import Tally
from s2cube.output.files import file_facts, naming_errors, write_contents
from s2cube.storage.image_item import COUNT, DATA, DATE, PICTURE, STYLE, SUFFIXES

_COUNTS = 1 << 16
"""Number of values of uint16."""


@dataclass(frozen=True, eq=False)
class CompositeImage:
    """The image of one composite: numpy arrays, or Dask arrays with the same chunks of y and x.

    Parameters
    ----------
    values
        Dims (band, y, x), packed as `packing` says; nodata outside the area and where there is no value.
    count
        Number of observations, dims (y, x), uint16; 0 outside the area.
    date
        Day of the observation in days since 1970-01-01, dims (y, x), uint16; 0 where there is none. None for methods
        that choose no day.
    bands
        Names of the bands.
    geobox
        Grid of the image.
    aoi_cells
        Number of cells of the area, see `cut.inside`.
    """

    values: Any
    count: Any
    date: Any | None
    bands: tuple[str, ...]
    geobox: GeoBox
    packing: Packing
    aoi_cells: int


def write_composite(
    image: CompositeImage, facts: CompositeFacts, folder: Path, settings: OutputSection, readers: int
) -> None:
    """Compute a composite, one chunk of its grid at a time, and write its files to a folder; the Item is the last one.

    Parameters
    ----------
    image
        Lazy or computed. The files do not depend on its chunks.
    facts
        Facts about the composite.
    settings
        Compression.
    readers
        Number of threads that compute.

    Raises
    ------
    ValueError
        If more cells have observations than the area has cells.
    WriteError
        If the files cannot be written completely.
    SliceError
        If a source file cannot be read.
    """
    writing = _Writing(image, facts, folder, settings)
    with naming_errors(folder, facts.id):
        if writing.rasters[0].layout.is_small:
            writing.write_small(readers)
        else:
            writing.write_large(readers)


class _Raster(NamedTuple):
    """One of the rasters of a composite: key of its asset, form, values (band, y, x), and their sums."""

    key: str
    layout: Layout
    values: Any
    tally: Tally


def _rasters(image: CompositeImage) -> list[_Raster]:
    layout = Layout(image.bands, image.values.dtype.name, image.geobox, image.packing)
    found = [_Raster(DATA, layout, image.values, Tally(len(image.bands)))]
    for key, values, packing in ((COUNT, image.count, COUNT_PACKING), (DATE, image.date, DATE_PACKING)):
        if values is not None:
            # The mean of two days is no day of an observation.
            of_cells = replace(layout, bands=(key,), dtype="uint16", packing=packing, has_means=False)
            found.append(_Raster(key, of_cells, values[np.newaxis], Tally(1)))
    return found


class _Writing:
    """Writes the files of one composite."""

    def __init__(self, image: CompositeImage, facts: CompositeFacts, folder: Path, settings: OutputSection) -> None:
        self._image, self._facts, self._folder, self._settings = image, facts, folder, settings
        self.rasters = _rasters(image)
        self._cells_of = np.zeros(_COUNTS, "int64")

    def write_small(self, readers: int) -> None:
        """Write all files from memory."""
        whole = [np.empty(each.layout.shape, each.layout.dtype) for each in self.rasters]
        for row, column, parts in self._computed(readers):
            for values, part in zip(whole, parts, strict=True):
                values[:, row : row + part.shape[1], column : column + part.shape[2]] = part
        contents = {
            each.key: small_cog(values, each.layout, None, each.tally, self._settings)
            for each, values in zip(self.rasters, whole, strict=True)
        }
        contents[PICTURE] = small_picture(self._image.bands, whole[0], self._image.packing)
        self._write_item(write_contents(contents, self._path))

    def write_large(self, readers: int) -> None:
        """Write all files from temporary rasters."""
        with ExitStack() as stack:
            spools = [stack.enter_context(open_spool(self._folder, **each.layout.profile)) for each in self.rasters]
            self._fill(spools, readers)
            for each, spool in zip(self.rasters, spools, strict=True):
                write_cog(each.layout, None, spool, each.tally, self._path(each.key), self._settings)
            write_picture(self._image.bands, spools[0], self._path(PICTURE), self._image.packing)
        self._write_item({key: file_facts(self._path(key)) for key in (*(each.key for each in self.rasters), PICTURE)})

    def _fill(self, spools: Sequence[Spool], readers: int) -> None:
        with ExitStack() as stack:
            for spool in spools:
                stack.enter_context(spool.filling())
            for row, column, parts in self._computed(readers):
                for spool, part in zip(spools, parts, strict=True):
                    spool.put(part, 0, row, column)

    def _computed(self, readers: int) -> Iterator[tuple[int, int, Sequence[np.ndarray]]]:
        """Compute and sum the rasters chunk by chunk; yield the row and the column of a chunk, and its values."""
        for row, column, parts in _chunks([each.values for each in self.rasters], readers):
            for (key, layout, _, tally), part in zip(self.rasters, parts, strict=True):
                tally.add(part, ~np.asarray(layout.packing.holes(part)), 0, row, column)
                if key == COUNT:
                    self._cells_of += np.bincount(part.ravel(), minlength=_COUNTS)
            yield row, column, parts

    def _write_item(self, files: Mapping[str, FileFacts]) -> None:
        """Write the style, if there is one, and the Item."""
        image, facts = self._image, self._facts
        style = image_style(image.bands, image.packing)
        files = {**files, **write_contents({STYLE: style} if style else {}, self._path)}
        statistics = {each.key: each.tally.statistics(image.aoi_cells) for each in self.rasters}
        content = composite_text(self.rasters[0].layout, facts, Found(self._cells_of_area(), statistics), files)
        (self._folder / f"{facts.id}.json").write_bytes(content)

    def _cells_of_area(self) -> np.ndarray:
        """Return the number of cells of the area with each count. Outside the area, the count is 0."""
        observed = int(self._cells_of[1:].sum())
        if observed > self._image.aoi_cells:
            raise ValueError(f"{observed} cells have observations, but the area has {self._image.aoi_cells} cells")
        cells_of = self._cells_of.copy()
        cells_of[0] = self._image.aoi_cells - observed
        return cells_of

    def _path(self, key: str) -> Path:
        return self._folder / f"{self._facts.id}{SUFFIXES[key]}"


def _chunks(arrays: Sequence[Any], readers: int) -> Iterator[tuple[int, int, Sequence[np.ndarray]]]:
    """Compute arrays (band, y, x), one chunk of y and x at a time.

    All chunks together could need too much memory: only the number of threads limits how far Dask computes ahead.
    """
    if not any(map(is_dask_collection, arrays)):
        yield 0, 0, arrays
        return
    chunks = next(each.chunks[1:] for each in arrays if is_dask_collection(each))
    lazy = [da.asanyarray(each).rechunk((-1, *chunks)) for each in arrays]
    rows, columns = (np.cumsum((0, *lengths)).tolist() for lengths in chunks)
    for down, across in np.ndindex(len(chunks[0]), len(chunks[1])):
        parts = (each.blocks[:, down, across] for each in lazy)
        yield rows[down], columns[across], compute(*parts, scheduler=threaded.get, num_workers=readers)
