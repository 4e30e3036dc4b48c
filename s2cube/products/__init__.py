"""Turn what was computed from a cube into images, pixels into statistics of fields, and images of a period into one.

Other wings may use: `composer`, `composite`, `coverage`, `day_stack`, `derived`, `field_statistics`.
"""
