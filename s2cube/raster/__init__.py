"""Decode bytes to pixels, and resample pixels to cells of a grid.

Other wings may use: `assumed`, `cells`, `gdal_file`, `lattice`, `placement`, `reader`, `tiff`.
"""
