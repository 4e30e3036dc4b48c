"""Turn an array into images to write: the slices of an unchanged cube, or images that were computed from a cube."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords
from shapely.geometry.base import BaseGeometry

from s2cube.area.aoi import AOI
from s2cube.area.names import file_name
from s2cube.area.outline import in_crs
from s2cube.config.times import TimeRange, solar_day
from s2cube.cube.cut import clip
from s2cube.cube.facts import (
    NAME,
    SliceFacts,
    acquired,
    as_opened,
    common_provenance,
    facts_of,
    is_in_group,
    sources_of,
)
from s2cube.errors import AOIError, OutputError
from s2cube.kernels.packing import Packing, set_packing
from s2cube.products._data_type import in_type_of_files
from s2cube.products._regular_grid import on_regular_grid
from s2cube.sentinel2 import QA

Image = tuple[xr.DataArray, SliceFacts]
"""Dims (band, y, x), lazy or computed, with the coordinate `qa`; and what its Item says."""

_CHUNK_CELLS = 2048
"""Maximum side of a chunk of `_Derived.inside`."""

_A_SECOND = timedelta(seconds=1)
"""Files may round times."""

_GIVE_A_NAME = "Give the images a name: write_cogs(cube, out, name='ndvi')"


@dataclass(frozen=True)
class Given:
    """What a user states about an array; None where its attributes and coordinates are used.

    Parameters
    ----------
    name
        Name of the images.
    area
        Area of interest.
    times
        Interval of the scenes that the array was computed from.
    """

    name: str | None = None
    area: AOI | None = None
    times: TimeRange | None = None


def images_of(cube: xr.DataArray, given: Given) -> list[Image]:
    """Return the images of an array.

    If the array is a cube of `open_cube` whose values are unchanged, or some of its times and bands, and nothing else
    is stated, these are the images of a run. Otherwise they are images with a name, and without a recipe.

    Raises
    ------
    OutputError
        If it is no array, or an empty one. If it has no regular grid, no name, no area or no time, or a data type that
        no file can have.
    """
    _check(cube)
    if given == Given() and (whole := as_opened(cube)) is not None:
        return [(image, facts_of(image)) for image in whole]
    images = list(_Derived(on_regular_grid(cube), given).images())
    for repeated, count in Counter(facts.slice for _, facts in images).items():
        if count > 1:
            problem = f"has several images of the name {repeated}"
            raise OutputError("the cube", problem, "Write one image of a day at a time")
    return images


def _check(cube: object) -> None:
    if not isinstance(cube, xr.DataArray):
        remedy = "Pass a DataArray, for example one variable of a Dataset: write_cogs(dataset['ndvi'], out)"
        raise OutputError("the cube", f"is a {type(cube).__name__}", remedy)
    if empty := [str(dim) for dim, size in cube.sizes.items() if not size]:
        problem = f"is empty: its dimension {', '.join(empty)} has the size 0"
        raise OutputError("the cube", problem, "Correct the selection of times, bands or pixels")
    for band, count in Counter(map(str, _labels(cube, "band") if "band" in cube.dims else ())).items():
        if count > 1:
            raise OutputError("the cube", f"has {count} bands of the name {band}", "Give each band its own name")


@dataclass(frozen=True)
class _Derived:
    """An array on a regular grid, from `on_regular_grid`."""

    cube: xr.DataArray
    given: Given

    def images(self) -> Iterator[Image]:
        """Yield an image for each time, and for each label of any other dimension that an image does not have."""
        packed, packing = in_type_of_files(self.cube)
        if "band" not in packed.dims:
            packed = packed.drop_vars("band", errors="ignore").expand_dims(band=[self._own_name or self.name])
        packed = packed.transpose(..., "band", "y", "x")
        leading = packed.dims[:-3]
        labels = {dim: _labels(packed, dim) for dim in leading}
        for index in np.ndindex(*packed.shape[:-3]):
            image = packed.isel(dict(zip(leading, index, strict=True)))
            at = zip(leading, index, strict=True)
            facts = self._facts(image, {str(dim): labels[dim][number] for dim, number in at if dim != "time"})
            yield self._image(image, facts.time, packing), facts

    @cached_property
    def name(self) -> str:
        text = str(self.given.name or self._own_name)
        if not text:
            problem = "was computed from a cube, or read from a file, and has no name"
            raise OutputError("the cube", problem, _GIVE_A_NAME)
        if file_name(text) != text or re.fullmatch(r"\d{8}", text):
            problem = "is no name of images: use letters, digits, - and _, and not a date only"
            raise OutputError(f"name '{text}'", problem, _GIVE_A_NAME)
        return text

    @cached_property
    def area(self) -> AOI:
        """The area of interest, as a whole."""
        if self.given.area:
            return self.given.area
        id_, outline = map(self.cube.attrs.get, ("aoi", "aoi_wkt_lonlat"))
        if not id_ or not outline:
            remedy = "Copy the attributes (result.attrs = cube.attrs), or name the area: write_cogs(…, aoi=aoi)"
            raise OutputError("the cube", "has lost its area: the attributes aoi and aoi_wkt_lonlat", remedy)
        try:
            return AOI(str(id_), Geometry(shapely.from_wkt(str(outline)), "EPSG:4326"))
        except (ValueError, AOIError, shapely.errors.ShapelyError) as error:
            raise OutputError("the cube", f"has an area that cannot be read ({error})", "Name it by aoi=") from None

    @cached_property
    def sources(self) -> dict[str, SliceFacts]:
        """The slices that the array may be computed from."""
        area, times = self.area, self.given.times
        within = times and times.at(area.lon)
        found = sources_of(self.cube).items()
        return {key: each for key, each in found if not within or all(end in within for end in acquired(each))}

    @cached_property
    def geobox(self) -> GeoBox:
        geobox: GeoBox = self.cube.odc.geobox
        return geobox

    @cached_property
    def outline_lonlat(self) -> BaseGeometry:
        """The part of the area that is on the grid."""
        crs, extent = self.geobox.crs, self.geobox.extent.geom
        assert crs is not None
        outline = in_crs(self.area.geometry, crs).geom
        if extent.covers(outline):
            return self.area.geometry_lonlat.geom
        part = outline.intersection(extent)
        if not part.area:
            problem = f"does not overlap its area {self.area.id}"
            raise OutputError("the cube", problem, "Name the area that it shows: write_cogs(…, aoi=aoi)")
        return AOI(self.area.id, Geometry(_polygons(part), crs)).geometry_lonlat.geom

    @cached_property
    def inside(self) -> da.Array:
        """QA values that say only which cells are outside the area. They are for arrays without masks."""
        clear = da.full(tuple(self.geobox.shape), QA.CLEAR, dtype="uint8", chunks=_CHUNK_CELLS)
        (inside,) = clip(self.geobox, self.area.geometry, (clear, QA.OUTSIDE))
        return inside

    @property
    def _own_name(self) -> str:
        """Name of an array without bands: that of the array, or else of the band that it was selected from."""
        band = self.cube.coords.get("band")
        of_band = str(band.item()) if band is not None and band.ndim == 0 else ""
        return of_band if self.cube.name in (None, NAME) else str(self.cube.name)

    def _facts(self, image: xr.DataArray, groups: Mapping[str, Any]) -> SliceFacts:
        time = _time_of(image)
        of_slice = self._slice_of(image, time)
        if of_slice:
            sources = [self.sources[of_slice]] if of_slice in self.sources else []
        elif time:
            sources = self._sources_at(time)
        else:
            sources = [
                each for each in self.sources.values() if all(is_in_group(each, *group) for group in groups.items())
            ]
        before = f"_{sources[0].name}" if of_slice and sources and sources[0].name else ""
        prefix = f"{self.cube.attrs.get('aoi', self.area.id)}_"
        day = of_slice.removeprefix(prefix).removesuffix(before) if of_slice.startswith(prefix) else ""
        day = day or (self._day(time) if time else "")
        names = (f"{dim}{value:02d}" if isinstance(value, int) else f"{dim}{value}" for dim, value in groups.items())
        return SliceFacts(
            self.area.id,
            self.outline_lonlat,
            "_".join(filter(None, [self.area.id, file_name(day), self.name, *map(file_name, names)])),
            time,
            tuple(dict.fromkeys(scene for each in sources for scene in each.scenes)),
            common_provenance(sources),
            name=self.name,
            interval=None if time else self._interval(sources),
            is_explained=_has_masks(image),
        )

    def _slice_of(self, image: xr.DataArray, time: datetime | None) -> str:
        """Return the id of the slice of an image; empty if it has none, or if it has another time, as of `interp`."""
        if not time or "slice" not in image.coords:
            return ""
        of_slice = str(image["slice"].values.item())
        ends = acquired(self.sources[of_slice]) if of_slice in self.sources else (time,)
        return of_slice if min(ends) - _A_SECOND <= time <= max(ends) + _A_SECOND else ""

    def _sources_at(self, time: datetime) -> list[SliceFacts]:
        """Return the slices of a time: those acquired then, else those from it to the next time, as of `resample`.

        If a slice is earlier than all times, the times are no beginnings of periods: all slices.
        """
        every = list(self.sources.values())
        if exact := [each for each in every if each.time == time]:
            return exact
        times = sorted(
            instant.replace(tzinfo=UTC) for instant in self.cube.time.values.astype("M8[us]").ravel().tolist()
        )
        later = next((each for each in times if each > time), datetime.max.replace(tzinfo=UTC))
        within = [each for each in every if all(time <= instant < later for instant in acquired(each))]
        is_period = all(times[0] <= instant for each in every for instant in acquired(each))
        return within if is_period else every

    def _day(self, time: datetime) -> str:
        # `resample` labels a period by midnight. At another longitude, that is an hour of the day before or after.
        return f"{time:%Y%m%d}" if time.time() == clock(0) else solar_day(time, self.area.lon)

    def _interval(self, sources: Sequence[SliceFacts]) -> tuple[datetime, datetime]:
        if times := [end for each in sources for end in acquired(each)]:
            return min(times), max(times)
        within = self.given.times and self.given.times.at(self.area.lon)
        if within and within.start and within.end and not sources_of(self.cube):
            return within.start, within.end
        problem = "has no time, and no scene that it was computed from is known"
        remedy = "State the interval of its scenes, with a beginning and an end: write_cogs(…, datetime='2024-06')"
        raise OutputError("the cube", problem, remedy)

    def _image(self, image: xr.DataArray, time: datetime | None, packing: Packing) -> xr.DataArray:
        coords: dict[Any, Any] = {
            "band": np.array([str(each) for each in _labels(image, "band")], object),
            **xr_coords(self.geobox, dims=("y", "x")),
            "qa": (("y", "x"), image.qa.data.astype("uint8") if _has_masks(image) else self.inside),
        }
        if time:
            coords["time"] = np.datetime64(time.replace(tzinfo=None), "ns")
        made = xr.DataArray(image.data, dims=("band", "y", "x"), coords=coords)
        set_packing(made, packing)
        return made


def _labels(image: xr.DataArray, dim: Any) -> list[Any]:
    """Return the labels of a dimension, or else numbers from 1."""
    return image[dim].values.tolist() if dim in image.coords else list(range(1, image.sizes[dim] + 1))


def _time_of(image: xr.DataArray) -> datetime | None:
    time = image.coords.get("time")
    if time is None or time.ndim or time.dtype.kind != "M" or np.isnat(time.values):
        return None
    instant: datetime = time.values.astype("datetime64[us]").item()
    return instant.replace(tzinfo=UTC)


def _has_masks(image: xr.DataArray) -> bool:
    """Return whether an image still has the QA values of its cells. Means of QA values are none."""
    qa = image.coords.get("qa")
    return qa is not None and set(qa.dims) == {"y", "x"} and qa.dtype.kind in "iu"


def _polygons(shape: BaseGeometry) -> BaseGeometry:
    """Return the polygons of an intersection, without the lines and points at which shapes only touch."""
    return shapely.MultiPolygon([part for part in shapely.get_parts(shape) if part.area])
