"""Write a cube of a notebook as COGs with their Items."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.config.literals import Compression
from s2cube.config.sections import OutputSection
from s2cube.config.times import TimeRange, timestamp
from s2cube.errors import ConfigError
from s2cube.storage.layout import slice_file
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.storage.progress import Progress

if TYPE_CHECKING:
    import xarray as xr

    from s2cube.area.aoi import AOI


def write_cogs(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    cube: "xr.DataArray",
    out: str | Path,
    *,
    name: str | None = None,
    aoi: "AOI | None" = None,
    datetime: str | None = None,
    compress: Compression = "deflate",
    compress_level: int | None = None,
) -> list[Path | str]:
    """Compute a cube, or what was computed from it, and write each image as a COG, a QA image, a picture and an Item.

    If the values of a cube of `open_cube` are unchanged, its images are those of a run: one per time, named
    ``<aoi>_<YYYYMMDD>``. A run with the same settings goes on from them. The cube may be a selection of times and
    bands.

    Any other array on a regular grid is written, too: an index, a median, a part of the grid, a file that xarray has
    read. Its images have a name: ``<aoi>_<YYYYMMDD>_<name>``, or ``<aoi>_<name>`` if the array has no time. The labels
    of other dimensions follow: ``<aoi>_<name>_month06`` of ``groupby("time.month")``.

    Images that exist already in the output are replaced.

    Parameters
    ----------
    cube
        From `open_cube`, or computed from it. Dims (time, band, y, x), in any order. time and band may be missing, and
        there may be others. The COGs have its dtype; bool becomes uint8. Nodata is NaN, or for integers the nodata of
        the cube, else -9999. Unsigned integers whose nodata is not known have none.
    out
        Output folder, or an address in an object store.
    name
        Name of images that were computed from a cube. Default: the name of the array (``ndvi.rename("ndvi")``), or its
        only band. Letters, digits, ``-`` and ``_``.
    aoi
        Area of interest of an array that has lost the attributes of `open_cube`.
    datetime
        Interval of the scenes that the array was computed from, UTC, if these are not all scenes of the cube: for
        example ``2022-06`` for ``cube.sel(time="2022-06").median("time")``. Forms as in `search`.
    compress
        Compression of COGs: ``deflate``, ``zstd``, ``lzw`` or ``none``.
    compress_level
        Compression level: up to 12 for deflate, up to 22 for zstd. None: 4 for deflate, 3 for zstd.

    Returns
    -------
    list of Path or str
        The COGs, in the order of time: paths, or addresses in an object store.

    Raises
    ------
    OutputError
        If the folder cannot be written. If the array has no regular grid with a CRS, no name, or no area.
    BusyError
        If a run writes there.
    WriteError
        If a disk is full, or a store refuses to write.
    ConfigError
        If a setting is not valid.

    Notes
    -----
    The Item of a computed image has no recipe, so a run never takes it for its own image. `s2cube:scenes` and the
    links `derived_from` lead to the scenes of the slice. If the array has no slices any more, for example after
    ``median("time")`` or ``resample``, they lead to all scenes of the cube, or to those within `datetime`. An image
    without a time has the interval of these scenes.

    The QA image of a computed image has the values of the coordinate `qa`, if the array still has it. Otherwise it
    says only which cells have a value and which are outside the area.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05")
    >>> cube = s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60)
    >>> [path.as_posix() for path in s2cube.write_cogs(cube, "out", compress="zstd")]
    ['out/farm/farm_20220520/farm_20220520.tif']
    >>> red, nir = cube.sel(band="red", drop=True), cube.sel(band="nir", drop=True)
    >>> ndvi = (nir - red) / (nir + red)
    >>> [path.name for path in s2cube.write_cogs(ndvi, "out", name="ndvi")]
    ['farm_20220520_ndvi.tif']
    >>> [path.name for path in s2cube.write_cogs(ndvi.max("time"), "out", name="highest-ndvi")]
    ['farm_highest-ndvi.tif']
    """
    chosen = OutputSection.of_arguments(locals())
    from s2cube.cube.derived import Given, images_of
    from s2cube.jobs._memory import MOST_READERS
    from s2cube.output.catalog import write_catalog
    from s2cube.output.files import write_files

    images = images_of(cube, Given(name, aoi, _interval(datetime)))
    with held(Output.at(out)) as lease:
        paths: list[Path | str] = []
        lease.progress = Progress(total=len(images), began=timestamp())
        for image, facts in images:
            with lease.output.destination.staging() as folder:
                write_files(image, facts, folder, chosen, MOST_READERS)
                path = lease.output.publish(facts.aoi, facts.slice, folder)
            file = slice_file(facts.aoi, facts.slice, ".tif")
            paths.append(Path(out) / file if lease.output.destination.local(file) else path)
            lease.progress = replace(lease.progress, written=len(paths))
        write_catalog(lease.output, {facts.aoi for _, facts in images})
    return paths


def _interval(text: str | None) -> TimeRange | None:
    try:
        return None if text is None else TimeRange.parse(text)
    except ValueError as error:
        raise ConfigError("datetime", str(error), "Correct the value") from None
