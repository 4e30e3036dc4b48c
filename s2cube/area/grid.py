"""An area of interest and a resolution become a GeoBox."""

import math
from typing import TYPE_CHECKING

from s2cube.area.aoi import AOI
from s2cube.area.outline import in_crs
from s2cube.errors import ConfigError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

_UTM_LAT = (-80, 84)
"""Degrees north between which there are UTM zones; beyond them is UPS (NGA.SIG.0012)."""

_ZONE_DEG = 6
"""Width of a UTM zone; zone 1 begins at 180 degrees west (NGA.SIG.0012)."""

_ZONES = 60

_UPS = ("EPSG:5042", "EPSG:5041")
"""South and north, easting first."""

_STRETCH = 10
"""By how much more than they are a CRS may show distances: Mercator does so at latitude 84, a torn map by hundreds."""

_SHORTEST_M = 1e-3
"""Shorter steps, across a sliver, only show how numbers are rounded."""


def aoi_geobox(aoi: AOI, crs: str, resolution_m: float) -> "GeoBox":
    """Lay the grid that covers an area of interest.

    Pixel edges stand at multiples of the resolution from the origin of the CRS, so every AOI, day and machine
    shares one lattice; the 10 m pixels of Sentinel-2, whose granules begin at multiples of 60 m, nest in the
    cells of a 30 m lattice.

    Parameters
    ----------
    crs
        A projected CRS in metres as ``EPSG:N``, or ``auto``: the UTM zone of the centroid, near the poles UPS.
    resolution_m
        Pixel size, metres.

    Raises
    ------
    ConfigError
        If the CRS tears the area, or stretches it beyond use.
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
            "Use --crs auto, or cut the area in smaller ones",
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
    """Walk along the middles of an AOI and see whether steps are, in the CRS, about as long as on Earth."""
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
