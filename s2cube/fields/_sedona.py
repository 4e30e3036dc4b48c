"""Join fields to footprints with SedonaDB, which writes to disk what exceeds its memory limit."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from s2cube.errors import UsageError, install_remedy
from s2cube.fields.fields import Fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEMORY_LIMIT = "1gb"
"""Memory limit of the join. The project's aim for a million areas is 2 GB for all steps."""

_QUERY = """
SELECT areas.position AS area, scenes.position AS scene FROM areas JOIN scenes
ON ST_Intersects(areas.shape, scenes.shape) WHERE NOT ST_Touches(areas.shape, scenes.shape)
"""


def sedona_join(
    fields: Fields, positions: "NDArray[np.intp]", outlines: "NDArray[np.object_]"
) -> tuple["NDArray[np.int32]", "NDArray[np.int32]"]:
    """Find the footprints that fields intersect, and do not only touch.

    Parameters
    ----------
    positions
        Positions of the fields to join. They do not cross the antimeridian.
    outlines
        Footprints, degrees, longitude first.

    Returns
    -------
    tuple of ndarray
        Positions of fields and of footprints, in any order.

    Raises
    ------
    UsageError
        If SedonaDB is not installed.
    """
    try:
        import sedonadb
    except ImportError:
        raise UsageError("SedonaDB", "is not installed", install_remedy("sedona")) from None
    context = sedonadb.connect()
    context.options.memory_limit = _MEMORY_LIMIT
    for name, numbers, shapes in (
        ("areas", positions, fields.take(positions).whole_lonlat()),
        ("scenes", np.arange(len(outlines)), outlines),
    ):
        context.create_data_frame(_table(numbers, shapes)).to_view(name)
    pairs = pa.table(context.sql(_QUERY))
    return pairs["area"].to_numpy(), pairs["scene"].to_numpy()


def _table(positions: "NDArray[np.intp]", shapes: "NDArray[np.object_]") -> pa.Table:
    kind = {b"ARROW:extension:name": b"geoarrow.wkb", b"ARROW:extension:metadata": b'{"crs": "OGC:CRS84"}'}
    schema = pa.schema([pa.field("position", pa.int32()), pa.field("shape", pa.large_binary(), metadata=kind)])
    return pa.Table.from_arrays(
        [pa.array(positions, pa.int32()), pa.array(shapely.to_wkb(shapes), pa.large_binary())], schema=schema
    )
