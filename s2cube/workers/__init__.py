"""Compute batches of slices on a worker, from their scenes to their files.

Other wings may use: `batches`, `delivery`, `memory`, `results`, `worker`.
"""
