"""Solve many small symmetric systems of equations at once."""

import numpy as np

_LEAST_PIVOT = {"float32": 1e-7, "float64": 1e-13}
"""Least pivot, relative to the trace. If all spectra of a cell are on one line, the matrix is singular."""


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive system for each cell by Cholesky's method without roots (LDL).

    Parameters
    ----------
    matrix
        Dims (row, column, cell). Only the lower half is read. The function overwrites it.
    right
        Dims (row, cell).

    Returns
    -------
    ndarray
        Dims (row, cell).
    """
    size, solved = len(matrix), right.copy()
    least = np.trace(matrix) * matrix.dtype.type(_LEAST_PIVOT[matrix.dtype.name])
    for j in range(size):
        matrix[j, j] = np.maximum(matrix[j, j], least)
        below = matrix[j + 1 :, j].copy()
        matrix[j + 1 :, j] /= matrix[j, j]
        for i in range(j + 1, size):
            matrix[i, j + 1 : i + 1] -= matrix[i, j] * below[: i - j]
        solved[j + 1 :] -= matrix[j + 1 :, j] * solved[j]
    for j in range(size):
        solved[j] /= matrix[j, j]
    for j in reversed(range(size)):
        solved[:j] -= matrix[j, :j] * solved[j]
    return solved
