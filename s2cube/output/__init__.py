"""Write an image or a composite as files: COGs, picture, styles and Item.

Other wings may use: `composite_files`, `files`, `item_form`, `png`.
"""
