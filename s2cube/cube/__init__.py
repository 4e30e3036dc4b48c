"""Time slices become a lazy cube: stack, mask, mosaic, clip. Only this wing knows stackstac.

Other wings may use: `chunks`, `cut`, `facts`, `mask`, `mosaic`, `offset_check`, `open_cube`, `packing`, `reads`,
`stack`.
"""
