"""Build cubes and images from time slices: read, mask, combine, clip. Only this wing uses stackstac.

Other wings may use: `block`, `chunks`, `composite_facts`, `cut`, `facts`, `images`, `offset_check`, `open_cube`,
`reads`, `stack`, `tap`.
"""
