"""Check many features at once, and make fields of them. Only odd ones become areas of interest one by one."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from odc.geo.crs import CRS

from s2cube.area.aoi import AOI, named_by_code
from s2cube.area.features import checked_id, same_file_name
from s2cube.area.names import file_names, name_keys
from s2cube.errors import AOIError
from s2cube.fields.fields import LONLAT, Fields, InvalidField, centres_of, plain_lonlat

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)

Named = tuple[str, pa.StringArray]
"""Subject of features, for errors, and their names."""


def check_names(named: Callable[[], Iterable[Named]]) -> None:
    """Check that each name results in an id, and that no two result in the same file name.

    Parameters
    ----------
    named
        Function that returns all names in parts. It is called again if two names may be the same. Only 8 bytes of each
        name are kept.

    Raises
    ------
    AOIError
        If a name has no character that an id may have, or if two names result in the same file name.
    """
    hashes = [_hashes(subject, names) for subject, names in named()]
    ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    suspicious = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(suspicious):
        return
    seen: dict[str, tuple[str, str]] = {}
    for (subject, names), of_part in zip(named(), hashes, strict=True):
        some = names.filter(pa.array(np.isin(of_part, suspicious)))
        for name, key in zip(some.to_pylist(), name_keys(file_names(some)).to_pylist(), strict=True):
            if key in seen:
                first_subject, first_name = seen[key]
                raise same_file_name((first_subject, subject), (first_name, name))
            seen[key] = subject, name


def _hashes(subject: str, names: pa.StringArray) -> "NDArray[np.uint64]":
    """Return a hash of the key of each name."""
    ids = file_names(names)
    for name in names.filter(pc.equal(ids, "")).to_pylist():
        checked_id(f"{subject}, feature '{name}'", name)
    hashes: NDArray[np.uint64] = pd.util.hash_array(name_keys(ids).to_numpy(zero_copy_only=False), categorize=False)
    return hashes


def text_array(texts: Sequence[str]) -> pa.StringArray:
    """Return texts as a column. Halves of surrogate pairs, which are not Unicode, are replaced."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([each.encode(errors="replace").decode() for each in texts], pa.string())


def checked_fields(
    shapes: "NDArray[np.object_]", crs: CRS | None, names: pa.StringArray, make: Callable[[int], AOI]
) -> tuple[Fields, "NDArray[np.intp]", tuple[InvalidField, ...]]:
    """Make fields of features, as `make_aois` makes areas of interest.

    Parameters
    ----------
    shapes
        Geometries of shapely; None where a feature has none.
    crs
        None: degrees.
    names
        Names of the features; see `complete_names`.
    make
        Makes the area of interest of one feature; see `make_aoi`.

    Returns
    -------
    Fields
        In the CRS of the features.
    ndarray of int
        Position of each field among the features, ascending.
    tuple of InvalidField
        The other features.
    """
    crs = LONLAT if crs is None else named_by_code(crs)
    ids: NDArray[np.object_] = file_names(names).to_numpy(zero_copy_only=False)
    shapes, lonlat, is_plain = _plain_shapes(shapes, crs)
    bounds, centres = shapely.bounds(lonlat), centres_of(lonlat)
    invalid = []
    is_field = is_plain.copy()
    for position in np.flatnonzero(~is_plain).tolist():
        try:
            aoi = make(position)
        except AOIError as error:
            invalid.append(InvalidField(ids[position], error))
            continue
        is_field[position] = True
        shapes[position], bounds[position], centres[position] = _columns_of(aoi)
    fields = Fields(ids, shapes, str(crs), bounds, centres).take(is_field)
    return fields, np.flatnonzero(is_field), tuple(invalid)


def _columns_of(aoi: AOI) -> tuple[object, "NDArray[np.float64]", "NDArray[np.float64]"]:
    one = Fields.of_aois([aoi])
    return one.shapes[0], one.bounds_lonlat[0], one.centres_lonlat[0]


def _plain_shapes(
    shapes: "NDArray[np.object_]", crs: CRS
) -> tuple["NDArray[np.object_]", "NDArray[np.object_]", "NDArray[np.bool_]"]:
    """Return shapes without heights, the same in degrees, and whether each is plain: certainly a valid area."""
    is_plain = np.isin(shapely.get_type_id(shapes), _POLYGONS) & ~shapely.is_empty(shapes)
    flat = shapes.copy()
    has_more = is_plain & (shapely.get_coordinate_dimension(shapes) > 2)
    flat[has_more] = shapely.force_2d(shapes[has_more])
    is_plain[is_plain] = shapely.is_valid(flat[is_plain])
    lonlat = np.full(len(shapes), None, object)
    lonlat[is_plain], is_plain[is_plain] = plain_lonlat(flat[is_plain], crs)
    return flat, lonlat, is_plain
