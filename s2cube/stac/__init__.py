"""Read catalogues: turn a STAC API, a static catalogue or a file into STAC items, and check each member of an item.

Other wings may use: `api`, `api_search`, `catalogue_io`, `members`, `question`, `source`.
"""
