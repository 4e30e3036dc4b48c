"""Plan images: find the scenes of an area of interest, read their items, and group the scenes into time slices.

Other wings may use: `assets`, `plan`, `provider`, `recipe`, `scene`, `scene_facts`, `search`, `search_items`,
`time_slice`.
"""
