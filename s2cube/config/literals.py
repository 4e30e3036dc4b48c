"""Types of settings with a fixed list of values."""

from typing import Literal

Dtype = Literal["int16", "float32"]
"""int16: reflectance × 10000, nodata -9999; float32: reflectance, nodata NaN."""

Quality = Literal["exact", "fast"]
"""exact: mean of native pixels; fast: mean of pixels of the coarsest overview whose pixels are not larger than cells.
"""

Offset = Literal["auto", "none", "-1000"]
"""Offset that is added to digital numbers: the offset from the metadata of the scene, 0, or -1000."""

MaskLayer = Literal["scl", "cloud", "snow", "qa60"]
"""Layers from which masks are computed: scene classification, cloud and snow probability, cloud bits."""

GroupBy = Literal["solar_day", "scene"]
"""The scenes of a time slice: all scenes of a solar day, or one scene."""

Compression = Literal["deflate", "zstd", "lzw", "none"]
"""Compression of COGs."""

JoinEngine = Literal["shapely", "sedona"]
"""Libraries that join areas to footprints of scenes."""

TableFormat = Literal["parquet", "csv"]
"""Formats of the table of statistics."""

CompositeMethod = Literal["median", "mean", "geomedian", "medoid", "best", "first"]
"""median, mean: of each band; geomedian: of all bands together; medoid: the observation nearest to the geomedian; best:
the observation with the greatest score; first: the earliest observation."""

Product = Literal["images", "statistics", "composites"]
"""What `sync` keeps up to date: images of slices, the table of statistics, composites of periods."""
