"""The order of a run, on a Dask cluster. Only this wing knows distributed.

Other wings may use: `job`, `pipeline`, `results`, `submit`, `verification`, `write_cogs`.
"""
