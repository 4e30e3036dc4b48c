"""Composites of a cube in a notebook."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  registers .odc
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from odc.geo.geom import Geometry

from s2cube.area.aoi import AOI
from s2cube.config.composites import DAY_METHODS, Method
from s2cube.config.literals import CompositeMethod
from s2cube.config.periods import DayRange, Period, Periods
from s2cube.config.times import parse_times, solar_day
from s2cube.errors import ConfigError
from s2cube.kernels.packing import PACKINGS
from s2cube.products._compose import Stack, compose
from s2cube.sentinel2 import BAND_ASSETS, class_band_of

if TYPE_CHECKING:
    from s2cube.config.times import TimesLike

_PER_TIME = ("qa", "slice", "scenes", "time", "count", "date", "period")
"""Coordinates of the images, which a composite does not have, or has with other values."""


def composite(
    cube: xr.DataArray,
    *,
    period: str = "month",
    method: CompositeMethod = "median",
    score: str | None = None,
    min_count: int = 1,
    datetime: "TimesLike" = None,
) -> xr.DataArray:
    """Make one image of all images of a period, for each period of a cube. No pixel is read before it is computed.

    An observation of a pixel is a day on which the pixel is valid in every band of reflectance. Bands with other names
    than those of Sentinel-2 are indices. They define no distance, and no observation if the cube has other bands.

    Parameters
    ----------
    cube
        From `open_cube` or `open_output`, or a selection of it, also with indices as further bands. Dims (time, band,
        y, x), float32 with nodata NaN, or int16 × 10000 with nodata -9999. One image per day.
    period
        ``month``, ``season`` (December belongs to the winter of the next year), ``year``, ``all``, or a number of days,
        ``P10D``, counted from the first day.
    method
        ``median`` or ``mean`` of each band. ``geomedian``: the geometric median of all bands together. ``medoid``: the
        observation that is nearest to the geometric median. ``best``: the observation with the greatest score.
        ``first``: the earliest observation. Of equal observations, the earliest is used.
    score
        The index of ``best``, a band of the cube: ``NDVI`` (the default) for the greatest value, ``-NDVI`` for the
        least. ``-time`` with ``first``: the latest observation.
    min_count
        Pixels with fewer observations are nodata.
    datetime
        Range of days to use. Forms as in `search`. Without a range, ``all`` and ``P<N>D`` begin on the first day of the
        cube, and other periods are whole.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x), with the dtype and nodata of the cube; one time for each period that has images:
        the first day of the period. int16 is rounded to the nearest even number. The coordinate `count` (time, y, x) is
        the number of observations, uint16. With ``medoid``, ``best`` and ``first``, the coordinate `date` (time, y, x)
        is the day of the observation in days since 1970-01-01, uint16, 0 where there is none. The coordinate `period`
        (time) has the names of the periods, such as ``202406``, ``2024JJA`` or ``20240601``. `write_cogs` writes the
        result.

    Raises
    ------
    ConfigError
        If a setting is not valid, if the cube has several images of one day, or if it has no band for the score. If the
        bands cannot be composed: classes with a median or mean, indices with ``geomedian``.

    Notes
    -----
    All images of a period are in memory at once, for each chunk of y and x. For long periods use smaller chunks:
    ``open_cube(…, chunks={"y": 512, "x": 512})``.

    Examples
    --------
    The command ``s2cube demo`` writes these files.

    >>> import s2cube
    >>> aoi = "s2cube-demo/archive/aoi.geojson"
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05/2022-06")
    >>> cube = s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60)
    >>> months = s2cube.composite(cube, period="month", method="median")
    >>> months.dims, months.shape, months.period.values.tolist()
    (('time', 'band', 'y', 'x'), (2, 2, 89, 154), ['202205', '202206'])
    >>> whole = s2cube.composite(cube, period="all", method="medoid").compute()
    >>> whole.period.item(), int(whole["count"].max())
    ('20220520-20220614', 2)
    """
    chosen = Method.parse(method, score, min_count)
    source = _Source.of(cube)
    source.check_bands(chosen)
    periods = Periods(period, source.range_of(period, datetime))
    return source.composites(periods, chosen)


@dataclass(frozen=True)
class _Source:
    """A cube whose images are in the order of their solar days."""

    cube: xr.DataArray
    days: Sequence[date]

    @classmethod
    def of(cls, cube: xr.DataArray) -> "_Source":
        _check(cube)
        days = _days(cube)
        if repeated := {day for day in days if days.count(day) > 1}:
            problem = f"has several images of {min(repeated)}"
            raise ConfigError("the cube", problem, "Open it with group_by='solar_day', so that a day has one image")
        order = np.argsort([each.toordinal() for each in days])
        return cls(cube.transpose("time", "band", "y", "x").isel(time=order), [days[each] for each in order])

    @property
    def bands(self) -> list[str]:
        return [str(each) for each in self.cube.band.values.tolist()]

    @property
    def is_spectral(self) -> list[bool]:
        return [each in BAND_ASSETS for each in self.bands]

    def check_bands(self, method: Method) -> None:
        """Raise an error if the method does not suit the bands."""
        indices = [each for each in self.bands if each not in BAND_ASSETS]
        if classes := [each for each in indices if class_band_of(each) and method.name not in DAY_METHODS]:
            problem = f"computes no {classes[0]}: it is a class, and classes have no {method.name}"
            raise ConfigError(f"method '{method.name}'", problem, "Leave the band out, or choose first, best or medoid")
        if method.name in ("geomedian", "medoid") and not any(self.is_spectral):
            problem = "needs bands of reflectance, and the cube has none"
            raise ConfigError(f"method '{method.name}'", problem, "Add bands such as red and nir, or use the median")
        if method.name == "geomedian" and indices:
            problem = f"does not compute {indices[0]}: an index has no geometric median"
            remedy = f"Leave it out (cube.drop_sel(band={indices}), and compute it from the bands of the result"
            raise ConfigError("method 'geomedian'", problem, remedy)
        if method.score and method.score not in self.bands:
            problem = f"the cube has no band of this name; its bands are {', '.join(self.bands)}"
            raise ConfigError(f"score '{method.score}'", problem, "Add the index to the cube as a band")

    def range_of(self, period: str, times: "TimesLike") -> DayRange:
        """Return the range of days that the user states, or else that of the cube for periods that need one."""
        try:
            stated = parse_times(times)
        except ValueError as error:
            raise ConfigError("datetime", str(error), "Correct the value") from None
        if stated:
            return DayRange.of(stated, _lon(self.cube))
        return DayRange() if period in ("month", "season", "year") else DayRange(self.days[0], self.days[-1])

    def composites(self, periods: Periods, method: Method) -> xr.DataArray:
        """Compose each period that has images."""
        found: dict[Period, list[int]] = {}
        for number, day in enumerate(self.days):
            if within := periods.of(day):
                found.setdefault(within, []).append(number)
        if not found:
            problem = f"no image of the cube is in this range; its images are from {self.days[0]} to {self.days[-1]}"
            raise ConfigError("datetime", problem, "Give a range that contains days of the cube")
        layers = [self._layers(slice(numbers[0], numbers[-1] + 1), method) for numbers in found.values()]
        values, *others = (da.stack(each) for each in zip(*layers, strict=True))
        coords: dict[Hashable, Any] = {
            name: each for name, each in self.cube.coords.items() if name not in _PER_TIME and "time" not in each.dims
        }
        coords |= {name: (("time", "y", "x"), layer) for name, layer in zip(("count", "date"), others, strict=False)}
        coords["time"] = np.array([each.begin for each in found], "datetime64[ns]")
        coords["period"] = "time", np.array([each.name for each in found])
        made: xr.DataArray = xr.DataArray(values, coords, ("time", "band", "y", "x"), method.name, self.cube.attrs)
        nodata = PACKINGS[made.dtype.name].nodata
        made = made.rio.write_nodata(nodata, encoded=True)
        # For integers, rioxarray does not read nodata from the encoding.
        made.rio.set_nodata(nodata)
        return made

    def _layers(self, part: slice, method: Method) -> list[da.Array]:
        """Return the values, the count and the date of one period, (band, y, x) and (y, x)."""
        values = da.asarray(self.cube.data)[part].rechunk({0: -1, 1: -1})
        rows, columns = values.chunks[2:]
        # Each chunk of this array is a tuple of arrays, so that the images are read and ordered once.
        every = da.map_blocks(
            _compose_chunk, values, self.days[part], self.is_spectral, method,
            self.bands.index(method.score) if method.score else None,
            drop_axis=(0, 1), chunks=(rows, columns), meta=np.empty((0, 0), values.dtype),
        )  # fmt: skip
        whole, plane = np.empty((0, 0, 0), values.dtype), np.empty((0, 0), "uint16")
        chunks = (values.shape[1],), rows, columns
        layers = range(1, 3 if method.name in DAY_METHODS else 2)
        return [
            every.map_blocks(itemgetter(0), new_axis=0, chunks=chunks, meta=whole),
            *(every.map_blocks(itemgetter(number), meta=plane) for number in layers),
        ]


def _compose_chunk(
    values: np.ndarray, days: Sequence[date], is_spectral: Sequence[bool], method: Method, score: int | None
) -> tuple[np.ndarray | None, ...]:
    stack = Stack(values, days, is_spectral, None if score is None else values[:, score])
    made = compose(stack, method)
    return made.values, made.count, made.date


def _check(cube: object) -> None:
    if not isinstance(cube, xr.DataArray) or set(cube.dims) != {"time", "band", "y", "x"}:
        dims = ", ".join(map(str, cube.dims)) if isinstance(cube, xr.DataArray) else type(cube).__name__
        problem = f"is no cube of the dimensions time, band, y, x (it is: {dims})"
        raise ConfigError("the cube", problem, "Pass a cube of open_cube; cube.expand_dims('band') adds a dimension")
    if cube.dtype.name not in PACKINGS:
        remedy = "Convert it: cube.astype('float32')"
        raise ConfigError("the cube", f"has the dtype {cube.dtype}; composites are of float32 or int16", remedy)
    if not cube.size:
        raise ConfigError("the cube", "is empty", "Correct the selection of times, bands or pixels")


def _days(cube: xr.DataArray) -> list[date]:
    """Return the solar day of each image: as the ids of slices name it, or else by the longitude of the area."""
    ids = cube["slice"].values.tolist() if "slice" in cube.coords else [""] * cube.sizes["time"]
    prefix, lon = re.escape(f"{cube.attrs.get('aoi', '')}_"), _lon(cube)
    instants = cube.time.values.astype("datetime64[us]").tolist()
    return [
        _day(re.fullmatch(rf"{prefix}(\d{{8}})(_.*)?", name), at, lon) for name, at in zip(ids, instants, strict=True)
    ]


def _day(named: re.Match[str] | None, at: datetime, lon: float) -> date:
    # The time of a day that someone has computed is midnight, and not an instant.
    is_day = at.time() == time.min
    if named or not is_day:
        return date.fromisoformat(named[1] if named else solar_day(at, lon))
    return at.date()


def _lon(cube: xr.DataArray) -> float:
    """Return the longitude of the area, or else of the middle of the grid, degrees east."""
    if outline := cube.attrs.get("aoi_wkt_lonlat"):
        return AOI("area", Geometry(shapely.from_wkt(outline), "EPSG:4326")).lon
    geobox = cube.odc.geobox
    if geobox is None or geobox.crs is None:
        problem = "has no grid with a CRS, so the solar day of its times is not known"
        raise ConfigError("the cube", problem, "Give it a CRS: cube.rio.write_crs('EPSG:N')")
    return float(geobox.extent.centroid.to_crs("EPSG:4326").coords[0][0])
