"""The simulated ground, clouds and overflights. Pixels are computed by formulas.

The ground has centre-pivot fields, dry corners and a river. The overflights are in summer. Every digital number is
`surface_reflectance` at the centre of its pixel, or `CLOUD_REFLECTANCE` in a cloud. It contains the offset if the
scene's item says so.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, polygon

from s2cube.sentinel2 import BOA_ADD_OFFSET_DN, SCALE

EPSG = 32614
BAND_RESOLUTION_M = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20}
SCL_RESOLUTION_M = 20
CLOUD_REFLECTANCE = 0.65

_GRANULE_M = 6000
_TOP_M = 4553580
_GRANULE_LEFT_M = {"14TNL": 562020, "14TPL": 567420}
"""Left edges. They are multiples of 60 m, like those of real granules. The two granules overlap by 600 m."""

_AOI_SHELL: list[tuple[float, float]] = [
    (563400, 4548300),
    (571900, 4547900),
    (572600, 4551200),
    (570100, 4553200),
    (564000, 4552700),
]
_AOI_HOLE: list[tuple[float, float]] = [(566000, 4550000), (567000, 4549700), (567300, 4550900), (566200, 4551000)]

_PARCEL_M = 810
_PIVOT_RADIUS_M = 390
_RIVER_HALF_WIDTH_M = 90

_SOIL = {"blue": 0.09, "green": 0.12, "red": 0.16, "nir": 0.24, "swir16": 0.30}
_CROP = {"blue": 0.025, "green": 0.07, "red": 0.03, "nir": 0.48, "swir16": 0.17}
_WATER = {"blue": 0.06, "green": 0.06, "red": 0.04, "nir": 0.02, "swir16": 0.01}

_Metres = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """A round cloud. Its shadow is south-east of it.

    Parameters
    ----------
    x_m, y_m
        Centre, metres in EPSG:32614.
    """

    x_m: float
    y_m: float
    radius_m: float


@dataclass(frozen=True)
class Pass:
    """One overflight.

    Parameters
    ----------
    offset_applied
        Value of `earthsearch:boa_offset_applied` in the item.
    edge_m
        Easting of the swath's edge at the top of the granules, metres. The edge is oblique, with no data east of it.
    """

    time: datetime
    baseline: str
    offset_applied: bool
    tiles: tuple[str, ...] = tuple(_GRANULE_LEFT_M)
    clouds: tuple[Cloud, ...] = ()
    edge_m: float = np.inf

    @property
    def offset_dn(self) -> int:
        """Offset that the digital numbers still contain."""
        return -BOA_ADD_OFFSET_DN if self.baseline >= "04.00" and not self.offset_applied else 0


def _at(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T17:19:31").replace(tzinfo=UTC)


PASSES = (
    Pass(_at("2021-07-24"), "03.01", offset_applied=False),
    Pass(_at("2022-05-20"), "04.00", offset_applied=False),
    Pass(
        _at("2022-06-14"),
        "04.00",
        offset_applied=True,
        clouds=(Cloud(565200, 4551600, 520), Cloud(569800, 4549300, 700)),
    ),
    Pass(_at("2022-07-09"), "05.10", offset_applied=False, edge_m=570500),
    Pass(_at("2022-08-03"), "05.10", offset_applied=True, tiles=("14TNL",), clouds=(Cloud(566800, 4549000, 430),)),
    Pass(_at("2022-09-12"), "05.10", offset_applied=False, clouds=(Cloud(567700, 4550800, 900),)),
)


def surface_reflectance(band: str, x_m: _Metres, y_m: _Metres, time: datetime) -> _Metres:
    """Return the reflectance of the simulated ground.

    Parameters
    ----------
    x_m, y_m
        Metres in EPSG:32614; arrays that broadcast.
    """
    crop = _crop_share(x_m, y_m, time)
    ground = _SOIL[band] * (1 - crop) + _CROP[band] * crop + 0.02 * (x_m - 562020) / 12000
    return np.where(_is_river(x_m, y_m), _WATER[band], ground)


def digital_numbers(band: str, geobox: GeoBox, overflight: Pass) -> NDArray[np.uint16]:
    """Return the pixels of a band's file. 0 is nodata."""
    x_m, y_m = _centres(geobox)
    reflectance = surface_reflectance(band, x_m, y_m, overflight.time)
    reflectance = np.where(_is_below(overflight.clouds, x_m, y_m, 0, 0), CLOUD_REFLECTANCE, reflectance)
    dn = np.round(reflectance / SCALE) + overflight.offset_dn
    return np.where(_is_outside_swath(overflight, x_m, y_m), 0, dn).astype("uint16")


def scene_classes(geobox: GeoBox, overflight: Pass) -> NDArray[np.uint8]:
    """Return the pixels of the scene classification."""
    x_m, y_m = _centres(geobox)
    classes = np.where(_crop_share(x_m, y_m, overflight.time) > 0.4, 4, 5)
    classes = np.where(_is_river(x_m, y_m), 6, classes)
    classes = np.where(_is_below(overflight.clouds, x_m, y_m, 500, -400), 3, classes)
    # Sen2Cor marks clouds wider than they are. Its class of medium probability includes all bright pixels.
    classes = np.where(_is_below(overflight.clouds, x_m, y_m, 0, 0, wider_m=60), 8, classes)
    classes = np.where(_is_below(overflight.clouds, x_m, y_m, 0, 0, wider_m=-100), 9, classes)
    return np.where(_is_outside_swath(overflight, x_m, y_m), 0, classes).astype("uint8")


def granule_geobox(tile: str, resolution_m: float) -> GeoBox:
    """Return the grid of a granule's files."""
    left = _GRANULE_LEFT_M[tile]
    bounds = (left, _TOP_M - _GRANULE_M, left + _GRANULE_M, _TOP_M)
    return GeoBox.from_bbox(bounds, f"EPSG:{EPSG}", resolution=resolution_m)


def farm() -> Geometry:
    """Return the area of interest in EPSG:32614. It has a hole, and both granules contain a part of it."""
    return polygon(_AOI_SHELL + _AOI_SHELL[:1], f"EPSG:{EPSG}", _AOI_HOLE + _AOI_HOLE[:1])


def _centres(geobox: GeoBox) -> tuple[_Metres, _Metres]:
    rows, columns = geobox.shape
    edges = geobox.boundingbox
    x_m = edges.left + (np.arange(columns) + 0.5) * geobox.resolution.x
    y_m = edges.top + (np.arange(rows) + 0.5) * geobox.resolution.y
    return x_m[np.newaxis, :], y_m[:, np.newaxis]


def _crop_share(x_m: _Metres, y_m: _Metres, time: datetime) -> _Metres:
    column, row = np.floor(x_m / _PARCEL_M), np.floor(y_m / _PARCEL_M)
    from_pivot_m = np.hypot(x_m - (column + 0.5) * _PARCEL_M, y_m - (row + 0.5) * _PARCEL_M)
    ripe_day = 205 + 12 * ((3 * column + 7 * row) % 5 - 2)
    day = time.timetuple().tm_yday
    crop = 0.1 + 0.85 * np.exp(-(((day - ripe_day) / 38) ** 2))
    return np.where(from_pivot_m < _PIVOT_RADIUS_M, crop, 0.22)


def _is_river(x_m: _Metres, y_m: _Metres) -> NDArray[np.bool_]:
    course_m = 4551500 + 420 * np.sin(x_m / 1300) + 0.08 * (x_m - 567000)
    return np.asarray(np.abs(y_m - course_m) < _RIVER_HALF_WIDTH_M)


def _is_below(
    clouds: tuple[Cloud, ...], x_m: _Metres, y_m: _Metres, east_m: float, north_m: float, wider_m: float = 0
) -> NDArray[np.bool_]:
    below = np.zeros(np.broadcast_shapes(x_m.shape, y_m.shape), dtype=bool)
    for cloud in clouds:
        distance_m = np.hypot(x_m - cloud.x_m - east_m, y_m - cloud.y_m - north_m)
        below |= distance_m < cloud.radius_m + wider_m
    return below


def _is_outside_swath(overflight: Pass, x_m: _Metres, y_m: _Metres) -> NDArray[np.bool_]:
    return np.asarray(x_m + 0.2 * (_TOP_M - y_m) > overflight.edge_m)
