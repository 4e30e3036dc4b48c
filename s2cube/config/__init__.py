"""Read settings from a TOML file, the environment and flags into one validated JobConfig.

Other wings may use: `literals`, `loading`, `paths`, `sections`, `stores`, `times`, `wording`.
"""
