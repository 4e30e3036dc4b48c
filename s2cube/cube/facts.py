"""Metadata of an image. `run` passes them as a value, a public cube has them in coordinates and attributes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from s2cube.config.sections import CubeSection
from s2cube.cube.packing import PACKINGS
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
    """Add facts to a cube of one AOI: coordinates `slice`, `scenes` and `provenance`, attributes and encoding."""
    packing = PACKINGS[cube.dtype.name]
    provenance = [json.dumps(asdict(each.provenance)) for each in facts]
    cube = cube.assign_coords(
        slice=("time", [each.slice for each in facts]),
        scenes=("time", ["\n".join(each.scenes) for each in facts]),
        provenance=("time", provenance),
    )
    cube.name = "reflectance"
    # xarray copies attributes to results that are computed from the cube. So attributes must be valid for results, too:
    # no scale, no nodata (readers would apply them to a saved index), no units.
    cube.attrs = {
        "aoi": facts[0].aoi,
        "aoi_wkt_lonlat": facts[0].outline_lonlat.wkt,
        "grid": f"{cube.sizes['y']}x{cube.sizes['x']}",
        "opened_as": f"{cube.dtype.name}: {packing.description}",
    }
    cube.encoding["source"] = SOURCE
    return cube.rio.write_nodata(packing.nodata, encoded=True)


def facts_of(image: xr.DataArray) -> SliceFacts:
    """Read the facts of one image that `describe` has added to a cube.

    Parameters
    ----------
    image
        One time of a cube, dims (band, y, x).
    """
    content = json.loads(str(image.provenance.item()))
    dropped = tuple(Dropped(**each) for each in content.pop("dropped"))
    provenance = Provenance(**content | {"dropped": dropped, "derived_from": tuple(content["derived_from"])})
    return SliceFacts(
        image.attrs["aoi"],
        shapely.from_wkt(image.attrs["aoi_wkt_lonlat"]),
        str(image["slice"].item()),
        image.time.values.astype("datetime64[us]").item().replace(tzinfo=UTC),
        tuple(str(image.scenes.item()).splitlines()),
        provenance,
    )
