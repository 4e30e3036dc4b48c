"""Open scenes as one lazy cube."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Unpack

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection, OpenSettings, ReadSection, ReadSettings
from s2cube.cube.packing import PACKINGS
from s2cube.errors import SearchError
from s2cube.fetch.store import Access
from s2cube.scenes.plan import make_plan
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.time_slice import Plan

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from s2cube.cube.chunks import ReadGrid
    from s2cube.cube.reads import Read

READ_KEYS = frozenset(ReadSettings.__annotations__)


def open_cube(items: Iterable[pystac.Item], aoi: AOI, **settings: Unpack[OpenSettings]) -> "xr.DataArray":
    """Open scenes as one lazy cube over an area of interest.

    Parameters
    ----------
    items
        Sentinel-2 L2A scenes, as `search` finds them.
    aoi
        Pixels outside it, or in its holes, are nodata.
    bands
        Names of any catalogue: ``blue`` or ``B02``. The cube keeps the names that you give.
    crs
        ``EPSG:N``, projected and in metres, or ``auto``: the UTM zone of the AOI.
    resolution
        Pixel size, metres; 30 by default.
    quality
        ``exact``: the area mean of native pixels; ``fast``: of the coarsest overview that is no coarser than the grid.
    offset
        Number that is added to digital numbers: ``auto`` depends on baseline and catalogue; ``none`` or ``-1000``
        overrule it.
    mask
        Any of ``scl``, ``cloud``, ``snow``, ``qa60``, or ``none``. Pixels in which they show cloud, shadow or defects
        are nodata.
    mask_classes
        Scene classes that ``scl`` masks; 0, 1, 3, 8, 9, 10 by default.
    max_cloud_probability, max_snow_probability
        Percent; ``cloud`` and ``snow`` mask larger values; 40 by default.
    dilation
        Metres around cloud and shadow that are masked too; 0 by default.
    group_by
        ``solar_day``: one slice a day; ``scene``: one a scene.
    dtype
        ``float32``: reflectance, nodata NaN; ``int16``: reflectance × 10000, nodata -9999, as `run` writes it by
        default.
    timeout, retries
        Seconds that a request for a part of a file may take, 60 by default; how often it is repeated, 5.
    tokens
        Addresses that give tokens, by the beginning of the links that need them; Planetary Computer's is known.

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
        If a setting is not valid.
    SearchError
        If there is no scene.
    SliceError
        If a scene lacks an asset or does not give the offset of its pixels; on computing, if a file cannot be read.
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
    cube = _cube(plan, config, access)
    # For integers, rioxarray does not take nodata from the encoding.
    cube.rio.set_nodata(PACKINGS[config.dtype].nodata)
    return cube


def _cube(plan: Plan, config: CubeSection, access: Access) -> "xr.DataArray":
    from s2cube.cube.chunks import read_grids
    from s2cube.cube.cut import cut
    from s2cube.cube.facts import describe, slice_facts
    from s2cube.cube.mosaic import mosaic
    from s2cube.cube.reads import reads
    from s2cube.cube.stack import read_bands

    grids = read_grids(plan.geobox, [each.scenes for each in plan.slices], config.dilation_m)
    files = [reads(each.scenes, grid, config) for each, grid in zip(plan.slices, grids, strict=True)]
    dn = read_bands(list(chain.from_iterable(files)), config.bands, config.quality, access)
    screened = _screen_slices(files, grids, config, access)
    offsets = offsets_dn(plan.scenes, config)
    images = mosaic(dn, screened, offsets, plan.scenes_per_slice, plan.geobox, config.dtype)
    cube = cut(images, plan.geobox, plan.aoi.geometry, [each.time for each in plan.slices])
    return describe(cube, [slice_facts(each, config) for each in plan.tasks()])


def read_access(config: ReadSection) -> Access:
    """Give access to files, with counters that begin at 0."""
    return Access(config.timeout_s, config.retries, config.tokens, config.stores)


def screen(
    files: "Sequence[Read]", per_slice: tuple[int, ...], grid: "ReadGrid", config: CubeSection, access: Access
) -> "xr.Dataset":
    """Say what is masked, as `mask.screen` does.

    Parameters
    ----------
    files
        From `reads`.
    per_slice
        Number of scenes of each slice.
    grid
        That of `files`.
    """
    from s2cube.cube import mask
    from s2cube.cube.stack import read_layers

    if not config.mask:
        return mask.no_screen(sum(per_slice), len(per_slice), grid.chunks)
    layers = read_layers(files, grid, config.mask, access)
    return mask.screen(layers, config, per_slice, grid.halo_cells)


def _screen_slices(
    files: "Sequence[list[Read]]", grids: "Sequence[ReadGrid]", config: CubeSection, access: Access
) -> "xr.Dataset":
    """Screen slices together whose masks are read on the same steps, so that no slice depends on another one."""
    import xarray as xr

    alike: dict[tuple[int, int], list[int]] = {}
    for position, grid in enumerate(grids):
        alike.setdefault((grid.steps, grid.halo_cells), []).append(position)
    parts, scenes, slices = [], [], []
    firsts = list(accumulate((len(grid.nests) for grid in grids), initial=0))
    for positions in alike.values():
        grid = replace(grids[positions[0]], nests=tuple(each for at in positions for each in grids[at].nests))
        per_slice = tuple(len(grids[at].nests) for at in positions)
        parts.append(screen([each for at in positions for each in files[at]], per_slice, grid, config, access))
        scenes += [scene for at in positions for scene in range(firsts[at], firsts[at + 1])]
        slices += positions
    if len(parts) == 1:
        return parts[0]
    of_scenes, of_slices = ["reason", "seen", "ground"], ["covered"]
    return xr.merge(
        [
            xr.concat([part[of_scenes] for part in parts], "scene").isel(scene=_inverse(scenes)),
            xr.concat([part[of_slices] for part in parts], "time").isel(time=_inverse(slices)),
        ]
    )


def _inverse(order: list[int]) -> list[int]:
    """Give the order that sorts what is in an order."""
    return sorted(range(len(order)), key=order.__getitem__)


def offsets_dn(scenes: Iterable[pystac.Item], config: CubeSection) -> "np.ndarray":
    """Give what is added to the digital numbers of each scene; see `provider.offset_dn`.

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    import numpy as np

    return np.array([offset_dn(scene, config.offset) for scene in scenes], "int32")
