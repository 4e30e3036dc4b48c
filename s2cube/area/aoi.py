"""One area of interest."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.area.outline import bend_deg, enclosing, ground_digest, in_crs, simplified

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from odc.geo.geom import Geometry


_STRAIGHT_M = 10_000
"""Maximum length of a segment, metres: reprojecting it to degrees moves it by less than 20 m, up to latitude 84."""


_BEND_DEG = 1e-6
"""Maximum deviation from a straight line that is ignored, degrees: a decimetre."""


_LARGE_BEND_DEG = 1e-5
"""Deviation from a straight line above which the CRS matters, degrees: a metre, a tenth of the smallest pixel."""


@dataclass(frozen=True)
class AOI:
    """One area of interest.

    Parameters
    ----------
    id
        Safe as a file name, unique among the AOIs of a file.
    geometry
        Valid, non-empty Polygon or MultiPolygon with its own CRS. In degrees it may cross the antimeridian, in any
        notation. It is then kept in one piece, with longitudes beyond 180.

    Raises
    ------
    ValueError
        If it is nowhere on Earth, spans more than half the globe or contains a pole.
    """

    id: str
    geometry: "Geometry"

    def __post_init__(self) -> None:
        from odc.geo.geom import Geometry

        shape = unwrap(self.geometry.geom) if self._in_degrees else self.geometry.geom
        object.__setattr__(self, "geometry", Geometry(shape, _named_by_code(self.geometry.crs)))
        west, _, east, _ = self.whole_lonlat.boundingbox
        if east - west > 180:
            raise ValueError("spans more than half the globe or goes round a pole")

    @property
    def _in_degrees(self) -> bool:
        return self.geometry.crs is not None and self.geometry.crs.geographic

    @cached_property
    def whole_lonlat(self) -> "Geometry":
        """The geometry in EPSG:4326, in one piece: longitudes may exceed 180, see `unwrap`."""
        from odc.geo.geom import Geometry

        # A straight line in metres is curved in degrees, by kilometres in large areas near the poles.
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
        """An area of at most about a hundred vertices that contains the AOI, by RFC 7946; see `outline.enclosing`."""
        import shapely
        from odc.geo.geom import Geometry

        around = split(enclosing(self.whole_lonlat.geom))
        return Geometry(shapely.orient_polygons(around), self.whole_lonlat.crs)

    @cached_property
    def ground(self) -> str:
        """Digest of the ground: the same for the same polygon in any format and CRS; see `outline.ground_digest`.

        If straight edges in a CRS of metres deviate by more than a metre from straight lines in degrees, the CRS is
        part of the digest.
        """
        digest = ground_digest(self.geometry.to_crs("EPSG:4326").geom)
        return f"{digest} {self.geometry.crs}" if bend_deg(self.geometry) > _LARGE_BEND_DEG else digest

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """Box (west, south, east, north), degrees; west is greater than east if it crosses the antimeridian."""
        return bounds_lonlat(self.whole_lonlat.geom)

    @property
    def lon(self) -> float:
        """Longitude of the centroid, degrees east, in [-180, 180)."""
        lon = float(self.whole_lonlat.centroid.coords[0][0])
        return lon if lon < 180 else lon - 360


def _named_by_code(crs: "CRS | None") -> "CRS | None":
    """Name a CRS by its EPSG code, if it has one.

    odc-geo names a CRS as the process met it first: by its code or as WKT. A name that varies would make the same area
    look like another one, and a grid like that of another CRS.
    """
    from odc.geo.crs import CRS

    if crs is None or str(crs).startswith("EPSG:") or crs.epsg is None:
        return crs
    by_code = CRS(f"EPSG:{crs.epsg}")
    return by_code if by_code == crs else crs
