"""Create the grid of an area of interest."""

import math
from typing import TYPE_CHECKING

from s2cube.area.aoi import AOI
from s2cube.area.outline import in_crs
from s2cube.errors import ConfigError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

_UTM_LAT = (-80, 84)
"""Latitudes of the UTM zones, degrees north; UPS covers the rest (NGA.SIG.0012)."""

_ZONE_DEG = 6
"""Width of a UTM zone, degrees; zone 1 begins at 180 degrees west (NGA.SIG.0012)."""

_ZONES = 60

_UPS = ("EPSG:5042", "EPSG:5041")
"""UPS south and UPS north, easting first."""

_MOST_STRETCH = 10
"""Maximum scale factor of a CRS. Mercator has about this scale at latitude 84. A map that is cut into pieces has
a scale factor of hundreds."""

_SHORTEST_M = 1e-3
"""Minimum step of the check, metres. Shorter steps only measure rounding errors."""


def aoi_geobox(aoi: AOI, crs: str, resolution_m: float) -> "GeoBox":
    """Create the grid that covers an area of interest.

    Cell edges are at multiples of the resolution from the origin of the CRS. So all AOIs, days and machines use the
    same lattice. The granules of Sentinel-2 begin at multiples of 60 m. So each cell of a 30 m lattice contains
    complete 10 m pixels.

    Parameters
    ----------
    crs
        A projected CRS in metres as ``EPSG:N``, or ``auto``: the UTM zone of the centroid, or UPS near the
        poles.
    resolution_m
        Pixel size, metres.

    Raises
    ------
    ConfigError
        If the CRS cuts the area into pieces, or stretches it by more than a factor of 10.
    """
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

    target = CRS(utm_or_ups(aoi.lon, aoi.whole_lonlat.centroid.coords[0][1]) if crs == "auto" else crs)
    # A straight edge in one CRS is a curve in another CRS. Points along the edge make the bounding box complete.
    outline = in_crs(aoi.geometry, target)
    edges = outline.boundingbox
    is_infinite = not all(map(math.isfinite, edges))
    if is_infinite or not _has_usable_scale(aoi, target):
        size = "infinite" if is_infinite else f"{edges.span_x / 1000:,.0f} by {edges.span_y / 1000:,.0f} km"
        raise ConfigError(
            f"crs {crs}",
            f"cuts or stretches '{aoi.id}': its grid would be {size}",
            "Use --crs auto, or cut the area into smaller ones",
        )
    return GeoBox.from_bbox(edges, target, resolution=resolution_m, anchor="edge", tight=False)


def utm_or_ups(lon: float, lat: float) -> str:
    """Return the EPSG code of the UTM zone of a place, or of UPS near the poles, as ``EPSG:N``.

    Parameters
    ----------
    lon, lat
        Degrees east, in [-180, 180), and north.
    """
    south, north = _UTM_LAT
    if not south <= lat <= north:
        return _UPS[lat > north]
    # odc-geo's CRS.utm returns the same CRS, but its query of PROJ's database takes 0.25 s.
    zone = math.floor((lon + 180) / _ZONE_DEG) % _ZONES + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def _has_usable_scale(aoi: AOI, crs: "CRS") -> bool:
    """Check the scale of a CRS: compare lengths in it with lengths on Earth, along the two middle lines of an AOI."""
    import numpy as np
    from odc.geo.crs import CRS
    from pyproj import Geod

    west, south, east, north = aoi.whole_lonlat.boundingbox
    along = np.linspace(0, 1, 65)
    middle = np.full(along.shape, 0.5)
    for x, y in ((along, middle), (middle, along)):
        lon, lat = west + (east - west) * x, south + (north - south) * y
        x_m, y_m = CRS("EPSG:4326").transformer_to_crs(crs)(lon, lat)
        true_m = Geod(ellps="WGS84").inv(lon[:-1], lat[:-1], lon[1:], lat[1:])[2]
        shown_m = np.hypot(np.diff(x_m), np.diff(y_m))
        if not (shown_m < _MOST_STRETCH * np.maximum(true_m, _SHORTEST_M)).all():
            return False
    return True
