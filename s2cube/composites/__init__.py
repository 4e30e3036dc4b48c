"""Compute composites of the images of periods, and write the catalogue.

Other wings may use: `compute_composites`, `forecast_composites`.
"""
