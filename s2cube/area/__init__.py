"""Read areas of interest from files and from what Python has, and create their grids.

Other wings may use: `antimeridian`, `aoi`, `areas`, `features`, `gathering`, `grid`, `names`, `outline`,
`vector_file`.
"""
