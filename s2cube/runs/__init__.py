"""Run jobs with all their products: in this process, in the background, or on a cluster.

Other wings may use: `detached`, `run`, `submit`.
"""
