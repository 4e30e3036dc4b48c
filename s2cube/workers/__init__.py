"""Compute batches of slices on a worker, from their scenes to their files.

Other wings may use: `batches`, `composite_task`, `delivery`, `memory`, `results`, `worker`.
"""
