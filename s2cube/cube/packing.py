"""Encoding of reflectance in pixels."""

import math
from dataclasses import dataclass
from typing import Any

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
        Value of a pixel without reflectance.
    description
        Text that describes scale and nodata.
    """

    scale: float
    nodata: float
    description: str

    def holes(self, values: Any) -> Any:
        """Return whether values are nodata. `values` is an array or a number."""
        return values != values if math.isnan(self.nodata) else values == self.nodata


PACKINGS = {
    "int16": Packing(0.0001, -9999, "reflectance x 10000, nodata -9999"),
    "float32": Packing(1.0, math.nan, "reflectance, nodata NaN"),
}
"""Packings by dtype name. The encoding of int16 is that of NASA's Harmonized Landsat Sentinel-2 (HLS User Guide)."""
