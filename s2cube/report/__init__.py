"""Describe an output on one HTML page, which needs no network.

Other wings may use: `page`, `request`.
"""
