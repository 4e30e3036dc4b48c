"""Bytes become pixels, and pixels become cells of a grid.

Other wings may use: `cells`, `codec`, `placement`, `reader`, `resample`, `tiff`, `tiles`.
"""
