"""Read polygons from a vector file as areas of interest, and lay their grids.

Other wings may use: `antimeridian`, `aoi`, `grid`, `names`, `outline`, `vector_file`.
"""
