"""Bytes become pixels, and pixels become cells of a grid.

Other wings may use: `assumed`, `cells`, `lattice`, `placement`, `reader`, `tiff`.
"""
