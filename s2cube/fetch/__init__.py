"""Read bytes at an address: object stores, HTTP, tokens, retries, cache, limits.

Other wings may use: `addresses`, `cache`, `connections`, `http`, `object_store`, `retry`, `session`, `store`, `tokens`,
`traffic`.
"""
