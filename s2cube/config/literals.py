"""Literals that are settings: data type, quality, offset."""

from typing import Literal

Dtype = Literal["int16", "float32"]
"""int16: reflectance × 10000, nodata -9999; float32: reflectance, nodata NaN."""


Quality = Literal["exact", "fast"]
"""exact: the mean of native pixels; fast: of the coarsest overview's that are no larger than the grid's cells."""


Offset = Literal["auto", "none", "-1000"]
"""What is added to digital numbers: as the scene says, nothing, or -1000."""
