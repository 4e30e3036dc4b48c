"""Commands: arguments, progress, messages and exit status. Only this wing knows cyclopts.

Other wings may use: `commands`.
"""
