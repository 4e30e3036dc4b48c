"""Keep an output up to date: what is new, late, changed or withdrawn; on a schedule.

Other wings may use: `hook`, `schedule`, `service`.
"""
