"""Build cubes and images from time slices: read, mask, combine, clip. Only this wing uses stackstac.

Other wings may use: `block`, `chunks`, `cut`, `facts`, `images`, `open_cube`, `reads`, `stack`, `tap`.
"""
