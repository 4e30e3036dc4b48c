"""Addresses become bytes: object stores, HTTP, tokens, retries, cache, budgets.

Other wings may use: `budget`, `cache`, `connections`, `http`, `object_store`, `paths`, `store`, `tokens`, `traffic`.
"""
