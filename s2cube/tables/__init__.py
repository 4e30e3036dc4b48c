"""Keep the statistics of fields as one table, and the fields beside it.

Other wings may use: `areas_file`, `csv_file`, `rows`, `table`, `verification`, `writer`.
"""
