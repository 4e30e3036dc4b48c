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
from s2cube.cube.packing import PACKINGS
from s2cube.errors import OutputError
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.scene import item_href
from s2cube.scenes.time_slice import Dropped, Task

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
        Acquisition time of the earliest scene, UTC.
    scenes
        Ids of the scenes.
    """

    aoi: str
    outline_lonlat: BaseGeometry
    slice: str
    time: datetime
    scenes: tuple[str, ...]
    provenance: Provenance


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
    packing = PACKINGS[cube.dtype.name]
    # Zarr 3 has no standard for texts of a fixed length, so the texts are objects.
    cube = cube.assign_coords(
        slice=("time", np.array([each.slice for each in facts], object)),
        scenes=("time", np.array(["\n".join(each.scenes) for each in facts], object)),
    )
    cube.name = "reflectance"
    # xarray copies attributes to results that are computed from the cube. So attributes must be valid for results, too:
    # no scale, no nodata (readers would apply them to a saved index), no units.
    cube.attrs = {
        "aoi": facts[0].aoi,
        "aoi_wkt_lonlat": facts[0].outline_lonlat.wkt,
        "grid": f"{cube.sizes['y']}x{cube.sizes['x']}",
        "opened_as": f"{cube.dtype.name}: {packing.description}",
        "provenance": _provenance_text(facts),
    }
    cube.encoding["source"] = SOURCE
    return cube.rio.write_nodata(packing.nodata, encoded=True)


def _provenance_text(facts: Sequence[SliceFacts]) -> str:
    content = [
        {"time": each.time.isoformat(), "scenes": each.scenes, **asdict(each.provenance)} for each in facts
    ]  # fmt: skip
    common = {name: value for name, value in content[0].items() if all(each[name] == value for each in content)}
    slices = {
        each.slice: {name: value for name, value in of_slice.items() if name not in common}
        for each, of_slice in zip(facts, content, strict=True)
    }
    return json.dumps(common | {"slices": slices}, separators=(",", ":"))


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
        time, scenes = datetime.fromisoformat(content.pop("time")), tuple(content.pop("scenes"))
        dropped = tuple(Dropped(**each) for each in content["dropped"])
        content |= {"dropped": dropped, "derived_from": tuple(content["derived_from"])}
        found[slice_id] = SliceFacts(aoi, outline, slice_id, time, scenes, Provenance(**content))
    return found


def facts_of(image: xr.DataArray) -> SliceFacts:
    """Read the facts of one image that `describe` has added to a cube.

    Parameters
    ----------
    image
        One time of a cube, dims (band, y, x).
    """
    return sources_of(image)[str(image["slice"].item())]
