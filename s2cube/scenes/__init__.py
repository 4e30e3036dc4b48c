"""Plan from items: find the scenes of an area of interest, read what their items say, and group them into time slices.

Other wings may use: `assets`, `plan`, `provider`, `recipe`, `scene`, `search`, `time_slice`.
"""
