"""Write an image as files: COG, QA image, picture, styles and Item.

Other wings may use: `composite_files`, `files`, `item_form`, `png`.
"""
