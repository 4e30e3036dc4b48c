"""Whole files in a folder or bucket, and the right to write there.

Other wings may use: `destination`, `failure`, `folder`, `image_item`, `lease`, `output`, `progress`, `record`.
"""
