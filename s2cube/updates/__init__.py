"""An output is kept up to date with its catalogue: a pass makes what is new, late, reprocessed or withdrawn.

Other wings may use: `pass_record`, `sync_pass`.
"""
