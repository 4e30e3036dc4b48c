"""Encoding of reflectance, and of what is computed from it, in pixels."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

UNIT = "1"
"""UDUNITS symbol of the unit of reflectance, which is dimensionless."""


@dataclass(frozen=True)
class Packing:
    """Encoding of reflectance in pixels of one dtype.

    Parameters
    ----------
    scale
        Reflectance of a pixel with the value 1.
    nodata
        Value of a pixel without a value. NaN for integers means that every pixel has a value.
    description
        Text that describes scale and nodata.
    unit
        UDUNITS symbol. None if the unit is not known, because the values were computed by the user.
    """

    scale: float
    nodata: float
    description: str
    unit: str | None = UNIT

    def holes(self, values: Any) -> Any:
        """Return whether values are nodata. `values` is an array or a number."""
        return values != values if math.isnan(self.nodata) else values == self.nodata


PACKINGS = {
    "int16": Packing(0.0001, -9999, "reflectance x 10000, nodata -9999"),
    "float32": Packing(1.0, math.nan, "reflectance, nodata NaN"),
}
"""Packings of reflectance by dtype name.

The encoding of int16 is that of NASA's Harmonized Landsat Sentinel-2 (HLS User Guide).
"""

_KEY = "packing"


def set_packing(image: "xr.DataArray", packing: Packing) -> None:
    """State the packing of an image that was computed from a cube."""
    image.encoding[_KEY] = packing


def packing_of(image: "xr.DataArray") -> Packing:
    """Return the packing of an image: what `set_packing` states, else that of reflectance."""
    stated: Packing | None = image.encoding.get(_KEY)
    return stated or PACKINGS[image.dtype.name]
