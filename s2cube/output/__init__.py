"""A cube becomes files: COG, QA image, picture, Item and catalogue.

Other wings may use: `catalog`, `files`.
"""
