"""Read the Items of existing images, many at a time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from s2cube.storage.image_item import Made
from s2cube.storage.output import Output

_THREADS = 16
"""An Item in a bucket takes the time of a request to read, and no CPU time."""


def read_items(output: Output, aoi_id: str, slice_ids: Iterable[str]) -> Iterator[Made | None]:
    """Yield the Items of slices of an AOI, in their order; None for each that is missing or cannot be read."""
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(partial(output.made, aoi_id), slice_ids)
