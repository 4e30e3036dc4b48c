"""Keep very many fields in a temporary file, sorted by a key, so that memory does not grow with their number."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import shapely

from s2cube.errors import WriteError
from s2cube.fields.fields import Fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "shape": pa.large_binary(),
        "bounds": pa.list_(pa.float64(), 4),
        "centre": pa.list_(pa.float64(), 2),
    }
)


@dataclass(frozen=True, eq=False)
class _Index:
    """Where the fields of a batch are.

    Parameters
    ----------
    keys
        The keys in the batch, ascending.
    first
        Row of the first field of each key, and the number of rows.
    """

    keys: "NDArray[Any]"
    first: "NDArray[np.int32]"
    crs: str


class FieldSpool:
    """Fields by key, in a temporary file.

    A context manager, which deletes the file. First all batches are added, then fields are read by key. Only a few
    bytes for each batch and key are kept in memory.

    Parameters
    ----------
    folder
        Folder of the file. Default: the folder for temporary files.

    Examples
    --------
    >>> import numpy as np
    >>> import shapely
    >>> from s2cube.area.aoi import AOI
    >>> from s2cube.fields.fields import Fields
    >>> from s2cube.fields.spool import FieldSpool
    >>> fields = Fields.of_aois([AOI(name, shapely.box(10, 50, 11, 51)) for name in ("a", "b", "c")])
    >>> with FieldSpool() as spool:
    ...     spool.add(fields, np.array([7, 3, 7]))
    ...     print(spool.keys(), spool.fields(7).ids)
    [3 7] ['a' 'c']
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = TemporaryDirectory(prefix="s2cube-fields-", dir=folder)
        self._path = Path(self._folder.name) / "fields.arrow"
        self._writer: Any = None
        self._reader: Any = None
        self._indices: list[_Index] = []

    @property
    def folder(self) -> Path:
        """The temporary folder, also for other files. It is deleted at the end."""
        return Path(self._folder.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader = self._writer = None
        self._folder.cleanup()

    def add(self, fields: Fields, keys: "NDArray[Any]") -> None:
        """Add fields.

        Parameters
        ----------
        keys
            Key of each field: integers, or texts as a numpy array of texts. All fields of a key must have one CRS.

        Raises
        ------
        WriteError
            If the file cannot be written.
        """
        if self._reader is not None:
            raise ValueError("the spool is already read")
        if not len(fields):
            return
        order = np.argsort(keys, kind="stable")
        found, first = np.unique(keys[order], return_index=True)
        try:
            if self._writer is None:
                self._writer = pa.ipc.new_file(str(self._path), _SCHEMA)
            self._writer.write_batch(_record(fields.take(order)))
        except OSError as error:
            raise self._write_error(error) from None
        self._indices.append(_Index(found, np.append(first, len(fields)).astype(np.int32), fields.crs))

    def keys(self) -> "NDArray[Any]":
        """Return all keys, ascending."""
        parts = [index.keys for index in self._indices]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def fields(self, key: object) -> Fields:
        """Return the fields of a key, in the order in which they were added.

        Raises
        ------
        KeyError
            If no field has the key.
        ValueError
            If the fields of the key have several CRSs.
        """
        parts, names = [], set()
        for number, index in enumerate(self._indices):
            position = int(np.searchsorted(index.keys, np.asarray(key)))
            if position < len(index.keys) and index.keys[position] == key:
                first, end = index.first[position : position + 2].tolist()
                parts.append(self._open().get_batch(number).slice(first, end - first))
                names.add(index.crs)
        if not parts:
            raise KeyError(key)
        if len(names) > 1:
            raise ValueError(f"the fields of {key!r} have several CRSs: {', '.join(sorted(names))}")
        table = pa.Table.from_batches(parts).combine_chunks()
        (crs,) = names
        return _fields(table, crs)

    def _open(self) -> Any:
        """Return the reader of the file. It reads the parts that are needed by a memory map."""
        if self._reader is None:
            try:
                self._writer.close()
            except OSError as error:
                raise self._write_error(error) from None
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        return self._reader

    def _write_error(self, error: OSError) -> WriteError:
        remedy = "Free space there, or choose another folder for temporary files by the variable TMPDIR"
        return WriteError(str(self._path), f"cannot be written ({error})", remedy)


def _record(fields: Fields) -> pa.RecordBatch:
    columns = [
        pa.array(fields.ids, pa.string()),
        pa.array(shapely.to_wkb(fields.shapes), pa.large_binary()),
        pa.FixedSizeListArray.from_arrays(pa.array(fields.bounds_lonlat.ravel()), 4),
        pa.FixedSizeListArray.from_arrays(pa.array(fields.centres_lonlat.ravel()), 2),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _fields(table: pa.Table, crs: str) -> Fields:
    ids, wkb, bounds, centres = (table[name].combine_chunks() for name in _SCHEMA.names)
    return Fields(
        ids.to_numpy(zero_copy_only=False),
        shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)),
        crs,
        bounds.flatten().to_numpy().reshape(-1, 4).copy(),
        centres.flatten().to_numpy().reshape(-1, 2).copy(),
    )
