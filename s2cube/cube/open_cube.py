"""Open scenes as one lazy cube."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection, OpenSettings, ReadSection, ReadSettings
from s2cube.cube.packing import PACKINGS
from s2cube.errors import SearchError
from s2cube.fetch.store import Access
from s2cube.scenes.plan import make_plan
from s2cube.scenes.time_slice import Plan
from s2cube.sentinel2 import QA

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
    from s2cube.cube.stack import read_bands

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
    from s2cube.cube import chunks, mask
    from s2cube.cube import stack as cube

    per_slice = plan.scenes_per_slice
    if not config.mask:
        return mask.no_screen(sum(per_slice), len(per_slice), chunks.chunks(plan))
    halo_cells = chunks.halo_cells(plan, config.dilation_m)
    layers = cube.read_layers(plan, config.mask, halo_cells, access)
    return mask.screen(layers, config, per_slice, halo_cells)


def assemble(plan: Plan, config: CubeSection, dn: "xr.DataArray", screened: "xr.Dataset") -> "xr.DataArray":
    """Put together what bands and masks give: an image as `open_cube` describes it."""
    from s2cube.cube._clip import clip
    from s2cube.cube.mosaic import mosaic

    image = clip(mosaic(plan, dn, screened, config), plan.aoi.geometry, PACKINGS[config.dtype].nodata)
    return image.assign_coords(qa=qa(plan, screened).variable)


def qa(plan: Plan, screened: "xr.Dataset") -> "xr.DataArray":
    """Tell why pixels are masked, or outside the AOI."""
    from s2cube.cube._clip import clip
    from s2cube.cube.mask import explain

    return clip(explain(screened, plan.scenes_per_slice, plan.geobox), plan.aoi.geometry, QA.OUTSIDE)
