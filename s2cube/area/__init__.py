"""Read areas of interest from files and from what Python has, and create their grids.

Other wings may use: `antimeridian`, `aoi`, `areas`, `gathering`, `grid`, `names`, `outline`.
"""
