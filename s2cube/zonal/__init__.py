"""Compute zonal statistics: plan the rows of fields, compute them on a cluster or in threads, and keep them as a table.

Other wings may use: `forecast_rows`, `statistics_of`, `tabulate`, `with_images`.
"""
