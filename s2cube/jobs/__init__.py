"""Run a job: plan it, compute its slices on a cluster, record their results.

Other wings may use: `job`, `pipeline`, `recorder`, `results`, `slice_policy`, `write_cogs`.
"""
