"""Read settings from a TOML file, the environment and flags into one validated JobConfig.

Other wings may use: `composites`, `literals`, `loading`, `paths`, `periods`, `sections`, `stores`, `sync`, `times`,
`wording`.
"""
