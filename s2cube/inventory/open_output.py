"""Open what a run wrote: one lazy cube for each area of interest."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.config.literals import Dtype
from s2cube.config.sections import CubeSection, ReadSection
from s2cube.errors import ConfigError, OutputError
from s2cube.fetch.store import Access
from s2cube.inventory._stored_item import StoredItem
from s2cube.inventory.stored_items import stored_items
from s2cube.storage.output import Output

if TYPE_CHECKING:
    import xarray as xr


log = logging.getLogger(__name__)

_MOST_NAMED = 5
"""Maximum number of names in a message."""


def open_output(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    out: str | Path,
    *,
    aoi: str | None = None,
    name: str | None = None,
    bands: str | Sequence[str] | None = None,
    dtype: Dtype = "float32",
    timeout: float = 60,
    retries: int = 5,
    stores: Mapping[str, Mapping[str, str | bool]] | tuple[()] = (),
) -> "xr.DataArray | dict[str, xr.DataArray]":
    """Open the images of an output as one lazy cube for each area of interest.

    No pixel is read before a cube is computed. Only complete images are opened, so a run may be writing there.
    Composites are left out.

    Parameters
    ----------
    out
        Output folder, or an address in an object store: the `out` of `run` or `write_cogs`.
    aoi
        Id of an area of interest: open only its images. Default: all areas.
    name
        Open images that were computed from a cube, such as an index: those that `write_cogs` wrote under this name.
        Default: the images of runs and of unchanged cubes; if there are none, those of the only name.
    bands
        Names of bands of the images, in the order of the cube. Default: all bands.
    dtype
        ``float32``: reflectance, nodata NaN. ``int16``: the values in int16 images: reflectance × 10000, nodata -9999.
        Classes (bands ``scl`` and ``qa``) are not scaled.
    timeout
        Time limit of a request for a part of a file, seconds.
    retries
        Number of times that a failed request is repeated, if its error may be temporary.
    stores
        Settings of ``s3://`` stores by address prefix, see `open_cube`. Default: the AWS variables, with which a run
        writes.

    Returns
    -------
    xarray.DataArray, or dict of str to xarray.DataArray
        One cube if the output has one area of interest, or if `aoi` names one. Otherwise a cube for each id, sorted. A
        cube has the dimensions, coordinates, attributes and encoding of a cube of `open_cube`, so `write_cogs` takes
        it. The coordinate `qa` contains the values of the QA images: it is CLEAR only where all bands of the image are
        valid. One Dask task reads one image, or a part of 2048 × 2048 cells of a larger one.

    Raises
    ------
    OutputError
        If there is no image, area or band to open. If the images of an area differ in bands, grid, dtype or polygon:
        the error names them. If a file lacks or has another size than its Item says.
    ConfigError
        If a setting is not valid.
    WriteError
        If the output cannot be listed.
    AssetReadError
        When a cube is computed: if a file cannot be read, or has another size or checksum than its Item says. Checksums
        of files of more than 64 MB are not compared; `s2cube verify` compares all.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05/2022-06")
    >>> cube = s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60, dtype="int16")
    >>> paths = s2cube.write_cogs(cube, "out")
    >>> again = s2cube.open_output("out")
    >>> again.dims, again.shape, str(again.dtype)
    (('time', 'band', 'y', 'x'), (2, 2, 89, 154), 'float32')
    >>> s2cube.open_output("out", bands=["nir"], dtype="int16").equals(cube.sel(band=["nir"]))
    True
    """
    chosen = CubeSection.of({"dtype": dtype}).dtype
    reading = ReadSection.of({"timeout": timeout, "retries": retries, "stores": stores})
    access = Access(reading.timeout_s, reading.retries, reading.tokens, reading.stores)
    output = Output.at(out, reading.stores)
    wanted, address = _names(bands), output.destination.address
    sizes = output.sizes()
    keys = list(output.items(sizes))
    if aoi is not None and aoi not in (known := list(dict.fromkeys(aoi_id for aoi_id, _ in keys))):
        remedy = f"It has {_some(known)}" if known else "Correct the path, or run the job first"
        raise OutputError(address, f"has no images of the area '{aoi}'", remedy)
    keys = [key for key in keys if aoi in (None, key[0])]
    images = list(_images(output, keys, sizes))
    if not images:
        hint = ". Open composites with rioxarray.open_rasterio" if keys else ""
        raise OutputError(address, "has no images", f"Correct the path, or run the job first{hint}")
    from s2cube.inventory._stored_cube import stored_cube

    cubes = {
        aoi_id: stored_cube(output, _choose(f"{address}/{aoi_id}", list(of_aoi), name, wanted), wanted, chosen, access)
        for aoi_id, of_aoi in groupby(images, key=lambda each: each.aoi)
    }
    return next(iter(cubes.values())) if len(cubes) == 1 else cubes


def _names(bands: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of bands; none for all."""
    if bands is None:
        return ()
    names = tuple(str(name).strip() for name in (bands.split(",") if isinstance(bands, str) else bands))
    if not names or not all(names) or len({*names}) < len(names):
        raise ConfigError("bands", f"must be different names (given: {bands!r})", "Correct the value")
    return names


def _kind(item: StoredItem, wanted: tuple[str, ...]) -> str:
    """Describe what all images of a cube have in common."""
    facts, bands = item.facts, wanted if wanted and {*wanted} <= {*item.bands} else item.bands
    (rows, columns), (side, _, left, _, _, top) = facts.shape, facts.transform
    name = f"name {item.name}, " if item.name else ""
    return (
        f"{name}bands {','.join(bands)} as {item.dtype}, {rows} x {columns} cells of {side:g} m at {left:.12g}, "
        f"{top:.12g} in {facts.crs}, polygon {facts.ground[:8] or 'unknown'}"
    )


def _images(output: Output, keys: Sequence[tuple[str, str]], sizes: Mapping[str, int]) -> Iterator[StoredItem]:
    """Read the Items of images, not those of composites.

    If a newer image has the sizes in the table by chance, its checksum differs when it is read.
    """
    for item in filter(None, stored_items(output, keys, sizes, partial(output.whole_item, sizes=sizes))):
        if item.period:
            continue
        try:
            found = StoredItem.of(item)
        except ValueError as error:
            if item.name:  # such an image may have any grid and dtype
                log.warning("%s is left out: %s", item.slice, error)
                continue
            path, remedy = output.path(item.aoi, item.slice, ".json"), "Delete it, and run the job again"
            raise OutputError(path, f"cannot be opened ({error})", remedy) from None
        yield found


def _choose(subject: str, images: Sequence[StoredItem], name: str | None, wanted: tuple[str, ...]) -> list[StoredItem]:
    """Choose the images of the cube of an AOI.

    Raises
    ------
    OutputError
        If no image has the name or the bands, or if the images are of several kinds.
    """
    names = sorted({each.name for each in images} - {""})
    if name is None and len(names) == 1 and all(each.name for each in images):
        name = names[0]
    fitting = [each for each in images if each.name == (name or "")]
    if not fitting:
        problem = f"has no image with the name '{name}'" if name else "has only images that were computed from a cube"
        raise OutputError(subject, problem, f"Choose by name= from {_some(names)}" if names else "Leave out name")
    if not name and names:
        log.warning("%s: images were left out; to open them, choose a name by name=: %s", subject, _some(names))
    if not any({*wanted} <= {*each.bands} for each in fitting):
        known = dict.fromkeys(band for each in fitting for band in each.bands)
        raise OutputError(subject, f"has no image with the bands {','.join(wanted)}", f"Choose from {_some(known)}")
    kinds: dict[str, list[str]] = {}
    for each in fitting:
        kinds.setdefault(_kind(each, wanted), []).append(each.slice)
    if len(kinds) > 1:
        texts = "; ".join(f"{_some(ids)}: {kind}" for kind, ids in kinds.items())
        common = [band for band in fitting[0].bands if all(band in each.bands for each in fitting)]
        differ = len({each.bands for each in fitting}) > 1 and not wanted
        hint = f", or choose from the bands {','.join(common)} by bands=" if common and differ else ""
        remedy = f"Run the job again, which recomputes older images{hint}"
        raise OutputError(subject, f"has images that do not fit into one cube. {texts}", remedy)
    usual = fitting[0].facts.settings.items()
    if changed := {key for each in fitting for key, value in each.facts.settings.items() if (key, value) not in usual}:
        log.warning("%s: its images were made with different settings: %s", subject, ", ".join(sorted(changed)))
    return sorted(fitting, key=lambda each: (each.time, each.slice))


def _some(names: Collection[str]) -> str:
    """List a few names, and the number of the others."""
    more = len(names) - _MOST_NAMED
    return ", ".join(list(names)[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
