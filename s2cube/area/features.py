"""Features of any source: their ids, and the areas of interest that they become."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2cube.area.aoi import AOI
from s2cube.area.names import file_name, name_key
from s2cube.errors import AOIError

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray
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


def parse_crs(value: object) -> "CRS | None":
    """Read a CRS in any notation that PROJ knows; None for None.

    Raises
    ------
    AOIError
        If it is not a CRS.
    """
    if value is None:
        return None
    from odc.geo.crs import CRS

    if isinstance(value, str) and value.upper().endswith((":CRS84", ":4326")):
        # GeoJSON names longitude first by CRS84. The coordinates are those of EPSG:4326 in shapely and GeoJSON.
        return CRS("EPSG:4326")
    try:
        if isinstance(value, bool):
            raise TypeError
        return CRS(value)
    except Exception as error:  # noqa: BLE001  PROJ and the objects of libraries have errors of their own
        problem = f"{value!r} is not a CRS that PROJ knows ({type(error).__name__})"
        raise AOIError("the CRS of the area", problem, "Write it as EPSG:N") from None


@dataclass(frozen=True, eq=False)
class Features:
    """Geometries of one source that will become areas of interest, as columns of equal length.

    Parameters
    ----------
    subject
        Source of the geometries, for errors.
    names
        Ids before they are converted to safe file names. None: it becomes ``area``, with a number if there are several.
    shapes
        Geometries of shapely; None where a feature has none.
    crs
        CRS of the geometries; None: degrees.
    properties
        Values of each property of the source.
    """

    subject: str
    names: Sequence[str | None]
    shapes: "Sequence[BaseGeometry | None] | NDArray[np.object_]"
    crs: "CRS | None"
    properties: "Mapping[str, Sequence[object] | pandas.Series[Any]]" = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


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

    Raises
    ------
    AOIError
        As in `chosen_column`.
    """

    def is_complete(column: str) -> bool:
        return all(value is not None for value in table[column])

    column = chosen_column(table, subject, id_property, is_complete, columns)
    return None if column is None else [str(value) for value in table[column]]


def chosen_column(
    known: Collection[str],
    subject: str,
    id_property: str | None,
    is_complete: Callable[[str], bool],
    columns: Sequence[str] = ID_COLUMNS,
) -> str | None:
    """Return the property that contains the ids; None if there is no property that all features have.

    Parameters
    ----------
    known
        Names of the properties.
    id_property
        Property to use. None: the first of `columns` that all features have.
    is_complete
        Returns whether all features have a property.

    Raises
    ------
    AOIError
        If `id_property` is not known, or if a feature lacks it.
    """
    if id_property is not None and id_property not in known:
        raise AOIError(subject, f"has no property '{id_property}'", f"Its properties: {', '.join(known) or 'none'}")
    for column in columns if id_property is None else (id_property,):
        if column not in known:
            continue
        if is_complete(column):
            return column
        if id_property is not None:
            raise AOIError(subject, f"a feature has no '{id_property}'", "Set this property for every feature")
    return None


def names_of_file(path: Path, length: int) -> list[str]:
    """Return names for the features of a file that no property names."""
    return [path.stem] if length == 1 else [f"{path.stem}_{number}" for number in range(1, length + 1)]


def complete_names(sources: Sequence[Features]) -> list[list[str]]:
    """Return the names of the features of each source. A feature without a name gets one."""
    several = sum(map(len, sources)) > 1
    unnamed = (f"{_UNNAMED}_{number}" if several else _UNNAMED for number in count(start=1))
    return [[own if name is None else name for name, own in zip(each.names, unnamed, strict=False)] for each in sources]


def make_aois(sources: Sequence[Features]) -> tuple[AOI, ...]:
    """Check features and make an area of interest of each.

    Raises
    ------
    AOIError
        If a geometry cannot be an area of interest, or if two ids result in the same file name.
    """
    places = [(source, position) for source in sources for position in range(len(source))]
    names = [name for of_source in complete_names(sources) for name in of_source]
    aois = tuple(make_aoi(*place, name) for place, name in zip(places, names, strict=True))
    seen: dict[str, int] = {}
    for number, aoi in enumerate(aois):
        first = seen.setdefault(name_key(aoi.id), number)
        if first != number:
            subjects = (places[first][0].subject, places[number][0].subject)
            raise same_file_name(subjects, (names[first], names[number]))
    return aois


def same_file_name(subjects: Sequence[str], names: tuple[str, str]) -> AOIError:
    """Return the error about two features whose names result in the same file name; see `name_key`."""
    problem = f"features '{names[0]}' and '{names[1]}' would both be written as '{file_name(names[1])}'"
    return AOIError(" and ".join(dict.fromkeys(subjects)), problem, _UNIQUE)


def checked_id(subject: str, name: str) -> str:
    """Return the id of a feature.

    Raises
    ------
    AOIError
        If its name has no character that an id may have.
    """
    if aoi_id := file_name(name):
        return aoi_id
    raise AOIError(subject, "has an id with no letter or digit", "Choose another property by --aoi-id")


def make_aoi(features: Features, position: int, name: str) -> AOI:
    """Make an area of interest of a feature.

    Parameters
    ----------
    name
        Its name, see `complete_names`.

    Raises
    ------
    AOIError
        If the geometry cannot be an area of interest, or if the name cannot be an id.
    """
    from odc.geo.geom import Geometry

    shape = features.shapes[position]
    subject = features.subject if features.names[position] is None else f"{features.subject}, feature '{name}'"
    if shape is None:
        raise AOIError(subject, "has an empty geometry", "Draw its polygon or remove it")
    aoi_id = checked_id(subject, name)
    try:
        aoi = AOI(aoi_id, Geometry(shape, features.crs))
    except AOIError as error:
        raise replace(error, subject=subject) from None
    west, _, east, _ = aoi.bounds_lonlat
    if west > east:
        log.info("%s crosses the antimeridian: it goes from %.6g to %.6g degrees east", aoi_id, west, east)
    return aoi
