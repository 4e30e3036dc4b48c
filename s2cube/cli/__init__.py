"""Commands: arguments, progress, messages and exit status. Only this wing imports cyclopts.

Other wings may use: `commands`.
"""
