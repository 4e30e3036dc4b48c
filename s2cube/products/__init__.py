"""Turn what was computed from a cube into images.

Other wings may use: `derived`.
"""
