"""Compute spectral indices from reflectance, and pack them: pure functions of arrays."""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from s2cube.config.literals import Dtype
from s2cube.kernels.packing import PACKINGS
from s2cube.spectral_indices import known_indices

LARGEST_INT16 = 3.2767
"""Largest absolute value of an index that int16 stores, as index × 10000."""

_CELLS_AT_ONCE = 1 << 15

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def index_values(reflectance: np.ndarray, bands: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Compute spectral indices from reflectance.

    Parameters
    ----------
    reflectance
        Dims (band, …), float32, NaN where there is no value.
    bands
        Names of the bands in `BAND_ASSETS`, in the order of `reflectance`. Bands that no formula needs are ignored.
    names
        Names of the indices, in the spelling of the catalogue.

    Returns
    -------
    numpy.ndarray
        Dims (index, …), float32. NaN where a band of the formula has no value, where the formula divides by zero, and
        where its result is not a finite number for another reason.

    Examples
    --------
    >>> red, nir = [0.25, 0.0, np.nan], [0.75, 0.0, 0.3]
    >>> index_values(np.array([red, nir], "float32"), ["red", "nir"], ["NDVI"])
    array([[0.5, nan, nan]], dtype=float32)
    """
    cells = np.ascontiguousarray(reflectance, "float32").reshape(len(bands), -1)
    values = np.empty((len(names), cells.shape[1]), "float32")
    # Compute a few cells at a time, so that intermediate arrays stay in the processor's cache.
    for first in range(0, cells.shape[1], _CELLS_AT_ONCE):
        part = cells[:, first : first + _CELLS_AT_ONCE]
        for row, name in zip(values, names, strict=True):
            index = known_indices()[name]
            symbols: dict[str, Any] = {symbol: part[bands.index(band)] for symbol, band in index.bands.items()}
            with np.errstate(all="ignore"):
                found = _evaluate(_parsed(index.formula), symbols | dict(index.constants))
            row[first : first + _CELLS_AT_ONCE] = np.where(np.isfinite(found), found, np.float32(np.nan))
    return values.reshape(len(names), *reflectance.shape[1:])


def pack_index(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Pack indices, float32 with NaN, as pixels of an image.

    Returns
    -------
    numpy.ndarray
        float32: unchanged. int16: index × 10000, nodata -9999 where there is no value, or one beyond
        `LARGEST_INT16`. An index that rounds to -0.9999, the nodata value, becomes the nearer of -0.9998 and -1.

    Examples
    --------
    >>> pack_index(np.array([0.5, -1, -0.99992, -0.99988, 3.3, np.nan], "float32"), "int16").tolist()
    [5000, -10000, -10000, -9998, -9999, -9999]
    """
    if dtype == "float32":
        return values
    nodata = int(PACKINGS[dtype].nodata)
    scaled = values * np.float32(10_000)
    rounded = np.rint(scaled)
    collides = rounded == nodata
    if collides.any():
        rounded = np.where(collides, np.where(scaled > nodata, nodata + 1, nodata - 1), rounded)
    is_nodata = np.isnan(values) | beyond_int16(values)
    return np.where(is_nodata, np.float32(nodata), rounded).astype(dtype)


def beyond_int16(values: np.ndarray) -> np.ndarray:
    """Return where an index, float32, has a value that int16 cannot store."""
    return np.asarray(np.abs(values) > np.float32(LARGEST_INT16))


class BeyondInt16:
    """Counts cells whose index int16 cannot store, chunk by chunk, in any order and by any thread."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, tuple[int, ...]], int] = {}

    def add(self, name: str, chunk: tuple[int, ...], cells: int) -> None:
        """Add the cells of a chunk. A chunk that is added again counts once."""
        self._parts[name, chunk] = cells

    @property
    def cells(self) -> dict[str, int]:
        """Number of cells of each index that has such cells."""
        found: dict[str, int] = {}
        for (name, _), count in self._parts.items():
            if count:
                found[name] = found.get(name, 0) + count
        return found

    def __dask_tokenize__(self) -> int:
        return id(self)


@lru_cache(512)
def _parsed(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


def _evaluate(node: ast.expr, symbols: Mapping[str, Any]) -> Any:
    """Compute a part of a formula. Arrays are float32; numbers of Python do not change this."""
    match node:
        case ast.Name():
            return symbols[node.id]
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluate(node.operand, symbols)
        case ast.BinOp():
            found = _OPERATORS[type(node.op)](_evaluate(node.left, symbols), _evaluate(node.right, symbols))
            if isinstance(node.op, ast.Div | ast.Pow) and isinstance(found, np.ndarray):
                # A later division by infinity would give a number.
                found = np.where(np.isfinite(found), found, np.float32(np.nan))
            return found
    raise ValueError(f"{ast.unparse(node)} is no arithmetic")
