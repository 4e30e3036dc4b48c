"""Settings: a TOML file, the environment and flags become one validated JobConfig.

Other wings may use: `literals`, `loading`, `sections`, `stores`, `times`.
"""
