"""Open scenes as one lazy cube."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import pystac

from s2cube.area.areas import read_aoi
from s2cube.config.literals import Dtype, GroupBy, MaskLayer, Offset, Quality
from s2cube.config.sections import CubeSection, ReadSection
from s2cube.errors import SearchError
from s2cube.fetch.store import Access
from s2cube.kernels.packing import PACKINGS
from s2cube.scenes.plan import make_plan
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.time_slice import Plan
from s2cube.stac.source import ItemsLike, to_items

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import xarray as xr

    from s2cube.area.areas import AreaLike
    from s2cube.cube.chunks import Chunking


def open_cube(  # noqa: PLR0913  one parameter per setting, so that editors complete them
    items: ItemsLike,
    aoi: "AreaLike",
    *,
    aoi_crs: object = None,
    chunks: "Chunking" = None,
    bands: str | Sequence[str] | None = ("red", "green", "blue", "nir", "swir16"),
    indices: str | Sequence[str] | None = (),
    crs: str | int = "auto",
    resolution: float = 30,
    quality: Quality = "exact",
    offset: Offset | int = "auto",
    mask: str | Sequence[MaskLayer] | None = ("scl",),
    mask_classes: str | Sequence[int] = (0, 1, 3, 8, 9, 10),
    max_cloud_probability: float = 40,
    max_snow_probability: float = 40,
    dilation: float = 0,
    group_by: GroupBy = "solar_day",
    dtype: "Dtype | npt.DTypeLike" = "float32",
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
        Sentinel-2 L2A scenes, for example from `search`: pystac Items or their dicts in any iterable, an ItemCollection
        of pystac or as a dict, one Item, or the path of an ItemCollection or of a stac-geoparquet file.
    aoi
        One area of interest: anything that `read_aoi` takes. Pixels outside it, or in its holes, become nodata.
    aoi_crs
        CRS of a geometry in `aoi` that has none of its own; default: degrees (EPSG:4326).
    chunks
        Chunks of the cube, as for `xarray.DataArray.chunk`: a number, ``"auto"``, or a dict by dimension. None: as the
        files are read, which is the fastest for computing the complete cube. Other chunks merge or split these.
    bands
        Band names of any catalogue, for example ``blue`` or ``B02``. The cube uses the same names. ``scl`` is the scene
        classification (1 to 11, nodata where no scene has data), ``qa`` the values of the coordinate `qa`. They are
        classes: numbers that are neither masked nor scaled. A cell has the scene class with the largest area in it.
        ``none``, None or an empty list: the cube has only indices.
    indices
        Names of spectral indices, for example ``NDVI``, as in `Awesome Spectral Indices
        <https://github.com/awesome-spectral-indices/awesome-spectral-indices>`_, whose formulas and constants they
        have; the command ``s2cube indices`` lists them. They follow the bands in the dimension `band`. The bands that
        they need are read, but are not in the cube if `bands` does not name them. An index is NaN where a band is, and
        where its formula divides by zero. In int16 it is index × 10000, and nodata beyond ±3.2767.
    crs
        ``EPSG:N``, projected and in metres, or ``auto``: the UTM zone of the AOI.
    resolution
        Pixel size, metres.
    quality
        ``exact``: the area mean of native pixels. ``fast``: the area mean of pixels of the coarsest overview that is
        not coarser than the grid.
    offset
        Offset that is added to digital numbers. ``auto`` chooses it by processing baseline and catalogue; ``none`` or
        ``-1000`` override this.
    mask
        Any of ``scl``, ``cloud``, ``snow``, ``qa60``; ``none`` or None for no mask. Pixels that these layers mark as
        cloud, shadow or defective become nodata.
    mask_classes
        Scene classes that ``scl`` masks.
    max_cloud_probability, max_snow_probability
        Maximum probability of cloud and snow in a valid pixel, percent.
    dilation
        Distance around cloud and shadow within which pixels are also masked, metres.
    group_by
        ``solar_day``: one time slice per day. ``scene``: one per scene.
    dtype
        ``float32``: reflectance, nodata NaN. ``int16``: reflectance × 10000, nodata -9999; `run` writes this by
        default. Also as a type of numpy.
    timeout
        Time limit of a request for a part of a file, seconds.
    retries
        Number of times that a failed request is repeated, if its error may be temporary.
    tokens
        Address of a token service for each prefix of links. The service of Planetary Computer is known.
    stores
        Settings of ``s3://`` stores by address prefix: ``endpoint``, ``region``, ``keys`` (prefix of the environment
        variables with the keys), ``anonymous``, ``requester_pays``.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x). The values are surface reflectance, harmonised over processing baselines, masked
        and clipped: float32 with nodata NaN, or int16 × 10000 with nodata -9999. x and y are pixel centres in metres in
        the grid's CRS, time is UTC. The coordinate `qa` (time, y, x), also lazy, contains the reason why a pixel is
        masked: values of `sentinel2.QA`. Call ``drop_vars("qa")`` before you subtract dates, because xarray would read
        the masks to compare `qa`. The coordinates `slice` and `scenes` (time) contain ids; the attribute `provenance`
        is a JSON text with the settings and sources of all slices. ``.rio`` and ``.odc`` provide CRS, transform and
        nodata. Nodata is in ``encoding``, which xarray does not copy to results that are computed from the cube. Mask
        an int16 cube before you compute with it: ``cube.where(cube != -9999)``. For a selection of an int16 cube
        rioxarray needs the nodata value: call ``.rio.set_nodata(-9999)`` before ``.rio.clip`` or ``.rio.reproject``.

    Raises
    ------
    AOIError
        If the area cannot be used, or if there are several; see `read_aoi`.
    ConfigError
        If a setting is not valid, or if `items` are not scenes.
    SearchError
        If there are no scenes, or if their file cannot be read.
    SliceError
        If a scene lacks an asset, or if the offset of its pixels is not known. If a file cannot be read
        when the cube is computed.

    Examples
    --------
    The command ``s2cube demo`` writes these files.

    >>> import s2cube
    >>> aoi = "s2cube-demo/archive/aoi.geojson"
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
    plan = make_plan(to_items(items), read_aoi(aoi, crs=aoi_crs), config)
    for each in plan.unusable:
        raise each.error
    if not plan.slices:
        raise SearchError(plan.aoi.id, "no scene to open", "Search other dates, or allow more cloud")
    cube = _cube(plan, config, access)
    # For integers, rioxarray does not read nodata from the encoding.
    cube.rio.set_nodata(PACKINGS[config.dtype].nodata)
    if chunks is None:
        return cube
    from s2cube.cube.chunks import rechunked

    return rechunked(cube, chunks)


def _cube(plan: Plan, config: CubeSection, access: Access) -> "xr.DataArray":
    from s2cube.cube.chunks import read_grids
    from s2cube.cube.cut import inside_chunks, labelled
    from s2cube.cube.facts import describe, slice_facts
    from s2cube.cube.images import images, reasons, screened
    from s2cube.cube.reads import reads
    from s2cube.cube.stack import read_bands

    grids = read_grids(plan.geobox, [each.scenes for each in plan.slices], config.dilation_m)
    files = [reads(each.scenes, grid, config) for each, grid in zip(plan.slices, grids, strict=True)]
    dn = read_bands(list(chain.from_iterable(files)), config.quality, access)
    masks = screened(files, grids, config, access)
    inside = inside_chunks(plan.geobox, plan.aoi.geometry, masks.chunks[2:])
    offsets = [offsets_dn(each.scenes, config) for each in plan.slices]
    values, why = images(dn, masks, inside, offsets, config), reasons(masks, inside)
    cube = labelled(values, why, config.image_bands, plan.geobox, [each.time for each in plan.slices])
    return describe(cube, [slice_facts(each, config) for each in plan.tasks()])


def read_access(config: ReadSection) -> Access:
    """Return access to files, with counters that start at 0."""
    return Access(config.timeout_s, config.retries, config.tokens, config.stores)


def offsets_dn(scenes: Iterable[pystac.Item], config: CubeSection) -> "np.ndarray":
    """Return the offset that is added to the digital numbers of each scene, see `provider.offset_dn`.

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    import numpy as np

    return np.array([offset_dn(scene, config.offset) for scene in scenes], "int32")
