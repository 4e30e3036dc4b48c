"""Define an area of interest."""

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
"""Maximum length of a segment, metres. Up to latitude 84, its reprojection to degrees moves it by less than 20 m."""


_BEND_DEG = 1e-6
"""Maximum deviation from a straight line that is ignored, degrees: 0.1 m."""


_LARGE_BEND_DEG = 1e-5
"""Maximum deviation from a straight line for which the CRS is ignored, degrees: 1 m, a tenth of the smallest pixel."""


@dataclass(frozen=True)
class AOI:
    """One area of interest.

    Parameters
    ----------
    id
        Id that is a safe file name and unique in the file of the AOIs.
    geometry
        Valid, non-empty Polygon or MultiPolygon with its own CRS. In degrees, it may cross the antimeridian, in any
        usual notation. It is then stored in one piece, with longitudes beyond 180.

    Raises
    ------
    ValueError
        If the geometry is not on Earth, extends over more than 180 degrees of longitude, or contains a pole.
    """

    id: str
    geometry: "Geometry"

    def __post_init__(self) -> None:
        from odc.geo.geom import Geometry

        shape = unwrap(self.geometry.geom) if self._in_degrees else self.geometry.geom
        object.__setattr__(self, "geometry", Geometry(shape, _named_by_code(self.geometry.crs)))
        west, _, east, _ = self.whole_lonlat.boundingbox
        if east - west > 180:
            raise ValueError("spans more than half the globe or contains a pole")

    @property
    def _in_degrees(self) -> bool:
        return self.geometry.crs is not None and self.geometry.crs.geographic

    @cached_property
    def whole_lonlat(self) -> "Geometry":
        """Geometry in EPSG:4326, in one piece. Longitudes may exceed 180; see `unwrap`."""
        from odc.geo.geom import Geometry

        # A straight line in metres is a curve in degrees. In large areas near the poles, they differ by kilometres.
        crs = "EPSG:4326"
        lonlat = self.geometry.to_crs(crs) if self._in_degrees else in_crs(self.geometry, crs, _STRAIGHT_M)
        if not all(map(math.isfinite, lonlat.boundingbox)):
            raise ValueError("is not on Earth in its CRS")
        whole = unwrap(lonlat.geom)
        return Geometry(whole if self._in_degrees else simplified(whole, _BEND_DEG), lonlat.crs)

    @cached_property
    def geometry_lonlat(self) -> "Geometry":
        """Geometry as RFC 7946 requires: EPSG:4326, longitude first, in [-180, 180], cut at the antimeridian."""
        import shapely
        from odc.geo.geom import Geometry

        return Geometry(shapely.orient_polygons(split(self.whole_lonlat.geom)), self.whole_lonlat.crs)

    @cached_property
    def search_area(self) -> "Geometry":
        """Area of at most about 100 vertices that contains the AOI, as RFC 7946 requires; see `outline.enclosing`."""
        import shapely
        from odc.geo.geom import Geometry

        around = split(enclosing(self.whole_lonlat.geom))
        return Geometry(shapely.orient_polygons(around), self.whole_lonlat.crs)

    @cached_property
    def ground(self) -> str:
        """Digest of the enclosed area: equal for the same polygon in any format and CRS; see `outline.ground_digest`.

        In a CRS in metres, edges may deviate by more than 1 m from straight lines in degrees. The digest then includes
        the CRS.
        """
        digest = ground_digest(self.geometry.to_crs("EPSG:4326").geom)
        return f"{digest} {self.geometry.crs}" if bend_deg(self.geometry) > _LARGE_BEND_DEG else digest

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """Box (west, south, east, north), degrees. If it crosses the antimeridian, west is greater than east."""
        return bounds_lonlat(self.whole_lonlat.geom)

    @property
    def lon(self) -> float:
        """Longitude of the centroid, degrees east, in [-180, 180)."""
        lon = float(self.whole_lonlat.centroid.coords[0][0])
        return lon if lon < 180 else lon - 360


def _named_by_code(crs: "CRS | None") -> "CRS | None":
    """Name a CRS by its EPSG code if it has a code.

    odc-geo caches the first name of a CRS in a process: its code or its WKT. Different names of one CRS would result in
    different areas and grids.
    """
    from odc.geo.crs import CRS

    if crs is None or str(crs).startswith("EPSG:") or crs.epsg is None:
        return crs
    by_code = CRS(f"EPSG:{crs.epsg}")
    return by_code if by_code == crs else crs
