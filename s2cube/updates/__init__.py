"""An output is kept up to date: what is new, late, changed or withdrawn in its catalogue; once, or on a schedule.

Other wings may use: `pass_record`, `schedule`, `service`, `sync`.
"""
