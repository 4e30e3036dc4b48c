"""Catalogues become STAC items that were checked member by member.

Other wings may use: `api`, `catalogue_io`, `members`, `source`.
"""
