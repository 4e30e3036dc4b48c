"""Turn what was computed from a cube into images, and pixels into statistics of fields.

Other wings may use: `derived`, `statistics`.
"""
