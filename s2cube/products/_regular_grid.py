"""Bring an array into the form of an image: on a regular grid, north up."""

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import spatial_dims, xr_coords

from s2cube.errors import OutputError


def on_regular_grid(cube: xr.DataArray) -> xr.DataArray:
    """Name the dimensions of the grid y and x, move them to the end, and turn the image north up.

    Raises
    ------
    OutputError
        If the array has no regular grid with coordinates, or no CRS with an EPSG code.
    """
    remedy = "Keep the coordinates of its pixels, evenly spaced, and its CRS: cube.rio.write_crs('EPSG:N')"
    # A part of a grid without coordinates could be anywhere.
    found = spatial_dims(cube, relaxed=True) or ()
    dims = [str(name) for name in found if name in cube.coords and cube[name].dtype.kind in "iuf"]
    if len(dims) != 2:
        names = ", ".join(map(str, cube.dims))
        raise OutputError("the cube", f"has no grid with coordinates; its dimensions are {names}", remedy)
    (down, across), coords = dims, cube.coords
    # odc-geo takes a grid from the first and the last coordinate.
    for name in dims:
        steps = np.diff(coords[name].values.astype(float))
        if steps.size and (not steps[0] or not np.allclose(steps, steps[0], rtol=1e-3, atol=0)):
            raise OutputError("the cube", f"is not on a regular grid: its coordinates {name} are uneven", remedy)
    cube = cube.isel({
        name: slice(None, None, -1)
        for name, sign in ((down, -1), (across, 1))
        if cube.sizes[name] > 1 and sign * float(coords[name][-1] - coords[name][0]) < 0
    })  # fmt: skip
    geobox = cube.odc.geobox
    if not isinstance(geobox, GeoBox) or geobox.crs is None or not geobox.axis_aligned:
        raise OutputError("the cube", "has no CRS, or its grid is rotated", remedy)
    if geobox.crs.epsg is None:
        raise OutputError("the cube", "has a CRS without an EPSG code", "Reproject it to one that has a code")
    cube = cube.rename({down: "y", across: "x"}).transpose(..., "y", "x")
    grid_coords = {str(name): value for name, value in xr_coords(geobox, dims=("y", "x")).items()}
    return cube.drop_vars(set(grid_coords) & set(cube.coords)).assign_coords(grid_coords)
