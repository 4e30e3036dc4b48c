"""Write complete files to a folder or bucket, and let one run at a time do so.

Other wings may use: `destination`, `failures`, `folder`, `image_item`, `json_text`, `layout`, `lease`, `output`,
`progress`, `record`.
"""
