"""Metadata of an image. `run` passes them as a value, a public cube has them in attributes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from s2cube.config.sections import CubeSection
from s2cube.errors import OutputError
from s2cube.kernels.packing import PACKINGS
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.scene import item_href
from s2cube.scenes.time_slice import Dropped, Task

NAME = "reflectance"
"""Name of a cube. xarray keeps it in most results, so it is not a name that a user has given."""

SOURCE = "s2cube.open_cube"
"""Value of a cube's ``encoding["source"]`` while its values are unchanged. xarray keeps the encoding when pixels are
selected, and drops or replaces it when values are computed or read from a file."""


@dataclass(frozen=True)
class Provenance:
    """The sources of an image, and its settings.

    Parameters
    ----------
    recipe
        Digest of everything that determines the pixels, see `recipe.recipe`.
    data_version
        See `recipe.DATA_VERSION`.
    settings
        Settings of the cube, by the names of the flags.
    search
        Settings of the search for scenes. Empty if there was no search.
    ground
        Digest of the AOI's polygon, see `AOI.ground`.
    offset_dn
        Offset that is added to the digital numbers of each scene, by id.
    dropped
        Unused scenes of the same granules.
    derived_from
        URLs of the scenes' items.
    """

    recipe: str
    data_version: int
    settings: Mapping[str, Any]
    search: Mapping[str, Any]
    ground: str
    offset_dn: Mapping[str, int]
    dropped: tuple[Dropped, ...]
    derived_from: tuple[str, ...]


@dataclass(frozen=True)
class SliceFacts:
    """Metadata of one image: its ids, its time and its sources.

    Parameters
    ----------
    outline_lonlat
        The AOI as RFC 7946 requires it.
    time
        Acquisition time of the earliest scene, UTC. None if the image is of an interval.
    scenes
        Ids of the scenes.
    name
        Name of an image that was computed from a cube. Empty for an image of a run.
    interval
        Acquisition times of the first and the last scene, UTC, if the image is of an interval.
    is_explained
        Whether the QA values are those of masks. Otherwise they only say where the area and the values are.
    """

    aoi: str
    outline_lonlat: BaseGeometry
    slice: str
    time: datetime | None
    scenes: tuple[str, ...]
    provenance: Provenance
    name: str = ""
    interval: tuple[datetime, datetime] | None = None
    is_explained: bool = True


def slice_facts(task: Task, config: CubeSection) -> SliceFacts:
    """Collect the metadata of the image of a task.

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    scenes = task.slice.scenes
    provenance = Provenance(
        task.slice.recipe, DATA_VERSION, settings_of(config), dict(task.search), task.aoi.ground,
        offset_dn={scene.id: offset_dn(scene, config.offset) for scene in scenes},
        dropped=task.slice.dropped,
        derived_from=tuple(href for scene in scenes if (href := item_href(scene))),
    )  # fmt: skip
    ids = tuple(scene.id for scene in scenes)
    return SliceFacts(task.aoi.id, task.aoi.geometry_lonlat.geom, task.id, task.slice.time, ids, provenance)


def describe(cube: xr.DataArray, facts: Sequence[SliceFacts]) -> xr.DataArray:
    """Add facts to a cube of one AOI: coordinates `slice` and `scenes`, attributes and encoding.

    The attribute `provenance` is a JSON text: what all slices have in common, and under `slices` by id what differs.
    """
    packing = PACKINGS.get(cube.dtype.name)
    # Zarr 3 has no standard for texts of a fixed length. Dask cannot choose chunks for objects.
    encoding = {"dtype": np.dtypes.StringDType()}
    slices, scenes = [each.slice for each in facts], ["\n".join(each.scenes) for each in facts]
    cube = cube.assign_coords(
        slice=("time", np.array(slices), {}, encoding), scenes=("time", np.array(scenes), {}, encoding)
    )
    cube.name = facts[0].name or NAME
    # xarray copies attributes to results that are computed from the cube. So attributes must be valid for results, too:
    # no scale, no nodata (readers would apply them to a saved index), no units.
    cube.attrs = {
        "aoi": facts[0].aoi,
        "aoi_wkt_lonlat": facts[0].outline_lonlat.wkt,
        "grid": f"{cube.sizes['y']}x{cube.sizes['x']}",
        "opened_as": f"{cube.dtype.name}: {packing.description if packing else 'computed from a cube'}",
        "provenance": _provenance_text(facts),
    }
    if packing is None:
        return cube
    cube.encoding["source"] = SOURCE
    return cube.rio.write_nodata(packing.nodata, encoded=True)


def _provenance_text(facts: Sequence[SliceFacts]) -> str:
    content = [_plain(each) for each in facts]
    common = {name: value for name, value in content[0].items() if all(each[name] == value for each in content)}
    slices = {
        each.slice: {name: value for name, value in of_slice.items() if name not in common}
        for each, of_slice in zip(facts, content, strict=True)
    }
    return json.dumps(common | {"slices": slices}, separators=(",", ":"))


def _plain(facts: SliceFacts) -> dict[str, Any]:
    derived = {"name": facts.name, "is_explained": facts.is_explained} if facts.name else {}
    if facts.interval:
        derived["interval"] = [each.isoformat() for each in facts.interval]
    time = facts.time and facts.time.isoformat()
    return {"time": time, "scenes": facts.scenes, **derived, **asdict(facts.provenance)}


def sources_of(cube: xr.DataArray) -> dict[str, SliceFacts]:
    """Read the facts of all slices, by id, that `describe` has added to the cube that an array was computed from.

    Returns
    -------
    dict of str to SliceFacts
        Empty if the array has no attribute `provenance`.

    Raises
    ------
    OutputError
        If the attributes are not those that `describe` writes.
    """
    attrs = cube.attrs
    if "provenance" not in attrs:
        return {}
    try:
        return _read_sources(attrs["aoi"], attrs["aoi_wkt_lonlat"], attrs["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        problem = f"has an attribute 'provenance' that open_cube did not write ({type(error).__name__}: {error})"
        raise OutputError("the cube", problem, "Delete this attribute: del cube.attrs['provenance']") from None


@lru_cache(maxsize=4)
def _read_sources(aoi: str, outline_wkt: str, text: str) -> dict[str, SliceFacts]:
    common = json.loads(text)
    outline, found = shapely.from_wkt(outline_wkt), {}
    for slice_id, own in common.pop("slices").items():
        content = common | own
        time, scenes = content.pop("time"), tuple(content.pop("scenes"))
        derived = {name: content.pop(name) for name in ("name", "is_explained", "interval") if name in content}
        if "interval" in derived:
            derived["interval"] = tuple(map(datetime.fromisoformat, derived["interval"]))
        dropped = tuple(Dropped(**each) for each in content["dropped"])
        content |= {"dropped": dropped, "derived_from": tuple(content["derived_from"])}
        found[slice_id] = SliceFacts(
            aoi, outline, slice_id, time and datetime.fromisoformat(time), scenes, Provenance(**content), **derived
        )
    return found


def facts_of(image: xr.DataArray) -> SliceFacts:
    """Read the facts of one image that `describe` has added to a cube.

    Parameters
    ----------
    image
        One time of a cube, dims (band, y, x).
    """
    return sources_of(image)[str(image["slice"].item())]


def acquired(facts: SliceFacts) -> tuple[datetime, ...]:
    """Return the acquisition time of an image, or the first and the last time of its interval."""
    return (facts.time,) if facts.time else facts.interval or ()


def is_in_group(facts: SliceFacts, dim: str, value: Any) -> bool:
    """Return whether a slice may be in a group of times, such as the month 6. xarray names groups by parts of dates."""
    stamps = xr.DataArray(
        np.array([each.replace(tzinfo=None) for each in acquired(facts)], "datetime64[ns]"), dims="time"
    )
    part = getattr(stamps.dt, dim, None)
    return not isinstance(part, xr.DataArray) or value in part.values.tolist()


def common_provenance(sources: Sequence[SliceFacts]) -> Provenance:
    """Combine the sources of an image. Settings that differ between them are not known."""
    every = [each.provenance for each in sources]
    settings, searches = [each.settings for each in every], [each.search for each in every]
    grounds, versions = {each.ground for each in every}, {each.data_version for each in every}
    is_one = bool(every) and all(each == settings[0] for each in settings) and len(grounds) == len(versions) == 1
    return Provenance(
        recipe="",
        data_version=versions.pop() if is_one else 0,
        settings=settings[0] if is_one else {},
        search=searches[0] if is_one and all(each == searches[0] for each in searches) else {},
        ground=grounds.pop() if is_one else "",
        offset_dn={scene: offset for each in every for scene, offset in each.offset_dn.items()},
        dropped=tuple(dict.fromkeys(dropped for each in every for dropped in each.dropped)),
        derived_from=tuple(dict.fromkeys(href for each in every for href in each.derived_from)),
    )


def as_opened(cube: xr.DataArray) -> xr.DataArray | None:
    """Return a cube of `open_cube`, (time, band, y, x), if its values are unchanged and its grid is complete."""
    for name in ("time", "band"):
        if name not in cube.dims and name in cube.coords:
            cube = cube.expand_dims(name)
    if set(cube.dims) != {"time", "band", "y", "x"} or not {"slice", "qa"} <= set(cube.coords):
        return None
    cube = cube.transpose("time", "band", "y", "x").assign_coords({"slice": cube["slice"].compute()})
    packing, sources = PACKINGS.get(cube.dtype.name), sources_of(cube)
    is_unchanged = (
        cube.encoding.get("source") == SOURCE
        and packing is not None
        and bool(packing.holes(cube.encoding.get("_FillValue")))
        and cube.attrs.get("grid") == f"{cube.sizes['y']}x{cube.sizes['x']}"
        and cube.rio.transform(recalc=True).almost_equals(cube.rio.transform())
        # Functions of rioxarray keep the encoding. They describe the axes, which open_cube does not.
        and "axis" not in cube.x.attrs
        and cube.qa.dtype == "uint8"
        and set(map(str, cube["slice"].values.ravel())) <= sources.keys()
    )
    return cube if is_unchanged else None
