"""A small simulated archive with known pixels.

Other wings may use: `archive`.
"""
