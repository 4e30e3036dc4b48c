"""Many areas of interest as columns: read them, join them to scenes, and compute which share of each cell they cover.

Other wings may use: `coverage`, `fields`, `join`, `patches`, `reading`, `spool`.
"""
