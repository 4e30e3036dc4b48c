"""Many areas of interest as columns: read them, join them to scenes, divide them into work.

Other wings may use: `division`, `fields`, `join`, `patches`, `reading`, `spool`.
"""
