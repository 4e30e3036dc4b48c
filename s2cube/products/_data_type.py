"""Choose the data type and the nodata value of the files of an array."""

import math

import numpy as np
import xarray as xr

from s2cube.cube.facts import SOURCE
from s2cube.errors import OutputError
from s2cube.kernels.packing import PACKINGS, Packing

_NODATA = -9999
"""Nodata of signed integers whose nodata is not known. The cubes of open_cube have the same."""


def in_type_of_files(cube: xr.DataArray) -> tuple[xr.DataArray, Packing]:
    """Return an array of a dtype that a file can have, and its packing. NaN is nodata of floats."""
    of_cube, filled = PACKINGS.get(cube.dtype.name), cube.encoding.get("_FillValue")
    if cube.encoding.get("source") == SOURCE and of_cube and of_cube.holes(filled):
        return cube, of_cube
    kind, nodata = cube.dtype.kind, cube.attrs.get("_FillValue")
    if kind == "b":
        return cube.astype("uint8"), Packing(1, math.nan, "0 is false, 1 is true", unit=None)
    if kind == "f":
        floats = cube if nodata is None else cube.where(cube != nodata)
        size = "float32" if cube.dtype.itemsize < 4 else "float64" if cube.dtype.itemsize > 8 else cube.dtype
        return floats.astype(size), Packing(1, math.nan, "values of a cube", unit=None)
    if kind not in "iu":
        raise OutputError("the cube", f"has the dtype {cube.dtype}", "Convert it to numbers: cube.astype('float32')")
    limits = np.iinfo(cube.dtype)
    known = [each for each in (filled, nodata, _NODATA) if each is not None and limits.min <= each <= limits.max]
    return cube, Packing(1, int(known[0]) if known else math.nan, "values of a cube", unit=None)
