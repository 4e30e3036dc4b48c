"""Items of a catalogue that a benchmark serves, for scripts that do not use s2cube."""

import json
import urllib.request
from urllib.parse import urljoin

import pystac

INVALID_CLASSES = [0, 1, 3, 8, 9, 10]
"""Classes of the scene classification that the default mask of s2cube removes."""


def read_items(catalogue: str) -> list[pystac.Item]:
    with urllib.request.urlopen(catalogue) as answer:
        items = [pystac.Item.from_dict(feature) for feature in json.load(answer)["features"]]
    for item in items:
        for asset in item.assets.values():
            asset.href = urljoin(catalogue, asset.href)
    return items
