"""Read the Items of existing images in several threads."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.storage.image_item import ImageItem
from s2cube.storage.output import Output


def read_items(output: Output, aoi_id: str, slice_ids: Iterable[str]) -> Iterator[ImageItem | None]:
    """Yield the Items of slices of an AOI, in the order of the ids; None if an Item is missing or cannot be read."""
    with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
        yield from threads.map(partial(output.item, aoi_id), slice_ids)
