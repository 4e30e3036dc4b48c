"""An area of interest and a resolution become a GeoBox."""

from typing import TYPE_CHECKING

from s2cube.model import AOI

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


def aoi_geobox(aoi: AOI, crs: str, resolution_m: float) -> "GeoBox":
    """Lay the grid that covers an area of interest.

    Pixel edges stand at multiples of the resolution from the origin of the CRS, so every AOI, day and machine
    shares one lattice; the 10 m pixels of Sentinel-2, whose granules begin at multiples of 60 m, nest in the
    cells of a 30 m lattice.

    Parameters
    ----------
    crs
        A projected CRS in metres as ``EPSG:N``, or ``auto``: the UTM zone of the centroid.
    resolution_m
        Pixel size, metres.
    """
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

    target = CRS.utm(aoi.geometry_lonlat.centroid) if crs == "auto" else CRS(crs)
    # A straight edge in one CRS is curved in another: points along it keep the box whole.
    outline = aoi.geometry.to_crs(target, resolution="auto")
    return GeoBox.from_bbox(outline.boundingbox, target, resolution=resolution_m, anchor="edge", tight=False)
