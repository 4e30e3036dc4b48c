"""Build a lazy cube from time slices: stack, mask, mosaic, clip. Only this wing uses stackstac.

Other wings may use: `chunks`, `clip`, `cut`, `facts`, `mask`, `mosaic`, `offset_check`, `open_cube`, `packing`,
`reads`, `stack`.
"""
