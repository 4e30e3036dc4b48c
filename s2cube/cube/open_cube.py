"""Open scenes as one lazy cube."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.literals import Dtype, GroupBy, MaskLayer, Offset, Quality
from s2cube.config.sections import CubeSection, ReadSection
from s2cube.cube.packing import PACKINGS
from s2cube.errors import SearchError
from s2cube.fetch.store import Access
from s2cube.scenes.plan import make_plan
from s2cube.scenes.time_slice import Plan
from s2cube.sentinel2 import QA

if TYPE_CHECKING:
    import xarray as xr


def open_cube(  # noqa: PLR0913  one parameter a setting, so that editors complete them
    items: Iterable[pystac.Item],
    aoi: AOI,
    *,
    bands: str | Sequence[str] = ("blue", "green", "red", "nir", "swir16"),
    crs: str | int = "auto",
    resolution: float = 30,
    quality: Quality = "exact",
    offset: Offset | int = "auto",
    mask: str | Sequence[MaskLayer] = ("scl",),
    mask_classes: str | Sequence[int] = (0, 1, 3, 8, 9, 10),
    max_cloud_probability: float = 40,
    max_snow_probability: float = 40,
    dilation: float = 0,
    group_by: GroupBy = "solar_day",
    dtype: Dtype = "float32",
    timeout: float = 60,
    retries: int = 5,
    tokens: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
    stores: Mapping[str, Mapping[str, str | bool]] | tuple[()] = (),
) -> "xr.DataArray":
    """Open scenes as one lazy cube over an area of interest.

    No pixel is read before the cube is computed.

    Parameters
    ----------
    items
        Sentinel-2 L2A scenes, as `search` finds them.
    aoi
        Area of interest. Pixels outside it, or in its holes, are nodata.
    bands
        Band names of any catalogue, for example ``blue`` or ``B02``. The cube uses the names that are given.
    crs
        ``EPSG:N``, projected and in metres, or ``auto``: the UTM zone of the AOI.
    resolution
        Pixel size, metres.
    quality
        ``exact``: the area mean of native pixels. ``fast``: the area mean of pixels of the coarsest overview that is
        not coarser than the grid.
    offset
        Offset that is added to digital numbers. ``auto`` chooses it by processing baseline and catalogue; ``none`` or
        ``-1000`` overrule this.
    mask
        Any of ``scl``, ``cloud``, ``snow``, ``qa60``, or ``none``. Pixels that these layers mark as cloud, shadow or
        defective are nodata.
    mask_classes
        Scene classes that ``scl`` masks.
    max_cloud_probability, max_snow_probability
        Maximum probability that ``cloud`` and ``snow`` keep, percent.
    dilation
        Distance around cloud and shadow within which pixels are also masked, metres.
    group_by
        ``solar_day``: one time slice per day. ``scene``: one per scene.
    dtype
        ``float32``: reflectance, nodata NaN. ``int16``: reflectance × 10000, nodata -9999; `run` writes this by
        default.
    timeout
        Time limit of a request for a part of a file, seconds.
    retries
        Number of times that a failed request is repeated, if its error may be temporary.
    tokens
        Address of a token service for each prefix of links. The service of Planetary Computer is known.
    stores
        Settings of ``s3://`` stores by address prefix: ``endpoint``, ``region``, ``keys`` (prefix of the environment
        variables that hold the keys), ``anonymous``, ``requester_pays``.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x). The values are surface reflectance, harmonised over processing baselines, masked
        and clipped: float32 with nodata NaN, or int16 × 10000 with nodata -9999. x and y are pixel centres in metres
        in the grid's CRS, time is UTC. The coordinate `qa` (time, y, x), also lazy, says why a pixel is masked: values
        of `sentinel2.QA`. (xarray compares `qa` when you subtract dates, and reads masks for that:
        ``drop_vars("qa")`` first.) ``.rio`` and ``.odc`` know CRS, transform and nodata. Nodata is in ``encoding``,
        which xarray does not copy to results that are computed from the cube. Mask an int16 cube before you compute
        with it: ``cube.where(cube != -9999)``. For a selection of an int16 cube rioxarray needs the nodata value:
        ``.rio.set_nodata(-9999)``, before ``.rio.clip`` or ``.rio.reproject``.

    Raises
    ------
    ConfigError
        If a setting is not valid.
    SearchError
        If there is no scene.
    SliceError
        If a scene lacks an asset, or if the offset of its pixels is not known. When the cube is computed: if a file
        cannot be read.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> items = s2cube.search(aoi, stac="s2cube-demo/archive/items.json", datetime="2022-05/2022-06")
    >>> cube = s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60)
    >>> cube.dims, cube.shape, str(cube.dtype)
    (('time', 'band', 'y', 'x'), (2, 2, 89, 154), 'float32')
    >>> red, nir = cube.sel(band="red"), cube.sel(band="nir")
    >>> ndvi = ((nir - red) / (nir + red)).mean("time").compute()
    >>> round(float(ndvi.max()), 2)
    0.63
    """
    arguments = locals()
    config = CubeSection.of_arguments(arguments)
    access = read_access(ReadSection.of_arguments(arguments))
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
