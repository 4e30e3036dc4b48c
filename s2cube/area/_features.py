"""Features of any source: their ids, and the areas of interest that they become."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from s2cube.area.aoi import AOI
from s2cube.area.names import file_name, name_key
from s2cube.errors import AOIError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from shapely.geometry.base import BaseGeometry

log = logging.getLogger(__name__)

ID_COLUMNS = ("id", "name")

_UNNAMED = "area"
_UNIQUE = "Give each its own id, or choose a property with unique values by --aoi-id"


@dataclass(frozen=True)
class Options:
    """How areas are read.

    Parameters
    ----------
    id_property
        Property with the id; None: see `ID_COLUMNS`.
    layer
        Layer of a file; None: the only layer that has polygons.
    crs
        CRS of geometries that have no CRS of their own; None: degrees, and files must have a CRS.
    """

    id_property: str | None = None
    layer: str | int | None = None
    crs: "CRS | None" = None

    def crs_of(self, subject: str, own: "CRS | None") -> "CRS | None":
        """Return the CRS of a geometry.

        Raises
        ------
        AOIError
            If it has another CRS than `crs`.
        """
        if own is not None and self.crs is not None and own != self.crs:
            problem = f"has the CRS {own}, which is not the CRS {self.crs} that is given"
            raise AOIError(subject, problem, "Leave out the CRS, or reproject the area")
        return self.crs if own is None else own

    def check_unused(self, subject: str, kind: str) -> None:
        """Check that neither a property nor a layer is chosen, because the source has none."""
        if self.id_property is not None:
            problem = f"is {kind}, which has no property '{self.id_property}'"
            raise AOIError(subject, problem, "Leave out --aoi-id (id_property)")
        self.check_no_layer(subject, kind)

    def check_no_layer(self, subject: str, kind: str) -> None:
        """Check that no layer is chosen, because the source has none."""
        if self.layer is not None:
            problem = f"is {kind}, which has no layer '{self.layer}'"
            raise AOIError(subject, problem, "Leave out --aoi-layer (layer)")


@dataclass(frozen=True)
class Feature:
    """A geometry that will become an area of interest.

    Parameters
    ----------
    subject
        Source of the geometry, for errors.
    name
        Id before it is converted to a safe file name. None: it becomes ``area``, with a number if there are several.
    crs
        CRS of the geometry; None: degrees.
    """

    subject: str
    name: str | None
    geometry: "BaseGeometry | None"
    crs: "CRS | None"


def chosen_ids(
    table: Mapping[str, Sequence[object]],
    subject: str,
    id_property: str | None,
    columns: Sequence[str] = ID_COLUMNS,
) -> list[str] | None:
    """Return the ids of features from their properties; None if there is no property that all features have.

    Parameters
    ----------
    table
        Values of each property, one per feature. A missing value is None.
    id_property
        Property to use. None: the first of `columns` that all features have.

    Raises
    ------
    AOIError
        If `id_property` is not in the table, or if a feature lacks it.
    """
    if id_property is not None and id_property not in table:
        known = ", ".join(table) or "none"
        raise AOIError(subject, f"has no property '{id_property}'", f"Its properties: {known}")
    for column in columns if id_property is None else (id_property,):
        if column not in table:
            continue
        if all(value is not None for value in table[column]):
            return [str(value) for value in table[column]]
        if id_property is not None:
            raise AOIError(subject, f"a feature has no '{id_property}'", "Set this property for every feature")
    return None


def make_aois(features: Sequence[Feature]) -> tuple[AOI, ...]:
    """Check features and make an area of interest of each.

    Raises
    ------
    AOIError
        If a geometry cannot be an area of interest, or if two ids result in the same file name.
    """
    several = len(features) > 1
    names = [
        (f"{_UNNAMED}_{number}" if several else _UNNAMED) if each.name is None else each.name
        for number, each in enumerate(features, start=1)
    ]
    aois = tuple(_aoi(each, name) for each, name in zip(features, names, strict=True))
    seen: dict[str, int] = {}
    for number, aoi in enumerate(aois):
        first = seen.setdefault(name_key(aoi.id), number)
        if first != number:
            subjects = dict.fromkeys((features[first].subject, features[number].subject))
            problem = f"features '{names[first]}' and '{names[number]}' would both be written as '{aoi.id}'"
            raise AOIError(" and ".join(subjects), problem, _UNIQUE)
    return aois


def _aoi(feature: Feature, name: str) -> AOI:
    from odc.geo.geom import Geometry

    subject = feature.subject if feature.name is None else f"{feature.subject}, feature '{name}'"
    if feature.geometry is None:
        raise AOIError(subject, "has an empty geometry", "Draw its polygon or remove it")
    aoi_id = file_name(name)
    if not aoi_id:
        raise AOIError(subject, "has an id with no letter or digit", "Choose another property by --aoi-id")
    try:
        aoi = AOI(aoi_id, Geometry(feature.geometry, feature.crs))
    except AOIError as error:
        raise replace(error, subject=subject) from None
    west, _, east, _ = aoi.bounds_lonlat
    if west > east:
        log.info("%s crosses the antimeridian: it goes from %.6g to %.6g degrees east", aoi_id, west, east)
    return aoi
