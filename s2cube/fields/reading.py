"""Read very many areas of interest in batches of columns."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from geopandas.array import GeometryDtype

from s2cube.area.areas import read_features
from s2cube.area.features import Features, Options, complete_names, make_aoi, parse_crs
from s2cube.errors import AOIError
from s2cube.fetch.store import Access
from s2cube.fields._boxes import Box, Boxes
from s2cube.fields._checks import check_names, checked_fields, text_array
from s2cube.fields._geoparquet import BATCH_ROWS, GeoParquet, geoparquet_address, open_geoparquet
from s2cube.fields.fields import Fields, InvalidField

if TYPE_CHECKING:
    from s2cube.area.aoi import AOI
    from s2cube.area.areas import AreaLike


@dataclass(frozen=True, eq=False)
class FieldBatch:
    """Some of the areas of a source.

    Parameters
    ----------
    fields
        The valid areas, all in one CRS.
    attributes
        The own columns of the source for these fields, without the geometry. Batches of one file have one schema.
    invalid
        The features that cannot be areas of interest, with the reasons.
    """

    fields: Fields
    attributes: pa.Table
    invalid: tuple[InvalidField, ...]


def read_fields(
    area: "AreaLike",
    id_property: str | None = None,
    *,
    layer: str | int | None = None,
    crs: object = None,
    within: Sequence[Box] | None = None,
    access: Access | None = None,
) -> Iterator[FieldBatch]:
    """Read areas of interest in batches, in their order.

    A GeoParquet file is read by row groups and columns, so that memory does not grow with its size. Any other source
    is read at once. A feature that cannot be an area of interest is reported, and the others are read.

    Parameters
    ----------
    area, id_property, layer, crs
        As in `read_aois`. Also the address of a GeoParquet file: ``https://``, ``s3://``, ``gs://`` or ``az://``.
    within
        Boxes (west, south, east, north), degrees, such as those of scenes. Only areas whose boxes meet one of them are
        returned. Of a GeoParquet file with the boxes of its rows (column ``bbox``, GeoParquet 1.1), other row groups
        are not read, and other rows are not decoded; so their geometries are not checked. None: all areas.
    access
        How remote files are read. Default: without keys of particular stores.

    Returns
    -------
    iterator of FieldBatch
        Batches of at most 65536 features. The ids and shapes are those of `read_aois`.

    Raises
    ------
    AOIError
        If the source cannot be read, or has no features or no CRS, or if two ids result in the same file name. The ids
        of all features are checked before the first batch is returned. Later, if a part of the file cannot be read.

    Examples
    --------
    >>> import shapely
    >>> from s2cube.fields.reading import read_fields
    >>> (batch,) = read_fields([shapely.box(10, 50, 10.1, 50.1), shapely.Point(10, 50)])
    >>> list(batch.fields.ids), [str(each.error) for each in batch.invalid]
    (['area_1'], ['Point 2 of the list: is a Point, not a polygon. Buffer it, or draw its area'])
    """
    boxes = None if within is None else Boxes(within)
    options = Options(id_property, layer, parse_crs(crs))
    address = geoparquet_address(area) if layer is None else None
    opened = open_geoparquet(address, options, access or Access()) if address else None
    if opened is not None:
        check_names(opened.names)
        return _within(_of_geoparquet(opened, boxes), boxes)
    sources = read_features(area, id_property, crs=crs, layer=layer)
    names = [text_array(each) for each in complete_names(sources)]
    check_names(lambda: [(source.subject, texts) for source, texts in zip(sources, names, strict=True)])
    return _within(_of_features(sources, names), boxes)


def check_columns(columns: Iterable[str], reserved: Collection[str], subject: str) -> None:
    """Check that no column of a file has the name of a column that s2cube writes beside it.

    Parameters
    ----------
    reserved
        Names of the columns of s2cube. Upper and lower case are the same, as in SQL.
    subject
        Subject of the error: the file.

    Raises
    ------
    AOIError
        If a column has such a name.

    Examples
    --------
    >>> from s2cube.fields.reading import check_columns
    >>> check_columns(["crop", "Date"], {"aoi", "date"}, "fields.parquet")
    Traceback (most recent call last):
        ...
    s2cube.errors.AOIError: fields.parquet: has a column 'Date', and s2cube writes a column of this name. Rename it, ...
    """
    keys = {name.casefold() for name in reserved}
    for column in columns:
        if column.casefold() in keys:
            problem = f"has a column '{column}', and s2cube writes a column of this name"
            raise AOIError(subject, problem, f"Rename it, for example to '{column}_of_field'")


def _within(batches: Iterable[FieldBatch], boxes: Boxes | None) -> Iterator[FieldBatch]:
    """Yield batches without the fields that meet no box, and no empty batches."""
    for batch in batches:
        found = batch
        if boxes is not None:
            is_near = boxes.met_by(batch.fields.bounds_lonlat)
            found = FieldBatch(batch.fields.take(is_near), batch.attributes.filter(pa.array(is_near)), batch.invalid)
        if len(found.fields) or found.invalid:
            yield found


def _of_geoparquet(file: GeoParquet, boxes: Boxes | None) -> Iterator[FieldBatch]:
    for features, names, properties in file.batches(boxes):
        yield _batch([_Piece(features, 0, len(features), names, properties)])


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some features of a source, their names and their properties."""

    features: Features
    first: int
    count: int
    names: pa.StringArray
    properties: pa.Table


def _of_features(sources: Sequence[Features], names: Sequence[pa.StringArray]) -> Iterator[FieldBatch]:
    """Yield batches of features that are in memory. A list may have very many sources, of one feature each."""
    pieces: list[_Piece] = []
    for piece in _pieces(sources, names):
        full = sum(each.count for each in pieces) + piece.count > BATCH_ROWS
        if pieces and (full or not _fit(pieces[0], piece)):
            yield _batch(pieces)
            pieces = []
        pieces.append(piece)
    yield _batch(pieces)


def _pieces(sources: Sequence[Features], names: Sequence[pa.StringArray]) -> Iterator[_Piece]:
    for source, texts in zip(sources, names, strict=True):
        table = _table(source)
        for first in range(0, len(source), BATCH_ROWS):
            count = min(BATCH_ROWS, len(source) - first)
            yield _Piece(source, first, count, texts.slice(first, count), table.slice(first, count))


def _fit(one: _Piece, other: _Piece) -> bool:
    """Return whether pieces can be of one batch."""
    crs, other_crs = one.features.crs, other.features.crs
    return (crs is other_crs or crs == other_crs) and bool(one.properties.schema.equals(other.properties.schema))


def _batch(pieces: Sequence[_Piece]) -> FieldBatch:
    ends = np.cumsum([each.count for each in pieces])
    names = pa.concat_arrays([each.names for each in pieces])
    shapes = np.empty(len(names), object)
    for piece, end in zip(pieces, ends, strict=True):
        shapes[end - piece.count : end] = piece.features.shapes[piece.first : piece.first + piece.count]

    def make(position: int) -> "AOI":
        number = int(np.searchsorted(ends, position, "right"))
        piece = pieces[number]
        return make_aoi(piece.features, piece.first + position - ends[number] + piece.count, names[position].as_py())

    fields, kept, invalid = checked_fields(shapes, pieces[0].features.crs, names, make)
    if pieces[0].properties.column_names:
        attributes = pa.concat_tables([each.properties for each in pieces]).take(pa.array(kept))
    else:
        attributes = _without_columns(len(kept))
    return FieldBatch(fields, attributes, invalid)


def _table(source: Features) -> pa.Table:
    columns = {name: _column(values) for name, values in source.properties.items()}
    return pa.table(columns) if columns else _without_columns(len(source))


def _without_columns(rows: int) -> pa.Table:
    return pa.table({"row": pa.nulls(rows)}).select([])


def _column(values: "Sequence[object] | pd.Series[Any]") -> pa.Array:
    """Return values as a column. Values of several types become texts."""
    if isinstance(getattr(values, "dtype", None), GeometryDtype):
        return pa.array(shapely.to_wkb(np.asarray(values)))
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        column = pa.array([None if value is None or value is pd.NA else str(value) for value in values])
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
