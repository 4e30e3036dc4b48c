"""s2cube: polygons in, analysis-ready Sentinel-2 out.

The files of these examples are those of the command ``s2cube demo``.

`read_aoi`, `read_aois`: read areas of interest from a file, a GeoDataFrame, a geometry, GeoJSON or a box of degrees.

>>> import s2cube
>>> farm = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
>>> west, east = s2cube.read_aois([(-98.25, 41.08, -98.2, 41.13), (-98.2, 41.08, -98.14, 41.13)])

`AOI`: one area of interest, its id and its geometry.

>>> import shapely
>>> field = s2cube.AOI("field", shapely.box(-98.25, 41.08, -98.14, 41.13))

`search`: find the scenes of an area in a catalogue. `save_items`: save them for later.

>>> items = s2cube.search(farm, stac="s2cube-demo/archive/items.json", datetime="2022-05")
>>> s2cube.save_items(items, "scenes.geojson")

`open_cube`: open scenes as a lazy cube of reflectance, masked and clipped. `write_cogs`: write its days as COGs.

>>> cube = s2cube.open_cube("scenes.geojson", farm, bands=["red", "nir"], resolution=60)
>>> paths = s2cube.write_cogs(cube, "images")

`composite`: make one image of all images of a month, a season, a year or another period.

>>> month = s2cube.composite(cube, period="month", method="median")

`load_config`: read the settings of a job. `JobConfig`: these settings. `run`: run the job.

>>> config = s2cube.load_config({"stac": "scenes.geojson", "bands": "red,nir", "resolution": 60, "out": "out"})
>>> isinstance(config, s2cube.JobConfig)
True
>>> summary = s2cube.run(config, aoi=farm)

`statistics`: compute the statistics of every area and day, as a DataFrame.

>>> rows = s2cube.statistics("scenes.geojson", farm, bands=["red", "nir"])
>>> [round(float(mean), 2) for mean in rows["nir_mean"]]
[0.29]

`open_output`: open what a run or `write_cogs` wrote, as a lazy cube.

>>> again = s2cube.open_output("images")

`S2CubeError`: the base class of all errors. Each names its subject, the problem and the remedy.

>>> try:
...     s2cube.read_aoi("nowhere.geojson")
... except s2cube.S2CubeError as error:
...     print(error.subject, "|", error.problem)
nowhere.geojson | there is no such file
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2cube.area.aoi import AOI
    from s2cube.area.areas import read_aoi, read_aois
    from s2cube.config.loading import load_config
    from s2cube.config.sections import JobConfig
    from s2cube.cube.open_cube import open_cube
    from s2cube.errors import S2CubeError
    from s2cube.inventory.open_output import open_output
    from s2cube.jobs.write_cogs import write_cogs
    from s2cube.products.composite import composite
    from s2cube.runs.run import run
    from s2cube.scenes.search_items import search_items as search
    from s2cube.stac.source import save_items
    from s2cube.zonal.statistics_of import statistics

__version__ = "0.1.0"

DISTRIBUTION = "s2cube-ard"
"""Name of the project for pip and for `importlib.metadata`. On PyPI, "s2cube" is another project."""

__all__ = [
    "AOI",
    "JobConfig",
    "S2CubeError",
    "composite",
    "load_config",
    "open_cube",
    "open_output",
    "read_aoi",
    "read_aois",
    "run",
    "save_items",
    "search",
    "statistics",
    "write_cogs",
]

# The imports for type checkers above contain the same names. A test compares both lists.
_HOMES = {
    "AOI": "area.aoi:AOI",
    "JobConfig": "config.sections:JobConfig",
    "S2CubeError": "errors:S2CubeError",
    "composite": "products.composite:composite",
    "load_config": "config.loading:load_config",
    "open_cube": "cube.open_cube:open_cube",
    "open_output": "inventory.open_output:open_output",
    "read_aoi": "area.areas:read_aoi",
    "read_aois": "area.areas:read_aois",
    "run": "runs.run:run",
    "save_items": "stac.source:save_items",
    "search": "scenes.search_items:search_items",
    "statistics": "zonal.statistics_of:statistics",
    "write_cogs": "jobs.write_cogs:write_cogs",
}


def __getattr__(name: str) -> Any:
    # Import a module only when its name is first used: importing numpy, xarray and dask takes seconds.
    if name not in _HOMES:
        raise AttributeError(f"module 's2cube' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"s2cube.{module}"), attribute)


def __dir__() -> list[str]:
    # Editors complete these names. Modules that happen to be imported are not public.
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
