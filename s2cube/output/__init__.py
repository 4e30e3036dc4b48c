"""Write an image as files: COG, QA image, picture, styles and Item.

Other wings may use: `files`, `item_form`, `png`.
"""
