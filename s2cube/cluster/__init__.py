"""Compute functions on the workers of a Dask cluster. Only this wing imports distributed.

Other wings may use: `client`, `stream`.
"""
