"""Turn the cells of scenes into the pixels of an image: pure functions of numpy arrays.

Other wings may use: `indices`, `mask`, `mosaic`, `offset_check`, `packing`.
"""
