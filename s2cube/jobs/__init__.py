"""The order of a run: plan a job, compute its slices on a cluster, record their results.

Other wings may use: `job`, `pipeline`, `results`, `submit`, `write_cogs`.
"""
