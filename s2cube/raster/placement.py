"""Compare where items say that their files lie with where the files say that they lie."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pystac
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from s2cube.errors import SceneError
from s2cube.raster._geotiff import epsg
from s2cube.raster.lattice import Lattice
from s2cube.scenes.scene import crs_code

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top; in degrees, right may be more than 180."""

_ROUGH_M = 100
"""How far a footprint may reach beyond its file. Of 1,621 items of four catalogues none does so by a metre. But some
catalogues round to a thousandth of a degree, which is 111 m."""

_DEGREE_M = 111_320
"""Metres per degree along a meridian, or along the equator: 40,075 km / 360."""

_BEYOND = 1e8
"""No coordinate on Earth is so large, in metres or degrees: such numbers are ignored."""

_WIDEST_DEG = 90
"""A granule near the poles is about 10 degrees wide. Wider bounds, such as the whole globe, are ignored."""

_SAME_SIZE = 1.25
"""The size in degrees of a granule, and of the same granule 50 km away, differs by less, even near the poles."""

_ROUNDING = 1e-6
_POINTS_A_SIDE = 22
_REMEDY = "Correct the item or the file"


@dataclass(frozen=True)
class Placement:
    """Where the item of a scene says that a file lies. What the item does not say, or not in numbers, is not checked.

    Parameters
    ----------
    scene, asset
        Id of the item, key of the asset.
    crs
        ``EPSG:N``; None if the item gives none.
    boxes
        Outlines in the CRS of the file, each with the name of the member that gives it.
    corner
        The upper left corner in the CRS of the file, if the item gives no outline with it.
    pixel
        Longer side of a pixel, in units of the CRS; 0 if the item does not give it.
    footprint_lonlat
        Bounds of the geometry, degrees. It covers the part of a file that has data, approximately.
    rounded_deg
        By how much its coordinates are rounded, degrees.
    """

    scene: str
    asset: str
    crs: str | None = None
    boxes: tuple[tuple[str, Bounds], ...] = ()
    corner: tuple[float, float] | None = None
    pixel: float = 0
    footprint_lonlat: Bounds | None = None
    rounded_deg: float = 0

    def check(self, href: str, file: Lattice) -> None:
        """Compare the item with the file.

        The file is trusted. It may differ from the item's file: it may be decimated, or a part. So one of the two must
        lie within the other, with a tolerance of one pixel, the larger of the two.

        Raises
        ------
        SceneError
            If they place the same ground more than a pixel apart, or in two different CRS.
        """
        self._check_crs(href, file.crs)
        pixel = max(self.pixel, file.pixel_m)
        bounds, (x, y) = _bounds(file.transform, file.height, file.width), file.transform @ (0, 0)
        pairs = [(member, bounds, box) for member, box in self.boxes]
        pairs += [("proj:transform", (x, y, x, y), (*self.corner, *self.corner))] if self.corner else []
        for member, of_file, of_item in pairs:
            if (apart := _apart(of_file, of_item)) > pixel * (1 + _ROUNDING):
                unit = "m" if file.crs.is_projected else "degrees"
                places = f"{_words(of_file)} in {file.crs}", _words(of_item)
                raise self._error(href, places, member, f"{apart:,.10g} {unit}")
        # The data area of a granule may lie outside a part of its file, if it lies inside the whole file.
        whole = max([bounds, *(box for _, box in self.boxes)], key=_area)
        self._check_footprint(href, _bounds_lonlat(file.crs, whole), pixel if file.crs.is_projected else 0)

    def _check_footprint(self, href: str, file_lonlat: Bounds | None, pixel_m: float) -> None:
        if file_lonlat is None or self.footprint_lonlat is None:
            return
        footprint = _turned(self.footprint_lonlat, file_lonlat)
        of_file, of_item = (_in_metres(each, file_lonlat) for each in (file_lonlat, footprint))
        allowed_m = max(pixel_m, _ROUGH_M) + self.rounded_deg * _DEGREE_M
        # A part of a file may cross the edge of the data area of the whole.
        is_part = any(seen > _SAME_SIZE * size for seen, size in zip(_size(of_item), _size(of_file), strict=True))
        apart_m = _gap(of_file, of_item) if is_part else _apart(of_file, of_item)
        if apart_m > allowed_m:
            places = f"{_words(file_lonlat)} degrees", _words(footprint)
            raise self._error(href, places, "geometry", f"{apart_m:,.0f} m")

    def _check_crs(self, href: str, crs: CRS) -> None:
        try:
            declared = CRS.from_user_input(self.crs) if self.crs else crs
        except (CRSError, ValueError):
            problem = f"declares {self.crs}, which is not a CRS"
            raise SceneError(
                self.scene, problem, "Report it to the operator of the catalogue", self.asset, scene=self.scene
            ) from None
        if crs != declared:
            problem = f"lies in {crs}, but its item says {self.crs}"
            raise SceneError(href, problem, _REMEDY, self.asset, scene=self.scene)

    def _error(self, href: str, places: tuple[str, str], member: str, apart: str) -> SceneError:
        of_file, of_item = places
        says = f"its item {self.scene}, asset {self.asset}, says {of_item} ({member})"
        problem = f"lies at {of_file}, but {says}: {apart} apart"
        return SceneError(href, problem, _REMEDY, self.asset, scene=self.scene)


def placement(item: pystac.Item, key: str) -> Placement:
    """Read where an item says that the file of an asset lies. The asset's members come before the item's.

    Raises
    ------
    SceneError
        If it declares two CRS.
    """
    fields = item.properties | item.assets[key].extra_fields
    transform = _affine(fields.get("proj:transform"))
    shape = _numbers(fields.get("proj:shape"), 2)
    boxes = {"proj:bbox": _box(fields.get("proj:bbox"))}
    if transform and shape and min(shape) > 0:
        boxes["proj:transform"] = _bounds(transform, *shape)
    alone = transform and "proj:transform" not in boxes and transform.a > 0 > transform.e
    footprint, rounded_deg = _footprint(item.geometry)
    return Placement(
        item.id, key, crs_code(item), tuple((member, box) for member, box in boxes.items() if box),
        corner=(transform.c, transform.f) if transform and alone else None,
        pixel=max(math.hypot(*transform[0:5:3]), math.hypot(*transform[1:5:3])) if transform else 0,
        footprint_lonlat=footprint, rounded_deg=rounded_deg,
    )  # fmt: skip


def corner(asset: pystac.Asset) -> tuple[float, float] | None:
    """Give the upper left corner of a file, (x, y) in its CRS, if its item says it."""
    transform: Sequence[float] = asset.extra_fields.get("proj:transform") or ()
    if len(transform) < 6 or not all(isinstance(each, int | float) and math.isfinite(each) for each in transform):
        return None
    across, _, left, _, down, top = transform[:6]
    return (left, top) if across > 0 > down else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Give the first numbers of a list; None if there are fewer, or other values, or numbers too large or NaN."""
    if not isinstance(value, list | tuple) or len(value) < count:
        return None
    numbers = [each for each in value[:count] if isinstance(each, int | float) and not isinstance(each, bool)]
    return (
        tuple(map(float, numbers)) if len(numbers) == count and all(abs(each) < _BEYOND for each in numbers) else None
    )


def _affine(value: Any) -> Affine | None:
    """Read proj:transform; None also if it has no area, or if it is the identity, which says nothing."""
    numbers = _numbers(value, 6)
    transform = Affine(*numbers) if numbers else Affine.identity()
    flipped = Affine.scale(1, -1)
    return None if transform.is_degenerate or transform in (Affine.identity(), flipped) else transform


def _box(value: Any) -> Bounds | None:
    """Read proj:bbox, of two or three dimensions; None if it has no area."""
    numbers = _numbers(value, 6 if isinstance(value, list | tuple) and len(value) == 6 else 4)
    if numbers is None:
        return None
    half = len(numbers) // 2
    left, bottom, right, top = *numbers[:2], *numbers[half : half + 2]
    return (left, bottom, right, top) if left < right and bottom < top else None


def _bounds(transform: Affine, height: float, width: float) -> Bounds:
    x, y = zip(*(transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True)
    return min(x), min(y), max(x), max(y)


def _footprint(geometry: Any) -> tuple[Bounds | None, float]:
    """Give the bounds of a geometry, and its largest rounding error, degrees; None if it is not on the globe."""
    try:
        points = list(_positions(geometry["coordinates"]))
    except (KeyError, TypeError, RecursionError):
        return None, 0
    if not points or max(abs(lat) for _, lat in points) > 90:
        return None, 0
    # Take the shorter way: from 179.9 to -179.9 it crosses the antimeridian.
    first = points[0][0]
    lons = [first + (lon - first + 180) % 360 - 180 for lon, _ in points]
    lats = [lat for _, lat in points]
    bounds = (min(lons), min(lats), max(lons), max(lats))
    if not _area(bounds) or max(lons) - min(lons) > _WIDEST_DEG:
        return None, 0
    decimals = max(len(repr(each).partition(".")[2].rstrip("0")) for point in points for each in point)
    return bounds, 0.5 * 10.0**-decimals


def _positions(coordinates: Any) -> Iterator[tuple[float, ...]]:
    """Yield the points of a geometry, (longitude, latitude).

    Raises
    ------
    TypeError
        If something in it is not a number.
    """
    if coordinates and not isinstance(coordinates[0], list | tuple):
        point = _numbers(coordinates, 2)
        if point is None:
            raise TypeError("not a position")
        yield point
        return
    for each in coordinates:
        yield from _positions(each)


@lru_cache(maxsize=256)
def _bounds_lonlat(crs: CRS, bounds: Bounds) -> Bounds | None:
    """Give bounds in degrees, following the sides; None if these are not on the globe."""
    left, bottom, right, top = bounds
    along = np.linspace(0, 1, _POINTS_A_SIDE)
    x = left + (right - left) * np.concatenate([along, along, 0 * along, 0 * along + 1])
    y = bottom + (top - bottom) * np.concatenate([0 * along, 0 * along + 1, along, along])
    lon, lat = map(np.array, rasterio.warp.transform(crs, epsg(4326), x, y))
    if not np.isfinite([lon, lat]).all():
        return None
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _turned(footprint: Bounds, like: Bounds) -> Bounds:
    """Shift bounds by full turns, so that their longitudes match those of others."""
    turn = 360 * round((like[0] + like[2] - footprint[0] - footprint[2]) / 720)
    return footprint[0] + turn, footprint[1], footprint[2] + turn, footprint[3]


def _in_metres(bounds: Bounds, place: Bounds) -> Bounds:
    """Scale degrees to metres, approximately, by the scale at a place."""
    across = _DEGREE_M * math.cos(math.radians((place[1] + place[3]) / 2))
    return bounds[0] * across, bounds[1] * _DEGREE_M, bounds[2] * across, bounds[3] * _DEGREE_M


def _apart(one: Bounds, other: Bounds) -> float:
    """Give how far bounds reach beyond others on an axis, at most; of the two, the smaller distance."""
    reaches = [min_ - of_one for min_, of_one in zip(other[:2], one[:2], strict=True)]
    reaches += [of_one - max_ for max_, of_one in zip(other[2:], one[2:], strict=True)]
    backwards = [-reach for reach in reaches]
    return max(0.0, min(max(reaches), max(backwards)))


def _gap(one: Bounds, other: Bounds) -> float:
    """Give the largest gap between bounds on an axis; 0 if they meet."""
    return max(0.0, *(max(one[at] - other[at + 2], other[at] - one[at + 2]) for at in (0, 1)))


def _size(bounds: Bounds) -> tuple[float, float]:
    return bounds[2] - bounds[0], bounds[3] - bounds[1]


def _area(bounds: Bounds) -> float:
    return math.prod(_size(bounds))


def _words(bounds: Bounds) -> str:
    return f"({', '.join(f'{each:.10g}' for each in bounds)})"
