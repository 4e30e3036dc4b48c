"""Read catalogues: a STAC API, a static catalogue or a file becomes STAC items whose members are checked one by one.

Other wings may use: `api`, `api_search`, `catalogue_io`, `members`, `question`, `source`.
"""
