"""Lay the grid of an area of interest."""

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
"""South and north, easting first."""

_STRETCH = 10
"""Maximum scale of a CRS. Mercator has it at latitude 84; a map that is torn apart has a scale of hundreds."""

_SHORTEST_M = 1e-3
"""Shortest step of the check, metres: shorter steps only measure rounding errors."""


def aoi_geobox(aoi: AOI, crs: str, resolution_m: float) -> "GeoBox":
    """Lay the grid that covers an area of interest.

    Cell edges are at multiples of the resolution from the origin of the CRS. So all AOIs, days and machines share one
    lattice. The granules of Sentinel-2 begin at multiples of 60 m, so their 10 m pixels nest in the cells of a 30 m
    lattice.

    Parameters
    ----------
    crs
        A projected CRS in metres as ``EPSG:N``, or ``auto``: the UTM zone of the centroid, near the poles UPS.
    resolution_m
        Pixel size, metres.

    Raises
    ------
    ConfigError
        If the CRS tears the area apart, or stretches it by more than a factor of ten.
    """
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

    target = _local_crs(aoi) if crs == "auto" else CRS(crs)
    # A straight edge in one CRS is curved in another: points along it keep the box whole.
    outline = in_crs(aoi.geometry, target)
    edges = outline.boundingbox
    endless = not all(map(math.isfinite, edges))
    if endless or not _fits(aoi, target):
        size = "endless" if endless else f"{edges.span_x / 1000:,.0f} by {edges.span_y / 1000:,.0f} km"
        raise ConfigError(
            f"crs {crs}",
            f"tears or stretches '{aoi.id}': its grid would be {size}",
            "Use --crs auto, or cut the area into smaller ones",
        )
    return GeoBox.from_bbox(edges, target, resolution=resolution_m, anchor="edge", tight=False)


def _local_crs(aoi: AOI) -> "CRS":
    from odc.geo.crs import CRS

    lat = aoi.whole_lonlat.centroid.coords[0][1]
    south, north = _UTM_LAT
    if not south <= lat <= north:
        return CRS(_UPS[lat > north])
    # odc-geo's CRS.utm gives the same, but asks PROJ's database, which takes a quarter of a second.
    zone = math.floor((aoi.lon + 180) / _ZONE_DEG) % _ZONES + 1
    return CRS(f"EPSG:{(32600 if lat >= 0 else 32700) + zone}")


def _fits(aoi: AOI, crs: "CRS") -> bool:
    """Compare lengths in the CRS with lengths on Earth, in steps along the two middle lines of an AOI."""
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
        if not (shown_m < _STRETCH * np.maximum(true_m, _SHORTEST_M)).all():
            return False
    return True
