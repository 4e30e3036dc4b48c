"""Read areas of interest from a vector file, and create their grids.

Other wings may use: `antimeridian`, `aoi`, `grid`, `names`, `outline`, `vector_file`.
"""
