"""What a plan will take: exactly, by the headers of its files, or about, by what files usually are."""

import math
import os
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import pystac
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from s2cube.config.sections import JobConfig
from s2cube.cube.chunks import Chunks, chunks, corner, halo_cells, on_steps
from s2cube.errors import SceneError
from s2cube.fetch.cache import Span
from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.fetch.store import Access
from s2cube.fetch.traffic import Traffic
from s2cube.jobs._memory import PROCESS_BYTES, of_slice
from s2cube.jobs.results import Cost
from s2cube.raster.codec import Codec
from s2cube.raster.placement import placement
from s2cube.raster.reader import AssetReader
from s2cube.raster.resample import Lattice
from s2cube.raster.tiff import HEADER_BYTES, Level, Tiff
from s2cube.raster.tiles import TiledRaster
from s2cube.scenes.assets import band_key, layer_key
from s2cube.scenes.scene import crs_code
from s2cube.scenes.time_slice import Plan
from s2cube.sentinel2 import NATIVE_M, canonical_bands

_GRANULE_M = 109_800
_TILE_PIXELS, _OVERVIEW_TILE_PIXELS = 1024, 512
_OVERVIEW_FACTORS = (2, 4, 8, 16)
"""Of a granule (Sentinel-2 Products Specification Document), and of the files of Earth Search."""

_FULL_SHARE = 0.75
"""Of a file's bytes: its overviews have a quarter and a sixteenth and so on of its pixels."""

_BYTES_PER_PIXEL = {"u2": 1.3, "u1": 0.04}
"""Where the item does not say how large a file is: medians over the items of Earth Search and Digital Earth Africa."""


class _Grid(NamedTuple):
    """What `AssetReader` wants to know of a grid."""

    epsg: int
    transform: Affine
    shape: tuple[int, int]


class _File(NamedTuple):
    """A file that a plan reads: an asset of a scene, on a grid that is cut into chunks.

    Parameters
    ----------
    name
        Of the band or layer, in `NATIVE_M`.
    dtype
        What `AssetReader` makes of it.
    """

    scene: pystac.Item
    key: str
    name: str
    dtype: "np.dtype[Any]"
    grid: tuple[GeoBox, Chunks]

    @property
    def asset(self) -> pystac.Asset:
        return self.scene.assets[self.key]


@dataclass
class Forecast:
    """Predict what slices take, one after the other: a tile that one has fetched costs the next nothing.

    Parameters
    ----------
    headers
        Read the headers of all files, so that requests and bytes are exact, if nothing fails or is rejected.
    """

    config: JobConfig
    headers: bool
    _fetched: set[Hashable] = field(default_factory=set)
    _known: set[str] = field(default_factory=set)

    def of(self, plan: Plan) -> Cost:
        """Predict what the one slice of a plan takes.

        Raises
        ------
        SliceError
            If it will fail, as far as its items, or headers, tell.
        """
        files = list(_files(plan, self.config))
        readers = [self._reader(each) for each in files]
        with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
            wanted = list(threads.map(_runs, readers, files))
        traffic = Traffic()
        for reader, runs in zip(readers, wanted, strict=True):
            if reader.url not in self._known:
                self._known.add(reader.url)
                traffic += reader.access.usage.traffic if self.headers else Traffic(1, HEADER_BYTES)
            traffic = sum(map(self._take, runs or ()), traffic)
        at_a_time = self.config.cluster.threads_on(os.cpu_count() or 1)
        cells, pixel_bytes = math.prod(plan.geobox.shape), np.dtype(self.config.cube.dtype).itemsize
        return Cost(
            traffic,
            peak_bytes=PROCESS_BYTES + at_a_time * of_slice(plan, self.config.cube),
            output_bytes=math.ceil(cells * (len(self.config.cube.bands) * pixel_bytes + 1) / _FULL_SHARE),
            by_gdal=sum(runs is None for runs in wanted),
        )

    def _reader(self, file: _File) -> AssetReader:
        box, _ = file.grid
        read = self.config.read
        options: dict[str, Any] = {
            "url": file.asset.href,
            "spec": _Grid(_epsg_of(box), box.affine, (box.shape.y, box.shape.x)),
            "dtype": file.dtype,
            "quality": self.config.cube.quality,
            "access": Access(read.timeout_s, read.retries, read.tokens, read.stores),
            "declared": {file.asset.href: (placement(file.scene, file.key),)},
        }
        return AssetReader(**options) if self.headers else _Assumed(file, **options)

    def _take(self, run: list[Span]) -> Traffic:
        """Count the requests of a run: what others have fetched of it is left out, and parts it."""
        parts: list[list[Span]] = [[]]
        for span in run:
            if span.key in self._fetched:
                parts.append([])
            else:
                parts[-1].append(span)
        self._fetched.update(span.key for span in run)
        sizes = [part[-1].stop - part[0].start for part in parts if part]
        return Traffic(len(sizes), sum(sizes))


def _epsg_of(box: GeoBox) -> int:
    """Give the EPSG code of a grid's CRS: `grid` makes no other."""
    assert box.crs is not None
    assert box.crs.epsg is not None
    return box.crs.epsg


def _files(plan: Plan, config: JobConfig) -> Iterator[_File]:
    """Yield all files that the slices of a plan are made of."""
    layers = dict.fromkeys(config.cube.mask)
    if config.job.max_aoi_cloud_percent is not None:
        layers["scl"] = None
    steps = on_steps(plan, halo_cells(plan, config.cube.dilation_m))
    for scene in plan.scenes:
        for layer in layers:
            yield _File(scene, layer_key(scene, layer), layer, np.dtype("uint8"), steps)
        for band in canonical_bands(config.cube.bands):
            grid = (plan.geobox, chunks(plan))
            yield _File(scene, band_key(scene, band), band, np.dtype("float32"), grid)


def _runs(reader: AssetReader, file: _File) -> list[list[Span]] | None:
    """Give the runs of all chunks; None if GDAL reads the file."""
    _, cut = file.grid
    found: list[list[Span]] = []
    for rows in pairwise(accumulate(cut.rows, initial=0)):
        for columns in pairwise(accumulate(cut.columns, initial=0)):
            runs = reader.runs(Window.from_slices(rows, columns))
            if runs is None:
                return None
            found += runs
    return found


class _Assumed(AssetReader):
    """A file of which no more is known than its item tells: taken to be laid out as Earth Search's are."""

    def __init__(self, file: _File, **options: Any) -> None:
        super().__init__(**options)
        self._file = file

    def _open(self) -> list[TiledRaster]:
        file = self._file
        pixel_m = NATIVE_M[file.name]
        high, wide = _shape(file.asset, round(_GRANULE_M / pixel_m))
        left, top = corner(file.asset) or self._middle()
        try:
            crs = CRS.from_user_input(crs_code(file.scene) or self.spec.epsg)
        except CRSError:
            raise SceneError(
                file.scene.id, "names a CRS that is none", "Report it to the operator of the catalogue"
            ) from None
        dtype = np.dtype("u2" if file.dtype.kind == "f" else "u1")
        told = file.asset.extra_fields.get("file:size")
        per_pixel = (
            told * _FULL_SHARE / (high * wide)
            if isinstance(told, int) and told > 0
            else _BYTES_PER_PIXEL[dtype.str[1:]]
        )
        levels, at = [], HEADER_BYTES
        for factor in (1, *_OVERVIEW_FACTORS):
            height, width = math.ceil(high / factor), math.ceil(wide / factor)
            tile = _TILE_PIXELS if factor == 1 else _OVERVIEW_TILE_PIXELS
            transform = Affine(pixel_m * wide / width, 0, left, 0, -pixel_m * high / height, top)
            down, across = (np.minimum(tile, length - np.arange(0, length, tile)) for length in (height, width))
            sizes = np.ceil(np.outer(down, across) * per_pixel).astype("int64").ravel()
            offsets = at + np.cumsum(sizes) - sizes
            at = int(offsets[-1] + sizes[-1])
            levels.append(Level(Lattice(crs, transform, height, width), (tile, tile), offsets, sizes, strips=False))
        tiff = Tiff(self.url, "", 0, Codec(dtype), tuple(levels))
        return [TiledRaster(tiff, level, self.access) for level in levels]

    def _middle(self) -> tuple[float, float]:
        """Take the middle of the area for that of the granule."""
        x, y = self._file.grid[0].center_pixel.extent.centroid.coords[0]
        return x - _GRANULE_M / 2, y + _GRANULE_M / 2


def _shape(asset: pystac.Asset, side: int) -> tuple[int, int]:
    """Give the rows and columns that an item tells of, where they may be a granule's; else a granule's."""
    told = asset.extra_fields.get("proj:shape")
    if isinstance(told, list) and len(told) == 2 and all(isinstance(each, int) and 0 < each <= side for each in told):
        return told[0], told[1]
    return side, side
