"""Frozen values that two or more stages share."""

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from s2cube.antimeridian import bounds_lonlat, split, unwrap
from s2cube.errors import SliceError
from s2cube.shape import bend_deg, enclosing, ground_digest, in_crs, simplified

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox
    from odc.geo.geom import Geometry

Dtype = Literal["int16", "float32"]
"""int16: reflectance × 10000, nodata -9999; float32: reflectance, nodata NaN."""

Quality = Literal["exact", "fast"]
"""exact: the mean of native pixels; fast: of the coarsest overview's that are no larger than the grid's cells."""

Offset = Literal["auto", "none", "-1000"]
"""What is added to digital numbers: as the scene says, nothing, or -1000."""

_STRAIGHT_M = 10_000
"""So far a line that is straight in metres is bent by 20 m at most in degrees, up to latitude 84."""

_BEND_DEG = 1e-6
"""A decimetre at most: by how much a line may be bent and still be drawn straight."""

_LARGE_BEND_DEG = 1e-5
"""A metre at most, a tenth of the smallest pixel."""

_LONGEST_TEXT = 1000
"""Characters of a text that a name is made of: normalising a long text of combining characters takes minutes."""

_DEVICE = re.compile(r"(?i)con|prn|aux|nul|conin|conout|clock|(com|lpt)[0-9¹²³]")
"""https://learn.microsoft.com/windows/win32/fileio/naming-a-file; names of s2cube hold no dollar sign anyway."""

_LONGEST_NAME_BYTES = 80
"""Two of these and what is written beside them stay below the 255 bytes of most file systems."""


def file_name(text: str) -> str:
    """Make a name that is safe for every file system, shell and URL: letters and digits of any script, ``-``, ``_``.

    A name that Windows reserves for a device, such as CON, gets a digest.
    """
    plain = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", text[:_LONGEST_TEXT]))
    name = plain.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore").strip("-")
    return _with_digest(name, text) if _DEVICE.fullmatch(name) else name


def unique_file_names(texts: Sequence[str]) -> list[str]:
    """Make file names of texts, unique also for file systems that do not distinguish upper and lower case.

    A text that is a valid name, and that no other text makes, stays as it is. Any other name gets a digest of its text.
    """
    names = [file_name(each) for each in texts]
    keys = [name_key(name) for name in names]
    counts = Counter(keys)
    taken = {key for key, count in counts.items() if count == 1}
    repeated: Counter[str] = Counter()
    for position, (text, key) in enumerate(zip(texts, keys, strict=True)):
        if counts[key] == 1 and key:
            continue
        number = repeated[text]
        repeated[text] += 1
        name = _with_digest(names[position], text, number)
        while name_key(name) in taken:
            name = _with_digest(name, text, number)
        taken.add(name_key(name))
        names[position] = name
    return names


def name_key(name: str) -> str:
    """Give what two names have in common if a file system may take them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _with_digest(name: str, text: str, number: int = 0) -> str:
    content = f"{text}\0{number}" if number else text
    digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name}-{digest}" if name else digest


@dataclass(frozen=True)
class AOI:
    """One area of interest.

    Parameters
    ----------
    id
        Safe as a file name, unique among the AOIs of a file.
    geometry
        Valid, non-empty Polygon or MultiPolygon with its own CRS. In degrees it may be drawn over the antimeridian in
        any style, and is then kept in one piece, with longitudes beyond 180.

    Raises
    ------
    ValueError
        If it lies nowhere on Earth, spans more than half the globe or goes round a pole.
    """

    id: str
    geometry: "Geometry"

    def __post_init__(self) -> None:
        from odc.geo.geom import Geometry

        if self._in_degrees:
            object.__setattr__(self, "geometry", Geometry(unwrap(self.geometry.geom), self.geometry.crs))
        west, _, east, _ = self.whole_lonlat.boundingbox
        if east - west > 180:
            raise ValueError("spans more than half the globe or goes round a pole")

    @property
    def _in_degrees(self) -> bool:
        return self.geometry.crs is not None and self.geometry.crs.geographic

    @cached_property
    def whole_lonlat(self) -> "Geometry":
        """The geometry in EPSG:4326, in one piece: longitudes run on across the antimeridian, see `unwrap`."""
        from odc.geo.geom import Geometry

        # What is straight in metres is bent in degrees, by kilometres in large areas near the poles.
        crs = "EPSG:4326"
        lonlat = self.geometry.to_crs(crs) if self._in_degrees else in_crs(self.geometry, crs, _STRAIGHT_M)
        if not all(map(math.isfinite, lonlat.boundingbox)):
            raise ValueError("lies nowhere on Earth in its CRS")
        whole = unwrap(lonlat.geom)
        return Geometry(whole if self._in_degrees else simplified(whole, _BEND_DEG), lonlat.crs)

    @cached_property
    def geometry_lonlat(self) -> "Geometry":
        """The geometry by RFC 7946: EPSG:4326, longitude first, in [-180, 180] and cut at the antimeridian."""
        import shapely
        from odc.geo.geom import Geometry

        return Geometry(shapely.orient_polygons(split(self.whole_lonlat.geom)), self.whole_lonlat.crs)

    @cached_property
    def search_area(self) -> "Geometry":
        """An area of at most about a hundred vertices that contains the AOI, by RFC 7946; see `shape.enclosing`."""
        import shapely
        from odc.geo.geom import Geometry

        around = split(enclosing(self.whole_lonlat.geom))
        return Geometry(shapely.orient_polygons(around), self.whole_lonlat.crs)

    @cached_property
    def ground(self) -> str:
        """Digest of the ground: the same for the same polygon in any format and CRS; see `shape.ground_digest`.

        If edges that are straight in a CRS of metres are bent by more than a metre in degrees, the CRS is part of the
        digest.
        """
        digest = ground_digest(self.geometry.to_crs("EPSG:4326").geom)
        return f"{digest} {self.geometry.crs}" if bend_deg(self.geometry) > _LARGE_BEND_DEG else digest

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """Box (west, south, east, north), degrees; west is greater than east across the antimeridian."""
        return bounds_lonlat(self.whole_lonlat.geom)

    @property
    def lon(self) -> float:
        """Longitude of the centroid, degrees east, in [-180, 180)."""
        lon = float(self.whole_lonlat.centroid.coords[0][0])
        return lon if lon < 180 else lon - 360


@dataclass(frozen=True)
class Dropped:
    """A scene that is not used, for `kept` is the same granule; `reason` says in which way."""

    scene: str
    kept: str
    reason: str


@dataclass(frozen=True)
class TimeSlice:
    """The scenes that become one image.

    Parameters
    ----------
    id
        ``<aoi>_<YYYYMMDD>`` (solar day) or ``<aoi>_<scene id>``.
    time, end
        Acquisition of the earliest scene and of the latest, UTC.
    scenes
        In the order in which they fill the mosaic: the first valid pixel wins.
    dropped
        What else the search found of the same granules.
    recipe
        Digest of all that decides its pixels but the choice of bands: AOI, grid, settings, scenes as processed.
    """

    id: str
    time: datetime
    end: datetime
    scenes: "tuple[pystac.Item, ...]"
    dropped: "tuple[Dropped, ...]"
    recipe: str


@dataclass(frozen=True)
class UnusableSlice:
    """A time slice that cannot be made, as the items of its scenes already show.

    Parameters
    ----------
    id
        As that of a `TimeSlice`; ``<aoi>_<scene id>`` also if a scene does not say when it was acquired.
    scenes
        Ids of its scenes.
    time, end
        As those of a `TimeSlice`, if they are known.
    """

    id: str
    scenes: tuple[str, ...]
    error: SliceError
    time: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """What to make for an AOI: the grid and the time slices, oldest first; and those that cannot be made.

    Parameters
    ----------
    search
        Settings that decided which scenes were found, by the names of the flags; empty if there was no search.
    """

    aoi: AOI
    geobox: "GeoBox"
    slices: tuple[TimeSlice, ...]
    unusable: tuple[UnusableSlice, ...] = ()
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scenes(self) -> "list[pystac.Item]":
        """The scenes of all slices, slice by slice."""
        return [scene for time_slice in self.slices for scene in time_slice.scenes]

    @property
    def scenes_per_slice(self) -> tuple[int, ...]:
        """How many of `scenes` belong to each slice."""
        return tuple(len(time_slice.scenes) for time_slice in self.slices)
