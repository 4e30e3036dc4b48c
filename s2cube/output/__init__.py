"""Write a cube as files: COG, QA image, picture, Item and catalogue; check the files that are there.

Other wings may use: `catalog`, `comparison`, `files`, `verification`.
"""
