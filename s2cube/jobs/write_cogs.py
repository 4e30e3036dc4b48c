"""Write a cube of a notebook as COGs with their Items."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.config.literals import Compression
from s2cube.config.sections import OutputSection
from s2cube.config.times import timestamp
from s2cube.cube.packing import PACKINGS
from s2cube.errors import OutputError
from s2cube.storage.layout import slice_file
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.storage.progress import Progress

if TYPE_CHECKING:
    import xarray as xr


def write_cogs(
    cube: "xr.DataArray", out: str | Path, *, compress: Compression = "deflate", compress_level: int | None = None,
    progress: bool = True,
) -> list[Path | str]:  # fmt: skip
    """Compute a cube slice by slice and write each as a COG, a QA image, a picture and a STAC Item.

    Slices that exist already in the output are replaced. If a Dask client is active, the workers of its cluster compute
    and write the slices, as many at a time as they have memory for, and the pixels do not pass through this process.
    If a worker cannot reach the output, it sends the finished files. Without a client, threads of this process compute
    one slice after the other. The files are the same.

    Parameters
    ----------
    cube
        From `open_cube`, or a selection of it that keeps all dimensions, for example by lists of times or bands. The
        COGs have its dtype.
    out
        Output folder, or an address in an object store.
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
        If the folder cannot be written. Also if the cube was computed from that of `open_cube`, or read from a file.
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

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05")
    >>> cube = s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60)
    >>> [path.as_posix() for path in s2cube.write_cogs(cube, "out", compress="zstd")]
    ['out/farm/farm_20220520/farm_20220520.tif']
    """
    chosen = OutputSection.of_arguments(locals())
    lack = _lack(cube)
    if lack:
        raise OutputError("the cube", f"lacks {lack}", "Write a cube of open_cube, or use its .rio.to_raster")
    from s2cube.cube.facts import facts_of
    from s2cube.jobs._slices_on_client import write_images
    from s2cube.output.catalog import write_catalog
    from s2cube.progress_bar import shown_bar

    # These coordinates are also lazy if the cube was rechunked.
    cube = cube.assign_coords({name: cube[name].compute() for name in ("slice", "scenes", "provenance")})
    images = [cube.isel(time=position) for position in range(cube.sizes["time"])]
    facts = [facts_of(image) for image in images]
    with held(Output.at(out)) as lease, shown_bar(progress) as bar:
        written: dict[str, Path | str] = {}
        lease.progress = Progress(total=len(facts), began=timestamp())
        if bar:
            bar.begin(lease.progress)
        for result in write_images(cube, zip(images, facts, strict=True), lease.output, chosen):
            file = slice_file(cube.attrs["aoi"], result.slice, ".tif")
            is_local = lease.output.destination.local(file)
            written[result.slice] = Path(out) / file if is_local else str(result.path)
            lease.progress = replace(lease.progress, written=len(written))
            if bar:
                bar.advance(result)
        write_catalog(lease.output, {cube.attrs["aoi"]})
    return [written[each.slice] for each in facts]


def _lack(cube: "xr.DataArray") -> str:
    """Return what a cube lacks in comparison with a cube of `open_cube`; empty if it lacks nothing."""
    missing = {"time", "band", "slice", "scenes", "provenance", "qa"} - set(cube.coords)
    if missing or cube.dims != ("time", "band", "y", "x") or "grid" not in cube.attrs:
        return f"{', '.join(sorted(missing)) or 'attributes or dimensions'} of open_cube"
    if cube.attrs["grid"] != f"{cube.sizes['y']}x{cube.sizes['x']}":
        return "a part of its grid"
    if not cube.rio.transform(recalc=True).almost_equals(cube.rio.transform()):
        return "the order of rows and columns of open_cube"
    from s2cube.cube.facts import SOURCE

    packing = PACKINGS.get(cube.dtype.name)
    intact = packing and packing.holes(cube.encoding.get("_FillValue")) and cube.encoding.get("source") == SOURCE
    return "" if intact else "the encoding of open_cube, because it was computed from one or read from a file"
