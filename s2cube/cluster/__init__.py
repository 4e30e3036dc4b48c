"""Compute functions: on the workers of a Dask cluster, or in threads. Only this wing imports distributed.

Other wings may use: `client`, `early`, `stream`, `threads`, `policy`, `own_process`, `this_process`.
"""
