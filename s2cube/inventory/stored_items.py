"""Read the Items of images: from the table of all Items if it is there, else from their own files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from s2cube.inventory._items_table import read_items_table
from s2cube.storage.image_item import ImageItem, read_item
from s2cube.storage.output import Output, read_each


def stored_items(
    output: Output,
    keys: Sequence[tuple[str, str]],
    sizes: Mapping[str, int],
    read: Callable[[str, str], ImageItem | None],
    from_table: bool = True,
) -> Iterator[ImageItem | None]:
    """Return the Items of slices, in the order of their ids of AOI and slice.

    The table may be older than the images. So its rows count only for images that are listed with the sizes in the row.

    Parameters
    ----------
    sizes
        See `Output.sizes`.
    read
        Reads the Item of a slice that the table does not have.
    from_table
        Whether the table is read. In a folder on this machine, converting its rows takes twice the time of reading the
        files. It saves requests to a bucket.
    """
    rows = {(row.get("collection"), row.get("id")): row for row in (from_table and read_items_table(output)) or ()}

    def found(key: tuple[str, str]) -> ImageItem | None:
        if key in rows:
            with suppress(ValueError):
                item = read_item(rows[key], *key)
                if not item.flaw(sizes, ".tif"):
                    return item
        return read(*key)

    return read_each(found, keys)
