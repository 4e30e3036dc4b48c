"""Know what lies in an output: catalogue, table of Items, timelines; compare, verify, renew and open the images.

Other wings may use: `catalog`, `comparison`, `open_output`, `renewal`, `stored_image`, `stored_items`, `verification`.
"""
