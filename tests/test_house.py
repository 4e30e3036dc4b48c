"""The house: what imports what, what stays light, what is public."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import s2cube

PACKAGE = Path(s2cube.__file__).parent
LEVELS = {
    0: {
        "antimeridian", "archives", "cells", "codec", "errors", "geotiff", "made", "outcome", "packing",
        "paths", "plain", "qa", "resample", "room", "shape", "times",
    },
    1: {"document", "draft", "folder", "members", "model", "network", "offset_check", "outline", "record", "shelf"},
    2: {"aoi", "config", "connections", "grid", "level"},
    3: {"cluster", "cog", "settings", "web"},
    4: {"refusal", "remote", "s3", "sign", "stream"},
    5: {"bucket", "scene", "stac_io", "store"},
    6: {"granules", "items", "pages", "place", "provider", "question", "ranged_file", "tiff"},
    7: {"assets", "demo", "gdal_file", "item", "output", "picture", "service", "static", "tiles"},
    8: {"catalog", "chunk", "completeness", "lease", "overwrite", "placement", "recipe", "source"},
    9: {"api", "comparison", "mask", "memory", "mosaic", "plan", "reader", "verification"},
    10: {"cost", "cube", "files", "search"},
    11: {"image", "job"},
    12: {"voice", "worker"},
    13: {"flags", "pipeline", "table"},
    14: {"looking", "submit"},
    15: {"cli"},
}  # fmt: skip
# The doors of the house, which open onto every room.
DOORS = {"__init__", "__main__"}
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}


def imports(path: Path) -> set[str]:
    """Name the modules of s2cube that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "s2cube":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("s2cube.")}
    return found


def test_every_file_has_its_level() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - DOORS == set(LEVEL_OF)


@pytest.mark.parametrize("name", sorted(LEVEL_OF))
def test_imports_go_down(name: str) -> None:
    for imported in imports(PACKAGE / f"{name}.py"):
        assert LEVEL_OF[imported] < LEVEL_OF[name], f"{name} imports {imported}"


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("stackstac", {"cube"}),
        ("distributed", {"cluster", "stream"}),
        ("cyclopts", {"cli", "flags", "looking"}),
        ("obstore", {"remote", "store", "bucket"}),
        ("imagecodecs", {"codec"}),
        ("tifffile", {"tiff"}),
    ],
)
def test_few_files_know_it(library: str, home: set[str]) -> None:
    who = {
        path.stem
        for path in PACKAGE.glob("*.py")
        if re.search(rf"^\s*(from|import) {library}\b", path.read_text(), re.M)
    }
    assert who == home


@pytest.mark.parametrize(
    "code", ["import s2cube", "import s2cube.cli, sys; sys.argv = ['s2cube', '--help']; s2cube.cli.main()"]
)
def test_light(code: str) -> None:
    look = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run([sys.executable, "-c", look + code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "s2cube" in loaded
    assert not loaded & {"dask", "xarray", "rasterio", "pandas", "numpy", "distributed", "stackstac", "geopandas"}


def test_public_names() -> None:
    assert s2cube.__all__ == [
        "JobConfig", "S2CubeError", "load_config", "open_cube", "read_aoi", "read_aois", "run", "save_items", "search",
        "write_cogs",
    ]  # fmt: skip
    assert all(callable(getattr(s2cube, name)) for name in s2cube.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'cubes'"):
        _ = s2cube.cubes


def test_search_is_the_function_whatever_is_imported() -> None:
    import s2cube.pipeline
    import s2cube.search

    assert s2cube.search.__name__ == "search_items"


def test_strict_types_and_style() -> None:
    root = PACKAGE.parent
    for command in (["mypy"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
