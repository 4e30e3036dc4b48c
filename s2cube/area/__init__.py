"""Polygons of a vector file become areas of interest with a grid.

Other wings may use: `antimeridian`, `aoi`, `grid`, `names`, `outline`, `vector_file`.
"""
