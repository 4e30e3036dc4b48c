"""Define an area of interest."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.area.names import file_name
from s2cube.area.outline import bend_deg, enclosing, ground_digest, in_crs, simplified
from s2cube.errors import AOIError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from odc.geo.geom import Geometry
    from shapely.geometry.base import BaseGeometry


STRAIGHT_M = 10_000
"""Maximum length of a segment, metres. Up to latitude 84, its reprojection to degrees moves it by less than 20 m."""


_BEND_DEG = 1e-6
"""Maximum deviation from a straight line that is ignored, degrees: 0.1 m."""


_LARGE_BEND_DEG = 1e-5
"""Maximum deviation from a straight line for which the CRS is ignored, degrees: 1 m, a tenth of the smallest pixel."""

_MOST_DEG = 720
"""Maximum longitude in any notation: some shapes are shifted by a turn, or continue beyond 180."""

_TOO_LARGE = "Draw a smaller one, and save it with the CRS in which it is drawn"


@dataclass(frozen=True, init=False)
class AOI:
    """One area of interest.

    Parameters
    ----------
    id
        Id that is a safe file name: letters and digits of any script, ``-``, ``_``. It is unique among the areas of an
        output.
    geometry
        Valid, non-empty Polygon or MultiPolygon of odc-geo with its own CRS; or of shapely, longitude first, degrees
        (EPSG:4326). In degrees, it may cross the antimeridian, in any usual notation. It is then stored in one piece,
        with longitudes beyond 180. Heights are removed.

    Raises
    ------
    AOIError
        If the id is not a safe file name. If the geometry is empty, invalid, not a polygon, or not on Earth, extends
        over more than 180 degrees of longitude, or contains a pole.

    Examples
    --------
    >>> import s2cube
    >>> import shapely
    >>> aoi = s2cube.AOI("farm", shapely.box(-98.25, 41.08, -98.14, 41.13))
    >>> aoi.id, aoi.bounds_lonlat, str(aoi.geometry.crs)
    ('farm', (-98.25, 41.08, -98.14, 41.13), 'EPSG:4326')
    """

    id: str
    geometry: "Geometry"

    def __init__(self, id: str, geometry: "Geometry | BaseGeometry") -> None:
        from odc.geo.geom import Geometry

        if not isinstance(id, str) or not id or file_name(id) != id:
            safe = file_name(str(id))
            remedy = f"Use '{safe}'" if safe else "Use letters and digits"
            raise AOIError("the AOI", f"has the id {id!r}, which is not a safe file name", remedy)
        shape, crs = checked_shape(f"area '{id}'", geometry)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "geometry", Geometry(shape, crs))
        try:
            west, _, east, _ = self.whole_lonlat.boundingbox
        except ValueError as error:
            raise AOIError(f"area '{id}'", str(error), _TOO_LARGE) from None
        if east - west > 180:
            raise AOIError(f"area '{id}'", "spans more than half the globe or contains a pole", _TOO_LARGE)

    @property
    def _in_degrees(self) -> bool:
        return self.geometry.crs.geographic  # type: ignore[union-attr]

    @cached_property
    def whole_lonlat(self) -> "Geometry":
        """Geometry in EPSG:4326, in one piece. Longitudes may exceed 180; see `unwrap`."""
        from odc.geo.geom import Geometry

        # A straight line in metres is a curve in degrees. In large areas near the poles, they differ by kilometres.
        crs = "EPSG:4326"
        lonlat = self.geometry.to_crs(crs) if self._in_degrees else in_crs(self.geometry, crs, STRAIGHT_M)
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

    @cached_property
    def lon(self) -> float:
        """Longitude of the centroid, degrees east, in [-180, 180)."""
        lon = float(self.whole_lonlat.centroid.coords[0][0])
        return lon if lon < 180 else lon - 360


def box_of_areas(id: str, bounds_lonlat: tuple[float, float, float, float], lon: float) -> AOI:
    """Return a box around areas that are checked already. It is made in a tenth of the time of other areas.

    Parameters
    ----------
    bounds_lonlat
        West, south, east, north, degrees. East may exceed 180.
    lon
        Longitude that decides on solar days, degrees east.
    """
    import shapely
    from odc.geo.geom import Geometry

    found = object.__new__(AOI)
    vars(found).update(id=id, geometry=Geometry(shapely.box(*bounds_lonlat), "EPSG:4326"), lon=lon)
    return found


def checked_shape(subject: str, geometry: object) -> "tuple[BaseGeometry, CRS]":
    """Check that a geometry is a polygon that can be an area of interest. Return its shape and its CRS.

    Parameters
    ----------
    subject
        Subject of errors.
    geometry
        Geometry of odc-geo or of shapely. Without a CRS, it is in EPSG:4326.

    Returns
    -------
    shapely.geometry.base.BaseGeometry
        In degrees, it is in one piece; see `unwrap`.
    odc.geo.crs.CRS
        CRS, named by its EPSG code if it has a code.

    Raises
    ------
    AOIError
        If the geometry is empty, invalid or not a polygon, or if it is not in degrees although its CRS is.
    """
    import shapely
    from odc.geo.crs import CRS
    from odc.geo.geom import Geometry
    from shapely.geometry.base import BaseGeometry

    crs = geometry.crs if isinstance(geometry, Geometry) else None
    shape = geometry.geom if isinstance(geometry, Geometry) else geometry
    crs = CRS("EPSG:4326") if crs is None else named_by_code(crs)
    if shape is None or (isinstance(shape, BaseGeometry) and shape.is_empty):
        raise AOIError(subject, "has an empty geometry", "Draw its polygon or remove it")
    if not isinstance(shape, shapely.Polygon | shapely.MultiPolygon):
        kind = shape.geom_type if isinstance(shape, BaseGeometry) else type(shape).__name__
        raise AOIError(subject, f"is a {kind}, not a polygon", "Buffer it, or draw its area")
    flat: BaseGeometry = shapely.force_2d(shape)
    if crs.geographic:
        _check_degrees(subject, flat.bounds)
        # A valid outline that crosses the antimeridian may be invalid until `unwrap` removes the jump of longitudes.
        flat = unwrap(flat)
    if not flat.is_valid:
        reason = shapely.is_valid_reason(flat)
        remedy = "Repair it, as QGIS's 'Fix geometries' does"
        raise AOIError(subject, f"has an invalid geometry ({reason})", remedy)
    return flat, crs


def _check_degrees(subject: str, bounds: tuple[float, float, float, float]) -> None:
    west, south, east, north = bounds
    if not (-_MOST_DEG <= west <= east <= _MOST_DEG and -90 <= south <= north <= 90):
        raise AOIError(
            subject,
            f"has coordinates that are not degrees ({west:g} … {east:g} east, {south:g} … {north:g} north)",
            "They may be swapped, or in metres: give longitude first, or give their CRS",
        )


def named_by_code(crs: "CRS") -> "CRS":
    """Name a CRS by its EPSG code if it has a code.

    odc-geo caches the first name of a CRS in a process: its code or its WKT. Different names of one CRS would result in
    different areas and grids.
    """
    from odc.geo.crs import CRS

    if str(crs).startswith("EPSG:"):
        return crs
    code = _code_of(str(crs))
    if code is None:
        return crs
    by_code = CRS(f"EPSG:{code}")
    return by_code if by_code == crs else crs


@lru_cache
def _code_of(crs: str) -> int | None:
    """Return the EPSG code of a CRS. PROJ needs 0.1 s to find out that a CRS has none."""
    from odc.geo.crs import CRS

    code: int | None = CRS(crs).epsg
    return code
