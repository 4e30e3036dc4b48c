"""Write complete files to a folder or bucket, by only one run at a time.

Other wings may use: `destination`, `failures`, `folder`, `image_item`, `json_text`, `layout`, `lease`, `output`,
`record`.
"""
