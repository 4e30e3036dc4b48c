"""Compare the location of a file in its item with the location in its header."""

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
"""Left, bottom, right, top. In degrees, right may be greater than 180."""

_FOOTPRINT_TOLERANCE_M = 100
"""Distance that a footprint may extend beyond its file. Of 1,621 items of four catalogues, none extends by a metre. But
some catalogues round to a thousandth of a degree, which is 111 m."""

_DEGREE_M = 111_320
"""Metres per degree along a meridian, or along the equator: 40,075 km / 360."""

_MAX_COORDINATE = 1e8
"""Coordinates that are as large as this, in metres or degrees, are not on Earth. They are ignored."""

_MAX_WIDTH_DEG = 90
"""A granule near the poles is about 10 degrees wide. Wider bounds, such as the whole globe, are ignored."""

_SAME_SIZE_RATIO = 1.25
"""Size ratio. If a granule moves by 50 km, its size in degrees changes by less than this, even near the poles."""

_ROUNDING = 1e-6
_POINTS_PER_SIDE = 22
_REMEDY = "Correct the item or the file"


@dataclass(frozen=True)
class Placement:
    """Location of a file as the item of its scene declares it. Missing or non-numeric members are not checked.

    Parameters
    ----------
    scene, asset
        Id of the item, and key of the asset.
    crs
        ``EPSG:N``. None if the item does not declare it.
    boxes
        Bounds in the CRS of the file, each with the name of the item's member that defines them.
    corner
        Upper left corner in the CRS of the file, if the item has a transform without a shape.
    pixel
        Longer side of a pixel, in units of the CRS. 0 if the item does not declare it.
    footprint_lonlat
        Bounds of the geometry, degrees. It is approximately the part of a file that has data.
    rounded_deg
        Rounding error of the coordinates of the geometry, degrees.
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

        The location in the file is considered correct. The file may be a decimated copy, or a part, of the file that
        the item describes. So one of the two bounds must be within the other. The tolerance is the larger pixel.

        Raises
        ------
        SceneError
            If the two locations differ by more than a pixel, or have different CRS.
        """
        self._check_crs(href, file.crs)
        pixel = max(self.pixel, file.pixel_m)
        bounds, (x, y) = _bounds(file.transform, file.height, file.width), file.transform @ (0, 0)
        pairs = [(member, bounds, box) for member, box in self.boxes]
        pairs += [("proj:transform", (x, y, x, y), (*self.corner, *self.corner))] if self.corner else []
        for member, of_file, of_item in pairs:
            if (apart := _excess(of_file, of_item)) > pixel * (1 + _ROUNDING):
                unit = "m" if file.crs.is_projected else "degrees"
                places = f"{_formatted(of_file)} in {file.crs}", _formatted(of_item)
                raise self._error(href, places, member, f"{apart:,.10g} {unit}")
        # A file that is a part of a granule may contain only a part of the footprint: compare with the largest bounds.
        whole = max([bounds, *(box for _, box in self.boxes)], key=_area)
        self._check_footprint(href, _bounds_lonlat(file.crs, whole), pixel if file.crs.is_projected else 0)

    def _check_footprint(self, href: str, file_lonlat: Bounds | None, pixel_m: float) -> None:
        if file_lonlat is None or self.footprint_lonlat is None:
            return
        footprint = _with_longitudes_near(self.footprint_lonlat, file_lonlat)
        of_file, of_item = (_in_metres(each, file_lonlat) for each in (file_lonlat, footprint))
        allowed_m = max(pixel_m, _FOOTPRINT_TOLERANCE_M) + self.rounded_deg * _DEGREE_M
        # If the file is a part of a granule, it may cross the edge of the footprint.
        sizes = zip(_size(of_item), _size(of_file), strict=True)
        is_part = any(larger > _SAME_SIZE_RATIO * size for larger, size in sizes)
        apart_m = _gap(of_file, of_item) if is_part else _excess(of_file, of_item)
        if apart_m > allowed_m:
            places = f"{_formatted(file_lonlat)} degrees", _formatted(footprint)
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
            problem = f"has the CRS {crs}, but its item declares {self.crs}"
            raise SceneError(href, problem, _REMEDY, self.asset, scene=self.scene)

    def _error(self, href: str, places: tuple[str, str], member: str, apart: str) -> SceneError:
        of_file, of_item = places
        declares = f"its item {self.scene}, asset {self.asset}, declares {of_item} ({member})"
        problem = f"is located at {of_file}, but {declares}: {apart} apart"
        return SceneError(href, problem, _REMEDY, self.asset, scene=self.scene)


def placement(item: pystac.Item, key: str) -> Placement:
    """Read the location of an asset's file from its item. Members of the asset override those of the item.

    Raises
    ------
    SceneError
        If the item declares two CRS.
    """
    fields = item.properties | item.assets[key].extra_fields
    transform = _affine(fields.get("proj:transform"))
    shape = _numbers(fields.get("proj:shape"), 2)
    boxes = {"proj:bbox": _box(fields.get("proj:bbox"))}
    if transform and shape and min(shape) > 0:
        boxes["proj:transform"] = _bounds(transform, *shape)
    without_shape = transform and "proj:transform" not in boxes and transform.a > 0 > transform.e
    footprint, rounded_deg = _footprint(item.geometry)
    return Placement(
        item.id, key, crs_code(item), tuple((member, box) for member, box in boxes.items() if box),
        corner=(transform.c, transform.f) if transform and without_shape else None,
        pixel=max(math.hypot(*transform[0:5:3]), math.hypot(*transform[1:5:3])) if transform else 0,
        footprint_lonlat=footprint, rounded_deg=rounded_deg,
    )  # fmt: skip


def corner(asset: pystac.Asset) -> tuple[float, float] | None:
    """Return the upper left corner of a file, (x, y) in its CRS. None if the item does not declare it."""
    transform: Sequence[float] = asset.extra_fields.get("proj:transform") or ()
    if len(transform) < 6 or not all(isinstance(each, int | float) and math.isfinite(each) for each in transform):
        return None
    across, _, left, _, down, top = transform[:6]
    return (left, top) if across > 0 > down else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return the first `count` numbers of a list. None if there are fewer, or if a value is not a valid coordinate."""
    if not isinstance(value, list | tuple) or len(value) < count:
        return None
    numbers = [each for each in value[:count] if isinstance(each, int | float) and not isinstance(each, bool)]
    valid = len(numbers) == count and all(abs(each) < _MAX_COORDINATE for each in numbers)
    return tuple(map(float, numbers)) if valid else None


def _affine(value: Any) -> Affine | None:
    """Read proj:transform. None if it is missing, has no area, or is the identity, which is not a location."""
    numbers = _numbers(value, 6)
    transform = Affine(*numbers) if numbers else Affine.identity()
    flipped = Affine.scale(1, -1)
    return None if transform.is_degenerate or transform in (Affine.identity(), flipped) else transform


def _box(value: Any) -> Bounds | None:
    """Read proj:bbox, of two or three dimensions. None if it is missing or has no area."""
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
    """Return the bounds of a geometry and its largest rounding error, degrees. None if the bounds are not valid."""
    try:
        points = list(_positions(geometry["coordinates"]))
    except (KeyError, TypeError, RecursionError):
        return None, 0
    if not points or max(abs(lat) for _, lat in points) > 90:
        return None, 0
    # Use the shorter direction: from 179.9 to -179.9 it crosses the antimeridian.
    first = points[0][0]
    lons = [first + (lon - first + 180) % 360 - 180 for lon, _ in points]
    lats = [lat for _, lat in points]
    bounds = (min(lons), min(lats), max(lons), max(lats))
    if not _area(bounds) or max(lons) - min(lons) > _MAX_WIDTH_DEG:
        return None, 0
    decimals = max(len(repr(each).partition(".")[2].rstrip("0")) for point in points for each in point)
    return bounds, 0.5 * 10.0**-decimals


def _positions(coordinates: Any) -> Iterator[tuple[float, ...]]:
    """Yield the points of a geometry, (longitude, latitude).

    Raises
    ------
    TypeError
        If a coordinate is not a number.
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
    """Convert bounds to degrees, with points along the sides. None if a point cannot be converted."""
    left, bottom, right, top = bounds
    along = np.linspace(0, 1, _POINTS_PER_SIDE)
    x = left + (right - left) * np.concatenate([along, along, 0 * along, 0 * along + 1])
    y = bottom + (top - bottom) * np.concatenate([0 * along, 0 * along + 1, along, along])
    lon, lat = map(np.array, rasterio.warp.transform(crs, epsg(4326), x, y))
    if not np.isfinite([lon, lat]).all():
        return None
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _with_longitudes_near(footprint: Bounds, reference: Bounds) -> Bounds:
    """Shift bounds by multiples of 360 degrees, so that they are next to the reference."""
    turn = 360 * round((reference[0] + reference[2] - footprint[0] - footprint[2]) / 720)
    return footprint[0] + turn, footprint[1], footprint[2] + turn, footprint[3]


def _in_metres(bounds: Bounds, place: Bounds) -> Bounds:
    """Convert degrees to metres, approximately. The scale is that of the centre of `place`."""
    across = _DEGREE_M * math.cos(math.radians((place[1] + place[3]) / 2))
    return bounds[0] * across, bounds[1] * _DEGREE_M, bounds[2] * across, bounds[3] * _DEGREE_M


def _excess(one: Bounds, other: Bounds) -> float:
    """Return the distance by which one extends beyond the other, along an axis. Use the smaller of both directions."""
    excesses = [min_ - of_one for min_, of_one in zip(other[:2], one[:2], strict=True)]
    excesses += [of_one - max_ for max_, of_one in zip(other[2:], one[2:], strict=True)]
    backwards = [-excess for excess in excesses]
    return max(0.0, min(max(excesses), max(backwards)))


def _gap(one: Bounds, other: Bounds) -> float:
    """Return the largest gap between two bounds along an axis, or 0 if they touch."""
    return max(0.0, *(max(one[at] - other[at + 2], other[at] - one[at + 2]) for at in (0, 1)))


def _size(bounds: Bounds) -> tuple[float, float]:
    return bounds[2] - bounds[0], bounds[3] - bounds[1]


def _area(bounds: Bounds) -> float:
    return math.prod(_size(bounds))


def _formatted(bounds: Bounds) -> str:
    return f"({', '.join(f'{each:.10g}' for each in bounds)})"
