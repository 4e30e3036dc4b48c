"""Items become scenes: providers, offsets, assets, and the plan of time slices.

Other wings may use: `assets`, `plan`, `provider`, `recipe`, `scene`, `search`, `time_slice`.
"""
