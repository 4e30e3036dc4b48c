"""Write a cube of a notebook as COGs with their Items."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.area.areas import read_aoi
from s2cube.config.literals import Compression
from s2cube.config.sections import OutputSection
from s2cube.config.times import TimeRange, parse_times, timestamp
from s2cube.errors import ConfigError
from s2cube.storage.layout import slice_file
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.storage.record import Progress

if TYPE_CHECKING:
    import xarray as xr

    from s2cube.area.areas import AreaLike


def write_cogs(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    cube: "xr.DataArray",
    out: str | Path,
    *,
    name: str | None = None,
    aoi: "AreaLike | None" = None,
    datetime: object = None,
    compress: Compression = "deflate",
    compress_level: int | None = None,
    progress: bool = True,
) -> list[Path | str]:
    """Compute a cube, or what was computed from it, and write each image as a COG, a QA image, a picture and an Item.

    If the values of a cube of `open_cube` are unchanged, its images are those of a run: one per time, named
    ``<aoi>_<YYYYMMDD>``. A run with the same settings goes on from them. The cube may be a selection of times and
    bands.

    Any other array on a regular grid is written, too: an index, a median, a part of the grid, a file that xarray has
    read. Its images have a name: ``<aoi>_<YYYYMMDD>_<name>``, or ``<aoi>_<name>`` if the array has no time. The labels
    of other dimensions follow: ``<aoi>_<name>_month06`` of ``groupby("time.month")``.

    Images that exist already in the output are replaced. If a Dask client is active, the workers of its cluster compute
    and write the images, as many at a time as they have memory for, and the pixels do not pass through this process.
    If a worker cannot reach the output, it sends the finished files. Without a client, threads of this process compute
    one image after the other. The files are the same.

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
        Area of interest of an array that has lost the attributes of `open_cube`: anything that `read_aoi` takes.
    datetime
        Interval of the scenes that the array was computed from, UTC, if these are not all scenes of the cube: for
        example ``2022-06`` for ``cube.sel(time="2022-06").median("time")``. Forms as in `search`.
    compress
        Compression of COGs: ``deflate``, ``zstd``, ``lzw`` or ``none``.
    compress_level
        Compression level: up to 12 for deflate, up to 22 for zstd. None: 4 for deflate, 3 for zstd.
    progress
        Whether a progress bar is shown, in a notebook or on stderr if it is a terminal.

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
    SliceError
        If a source file cannot be read. Slices that are complete remain.
    ClusterError
        If the cluster of the active client has no worker, loses the workers of a slice again and again, or has another
        version of s2cube.

    Notes
    -----
    The Item of a computed image has no recipe, so a run never takes it for its own image. `s2cube:scenes` and the
    links `derived_from` lead to the scenes of the slice, or of the period that begins at its time, as after
    ``resample``. If the array has no times any more, for example after ``median("time")``, they lead to all scenes of
    the cube, or to those within `datetime`. An image without a time has the interval of these scenes.

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
    from s2cube.inventory.catalog import catalog_at_end
    from s2cube.jobs._images import write_images
    from s2cube.products.derived import Given, images_of
    from s2cube.progress_bar import shown_bar

    area = None if aoi is None else read_aoi(aoi)
    images = images_of(cube, Given(name, area, _interval(datetime)))
    with held(Output.at(out)) as lease, shown_bar(progress) as bar:
        written: dict[str, Path | str] = {}
        lease.progress = Progress(total=len(images), began=timestamp())
        if bar:
            bar.begin(lease.progress)
        aois = {facts.slice: facts.aoi for _, facts in images}
        changed = set(aois.values()) if lease.follows_an_end else None
        with catalog_at_end(lease.output, changed):
            for result in write_images(images, lease.output, chosen):
                file = slice_file(aois[result.slice], result.slice, ".tif")
                is_local = lease.output.destination.local(file)
                written[result.slice] = Path(out) / file if is_local else str(result.path)
                lease.progress = replace(lease.progress, written=len(written))
                if bar:
                    bar.advance(result)
    return [written[facts.slice] for _, facts in images]


def _interval(value: object) -> TimeRange | None:
    try:
        return parse_times(value)
    except ValueError as error:
        raise ConfigError("datetime", str(error), "Correct the value") from None
