"""How pixels hold reflectance."""

import math
from dataclasses import dataclass
from typing import Any

UNIT = "1"
"""Unit of reflectance, which has no dimension, as UDUNITS writes it."""


@dataclass(frozen=True)
class Packing:
    """How pixels of one dtype hold reflectance.

    Parameters
    ----------
    scale
        Reflectance of a pixel whose value is 1.
    nodata
        Value of a pixel that has no reflectance.
    description
        The same in words.
    """

    scale: float
    nodata: float
    description: str

    def holes(self, values: Any) -> Any:
        """Find pixels without reflectance: a bool for each value of an array, or for a single one."""
        return values != values if math.isnan(self.nodata) else values == self.nodata


PACKINGS = {
    "int16": Packing(0.0001, -9999, "reflectance x 10000, nodata -9999"),
    "float32": Packing(1.0, math.nan, "reflectance, nodata NaN"),
}
"""By the name of the dtype. int16 is packed as in NASA's Harmonized Landsat Sentinel-2 (HLS User Guide)."""
