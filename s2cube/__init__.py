"""s2cube: a polygon in, analysis-ready Sentinel-2 out."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# Bound here and now, for `s2cube.search` is the function, not the module of that name.
from s2cube.search import search_items as search

if TYPE_CHECKING:
    from s2cube.aoi import read_aoi, read_aois
    from s2cube.config import JobConfig
    from s2cube.errors import S2CubeError
    from s2cube.image import open_cube, write_cogs
    from s2cube.pipeline import run
    from s2cube.source import save_items

__version__ = version("s2cube")

__all__ = [
    "JobConfig",
    "S2CubeError",
    "load_config",
    "open_cube",
    "read_aoi",
    "read_aois",
    "run",
    "save_items",
    "search",
    "write_cogs",
]

_HOMES = {
    "JobConfig": "config",
    "S2CubeError": "errors",
    "load_config": "settings",
    "open_cube": "image",
    "read_aoi": "aoi",
    "read_aois": "aoi",
    "run": "pipeline",
    "save_items": "source",
    "write_cogs": "image",
}


def __getattr__(name: str) -> Any:
    # What needs numpy and its friends is imported when it is used, so that `import s2cube` takes no time.
    if name not in _HOMES:
        raise AttributeError(f"module 's2cube' has no attribute '{name}'")
    return getattr(import_module(f"s2cube.{_HOMES[name]}"), name)
