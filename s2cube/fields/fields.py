"""Define fields: many areas of interest as columns, because one object per area takes too long for a million."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import shapely
from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from s2cube.area.aoi import AOI, STRAIGHT_M, box_of_areas
from s2cube.area.outline import is_bent, with_points
from s2cube.errors import AOIError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONLAT = CRS("EPSG:4326")

_DIGEST_DECIMALS = 7


@dataclass(frozen=True, eq=False)
class Fields:
    """Areas of interest in one CRS, as columns of equal length.

    Parameters
    ----------
    ids
        Text, as `AOI.id`.
    shapes
        Polygons and MultiPolygons of shapely in `crs`, valid, without heights. In degrees, each is in one piece: its
        longitudes may exceed 180.
    crs
        Name of the CRS, for example ``EPSG:4326``.
    bounds_lonlat
        Dims (field, 4): west, south, east, north, degrees (EPSG:4326). Each field is in one piece: east may exceed 180.
    centres_lonlat
        Dims (field, 2): longitude in [-180, 180) and latitude of the centroid, degrees.
    """

    ids: "NDArray[np.object_]"
    shapes: "NDArray[np.object_]"
    crs: str
    bounds_lonlat: "NDArray[np.float64]"
    centres_lonlat: "NDArray[np.float64]"

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def outlines_wkb(self) -> tuple[bytes, ...]:
        """The outlines as well-known binary, in the CRS of the fields."""
        return tuple(shapely.to_wkb(self.shapes))

    @classmethod
    def of_aois(cls, aois: Sequence[AOI]) -> Self:
        """Return areas of interest as columns. They must have the same CRS."""
        (crs,) = {str(aoi.geometry.crs) for aoi in aois}
        lonlat = [aoi.whole_lonlat for aoi in aois]
        return cls(
            np.array([aoi.id for aoi in aois], object),
            np.array([aoi.geometry.geom for aoi in aois], object),
            crs,
            np.array([tuple(each.boundingbox) for each in lonlat]),
            np.array([(aoi.lon, each.centroid.coords[0][1]) for aoi, each in zip(aois, lonlat, strict=True)]),
        )

    @classmethod
    def groups(cls, aois: Iterable[AOI]) -> "list[Self]":
        """Return areas of interest as columns, those of each CRS."""
        of_crs: dict[str, list[AOI]] = {}
        for aoi in aois:
            of_crs.setdefault(str(aoi.geometry.crs), []).append(aoi)
        return list(map(cls.of_aois, of_crs.values()))

    def take(self, positions: "NDArray[np.intp] | NDArray[np.bool_]") -> Self:
        """Return some of the fields: their positions, or True for each of them."""
        return type(self)(
            self.ids[positions],
            self.shapes[positions],
            self.crs,
            self.bounds_lonlat[positions],
            self.centres_lonlat[positions],
        )

    def aoi(self, position: int) -> AOI:
        """Return one field as an area of interest."""
        return AOI(self.ids[position], Geometry(self.shapes[position], self.crs))

    def box(self, position: int) -> AOI:
        """Return the box around one field as an area of interest. It has the solar days of the field."""
        west, south, east, north = self.bounds_lonlat[position].tolist()
        return box_of_areas(self.ids[position], (west, south, east, north), float(self.centres_lonlat[position, 0]))

    def digests(self) -> "NDArray[np.object_]":
        """Return a digest of each outline: 12 hexadecimal digits. The order of vertices and parts has no effect.

        Vertices are rounded to 1e-7 degrees (1 cm). The CRS of the fields has an effect only on long edges, which are
        curves in other CRSs.
        """
        own = CRS(self.crs)
        shapes, _ = plain_lonlat(self.shapes, own)
        rounded = shapely.transform(shapes, lambda points: np.round(points, _DIGEST_DECIMALS) + 0.0)
        contents = shapely.to_wkb(shapely.normalize(rounded), byte_order=1)
        crs = np.where(is_bent(self.shapes, own), self.crs, "")
        return np.array(
            [hashlib.sha256(name.encode() + each).hexdigest()[:12] for name, each in zip(crs, contents, strict=True)],
            object,
        )

    def shapes_in(self, crs: CRS) -> "NDArray[np.object_]":
        """Transform the outlines, see `outline.in_crs`: points are added along edges that are long."""
        if crs == self.crs:
            return self.shapes
        own = CRS(self.crs)
        shapes, is_long = self.shapes.copy(), is_bent(self.shapes, own)
        if is_long.any():
            shapes[is_long] = with_points(shapes[is_long], own)
        return shapely.transform(shapes, _transform(own, crs))

    def whole_lonlat(self) -> "NDArray[np.object_]":
        """Return the outlines in EPSG:4326, each in one piece, as `AOI.whole_lonlat`: longitudes may exceed 180.

        They are not simplified, so an outline may differ by 1e-6 degrees.
        """
        lonlat, is_plain = plain_lonlat(self.shapes, CRS(self.crs))
        for position in np.flatnonzero(~is_plain).tolist():
            lonlat[position] = self.aoi(position).whole_lonlat.geom
        return lonlat


@dataclass(frozen=True)
class InvalidField:
    """A feature that cannot be an area of interest.

    Parameters
    ----------
    id
        Id that it would have.
    error
        The reason. Its subject names the file and the feature.
    """

    id: str
    error: AOIError


def plain_lonlat(shapes: "NDArray[np.object_]", crs: CRS) -> tuple["NDArray[np.object_]", "NDArray[np.bool_]"]:
    """Transform outlines to EPSG:4326 vertex by vertex.

    Returns
    -------
    ndarray of object
        Outlines in degrees.
    ndarray of bool
        Whether an outline equals `AOI.whole_lonlat`, unless that is simplified. False for an outline that is not on
        Earth, or crosses the antimeridian, or has edges that are curves in degrees because they are long.
    """
    is_plain = _is_on_globe(shapes) if crs.geographic else ~is_bent(shapes, crs, STRAIGHT_M)
    lonlat = shapes.copy()
    # shapely has longitude first also if the CRS has latitude first.
    if not crs.proj.equals(LONLAT.proj, ignore_axis_order=True):
        lonlat = shapely.transform(shapes, _transform(crs, LONLAT))
    return lonlat, is_plain & _is_on_globe(lonlat)


def _is_on_globe(shapes: "NDArray[np.object_]") -> "NDArray[np.bool_]":
    """Return whether shapes in degrees are in the usual range, and not wider than half the globe."""
    west, south, east, north = shapely.bounds(shapes).T
    found: NDArray[np.bool_] = (west >= -180) & (east <= 180) & (east - west <= 180) & (south >= -90) & (north <= 90)
    return found


def centres_of(lonlat: "NDArray[np.object_]") -> "NDArray[np.float64]":
    """Return the centroids of outlines in degrees as `Fields.centres_lonlat`. Longitudes may exceed 180 before."""
    centroids = shapely.centroid(lonlat)
    lon, lat = shapely.get_x(centroids), shapely.get_y(centroids)
    return np.column_stack([np.where(lon < 180, lon, lon - 360), lat])


def _transform(own: CRS, crs: CRS) -> "Callable[[NDArray[np.float64]], NDArray[np.float64]]":
    transform = own.transformer_to_crs(crs)
    return lambda points: np.column_stack(transform(*points.T))
