"""Scenes become images, images become files."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pystac

from s2cube.config import CubeSection, OpenSettings, OutputSection, OutputSettings, ReadSection, ReadSettings
from s2cube.errors import OutputError, SearchError
from s2cube.folder import Folder
from s2cube.lease import held
from s2cube.model import AOI, Plan
from s2cube.outcome import Progress
from s2cube.output import Output, name
from s2cube.packing import PACKINGS
from s2cube.plan import make_plan
from s2cube.qa import QA
from s2cube.record import now
from s2cube.store import Access

if TYPE_CHECKING:
    import xarray as xr

READ_KEYS = frozenset(ReadSettings.__annotations__)


def open_cube(items: Iterable[pystac.Item], aoi: AOI, **settings: Unpack[OpenSettings]) -> "xr.DataArray":
    """Open scenes as one lazy cube over an area of interest.

    Parameters
    ----------
    items
        Sentinel-2 L2A scenes, as `search` finds them.
    aoi
        What lies outside it, or in its holes, is nodata.
    bands
        Names, by any catalogue: ``blue`` or ``B02``; the cube calls them as they were asked for.
    crs
        ``EPSG:N``, projected and in metres, or ``auto``: the UTM zone of the AOI.
    resolution
        Pixel size, metres; 30 by default.
    quality
        ``exact``: the area mean of native pixels; ``fast``: of the coarsest overview that is no coarser than the grid.
    offset
        What is added to digital numbers: ``auto`` goes by baseline and catalogue; ``none`` or ``-1000`` overrule it.
    mask
        Any of ``scl``, ``cloud``, ``snow``, ``qa60``, or ``none``: where they tell of cloud, shadow or bad pixels is
        nodata.
    mask_classes
        Scene classes that ``scl`` masks; 0, 1, 3, 8, 9, 10 by default.
    max_cloud_probability, max_snow_probability
        Percent, above which ``cloud`` and ``snow`` mask; 40 by default.
    dilation
        Metres around cloud and shadow that are masked too; 0 by default.
    group_by
        ``solar_day``: one slice a day; ``scene``: one a scene.
    dtype
        ``float32``: reflectance, nodata NaN; ``int16``: reflectance × 10000, nodata -9999, as `run` writes it by
        default.
    timeout, retries
        Seconds that a request for a part of a file may take, 60 by default; how often it is made again, 5.
    tokens
        Addresses that give tokens, by how the links begin that want them; Planetary Computer's is known.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x); surface reflectance, harmonised over processing baselines, masked and clipped;
        float32 with nodata NaN, or int16 × 10000 with nodata -9999. x and y are pixel centres in metres in the grid's
        CRS, time is UTC. The coordinate `qa` (time, y, x), lazy too, says why a pixel is masked: values of `qa.QA`.
        (If you subtract dates, xarray compares their `qa` and reads masks: ``drop_vars("qa")`` first.) ``.rio`` and
        ``.odc`` know CRS, transform and nodata. Nodata is in ``encoding``, which xarray does not copy to what is
        computed from the cube. Mask an int16 cube before you compute with it: ``cube.where(cube != -9999)``. For a
        selection of an int16 cube rioxarray needs the nodata value: ``.rio.set_nodata(-9999)``, before
        ``.rio.clip`` or ``.rio.reproject``.

    Raises
    ------
    ConfigError
        If a setting cannot be.
    SearchError
        If there is no scene.
    SliceError
        If a scene lacks an asset or does not say how its pixels are scaled; on computing, if a file cannot be read.
    """
    patience = {key: value for key, value in settings.items() if key in READ_KEYS}
    config = CubeSection.of(
        {"dtype": "float32"} | {key: value for key, value in settings.items() if key not in READ_KEYS}
    )
    access = read_access(ReadSection.of(patience))
    plan = make_plan(items, aoi, config)
    for each in plan.unusable:
        raise each.error
    if not plan.slices:
        raise SearchError(aoi.id, "no scene to open", "Search other dates, or allow more cloud")
    from s2cube.cube import read_bands

    dn = read_bands(plan, config.bands, config.quality, access)
    cube = assemble(plan, config, dn, screen(plan, config, access))
    # For integers, rioxarray does not take nodata from the encoding.
    cube.rio.set_nodata(PACKINGS[config.dtype].nodata)
    return cube


def read_access(config: ReadSection) -> Access:
    """Begin to count what is read."""
    return Access(config.timeout_s, config.retries, config.tokens, config.stores)


def screen(plan: Plan, config: CubeSection, access: Access) -> "xr.Dataset":
    """Tell what is masked, as `mask.screen` does."""
    from s2cube import chunk, cube, mask

    per_slice = plan.scenes_per_slice
    if not config.mask:
        return mask.no_screen(sum(per_slice), len(per_slice), chunk.chunks(plan))
    halo_cells = chunk.halo_cells(plan, config.dilation_m)
    layers = cube.read_layers(plan, config.mask, halo_cells, access)
    return mask.screen(layers, config, per_slice, halo_cells)


def assemble(plan: Plan, config: CubeSection, dn: "xr.DataArray", screened: "xr.Dataset") -> "xr.DataArray":
    """Put together what bands and masks give: an image as `open_cube` describes it."""
    from s2cube.mosaic import mosaic
    from s2cube.outline import clip

    image = clip(mosaic(plan, dn, screened, config), plan.aoi.geometry, PACKINGS[config.dtype].nodata)
    return image.assign_coords(qa=qa(plan, screened).variable)


def qa(plan: Plan, screened: "xr.Dataset") -> "xr.DataArray":
    """Tell why pixels are masked, or outside the AOI."""
    from s2cube.mask import explain
    from s2cube.outline import clip

    return clip(explain(screened, plan.scenes_per_slice, plan.geobox), plan.aoi.geometry, QA.OUTSIDE)


def write_cogs(cube: "xr.DataArray", out: str | Path, **way: Unpack[OutputSettings]) -> list[Path | str]:
    """Compute a cube slice by slice and write each as a COG, a QA image, a picture and a STAC Item.

    Parameters
    ----------
    cube
        From `open_cube`, or a selection of it that keeps all dimensions, for example by lists of times or bands. The
        COGs get its dtype.
    out
        Output folder, or an address in an object store; slices that are there already are replaced.
    compress, compress_level
        ``deflate``, ``zstd``, ``lzw`` or ``none``, and the effort of it; deflate with 4 by default.

    Returns
    -------
    list of Path or str
        The COGs, in the order of time: paths, or addresses in an object store.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the cube is not from `open_cube`: computed from one, or read from a file.
    BusyError
        If a run writes there.
    WriteError
        If a disk is full, or a store refuses.
    ConfigError
        If there is no such compression.
    """
    chosen = OutputSection.of(way)
    lack = _lack(cube)
    if lack:
        raise OutputError("the cube", f"lacks {lack}", "Write a cube of open_cube, or use its .rio.to_raster")
    from s2cube.catalog import write_catalog
    from s2cube.files import write_files
    from s2cube.memory import MOST_READERS

    # What is told of slices may be lazy too, of a cube that was cut into other chunks.
    cube = cube.assign_coords({name: cube[name].compute() for name in ("slice", "scenes", "provenance")})
    with held(Output.at(out)) as lease:
        paths: list[Path | str] = []
        lease.progress = Progress(total=cube.sizes["time"], began=now())
        for position in range(cube.sizes["time"]):
            image = cube.isel(time=position)
            with lease.output.place.staging() as folder:
                write_files(image, folder, chosen, MOST_READERS)
                aoi_id, slice_id = image.attrs["aoi"], str(image["slice"].item())
                path = lease.output.publish(aoi_id, slice_id, folder)
            here = isinstance(lease.output.place, Folder)
            paths.append(Path(out) / name(aoi_id, slice_id, ".tif") if here else path)
            lease.progress = replace(lease.progress, written=len(paths))
        write_catalog(lease.output, {cube.attrs["aoi"]})
    return paths


def _lack(cube: "xr.DataArray") -> str:
    """Name what a cube lacks in comparison with one of `open_cube`; empty if nothing."""
    missing = {"time", "band", "slice", "scenes", "provenance", "qa"} - set(cube.coords)
    if missing or cube.dims != ("time", "band", "y", "x") or "grid" not in cube.attrs:
        return f"{', '.join(sorted(missing)) or 'attributes or dimensions'} of open_cube"
    if cube.attrs["grid"] != f"{cube.sizes['y']}x{cube.sizes['x']}":
        return "a part of its grid"
    if not cube.rio.transform(recalc=True).almost_equals(cube.rio.transform()):
        return "the order of rows and columns of open_cube"
    from s2cube.mosaic import SOURCE

    packing = PACKINGS.get(cube.dtype.name)
    intact = packing and packing.holes(cube.encoding.get("_FillValue")) and cube.encoding.get("source") == SOURCE
    return "" if intact else "the encoding of open_cube, because it was computed from one or read from a file"
