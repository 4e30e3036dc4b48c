"""Settings that have a fixed list of values."""

from typing import Literal

Dtype = Literal["int16", "float32"]
"""int16: reflectance × 10000, nodata -9999; float32: reflectance, nodata NaN."""

Quality = Literal["exact", "fast"]
"""exact: the mean of native pixels; fast: of pixels of the coarsest overview that are no larger than the grid's cells.
"""

Offset = Literal["auto", "none", "-1000"]
"""What is added to digital numbers: what the scene's metadata says, nothing, or -1000."""

MaskLayer = Literal["scl", "cloud", "snow", "qa60"]
"""Layers that masks are computed from: scene classification, two probabilities, cloud bits."""

GroupBy = Literal["solar_day", "scene"]
"""What becomes one time slice: all scenes of a solar day, or each scene."""

Compression = Literal["deflate", "zstd", "lzw", "none"]
"""Compression of COGs."""
