"""Write a cube as files: COG, QA image, picture, Item and catalogue. Check existing files.

Other wings may use: `catalog`, `comparison`, `files`, `open_output`, `renewal`, `verification`.
"""
