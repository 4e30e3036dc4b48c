"""The house: what imports what, which files know a library, what stays light, what is public, how large files are."""

import ast
import pydoc
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import s2cube
from support.house import floors, imports, modules

PACKAGE = Path(s2cube.__file__).parent
FLOORS = (
    "errors", "sentinel2", "spectral_indices", "config", "area", "fetch", "storage", "stac", "scenes", "raster",
    "kernels", "cube", "fields", "products", "output", "inventory", "tables", "report", "progress_bar", "cluster",
    "workers", "jobs", "zonal", "composites", "runs", "updates", "demo", "cli",
)  # fmt: skip
"""Wings and single modules, in the order in which data flows: each imports only those before it."""

MOST_FILES, MOST_LINES, MOST_BODY_LINES = 12, 300, 40


MODULES = dict(modules(PACKAGE))
NEEDS = {name: imports(path, MODULES, PACKAGE.name) for name, path in MODULES.items()}


def wing(module: str) -> str:
    return module.partition(".")[0]


def is_private(module: str) -> bool:
    return module.rpartition(".")[2].startswith("_")


def test_every_wing_has_its_floor() -> None:
    assert {wing(name) for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_or_stay(name: str) -> None:
    for imported in NEEDS[name]:
        if wing(imported) != wing(name):
            assert FLOORS.index(wing(imported)) < FLOORS.index(wing(name)), f"{name} imports {imported}"
            assert not is_private(imported), f"{name} imports {imported}, which is private to its wing"


def test_no_two_modules_import_each_other() -> None:
    assert set(floors(NEEDS)) == set(MODULES)


def test_every_wing_names_its_public_files() -> None:
    used = {each for name, needs in NEEDS.items() for each in needs if wing(each) != wing(name)}
    for name in FLOORS:
        if name not in MODULES or MODULES[name].name != "__init__.py":
            continue
        said = ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""
        files = {each for each in MODULES if each.startswith(f"{name}.") and not is_private(each)}
        assert {f"{name}.{each}" for each in re.findall(r"`(\w+)`", said)} == files
        entry = {"cli.commands"} | {f"{each.partition(':')[0]}" for each in s2cube._HOMES.values()}
        assert files <= used | entry, "a file that no other wing uses is private: its name begins with _"


@pytest.mark.parametrize("name", FLOORS)
def test_no_wing_has_the_name_of_a_public_function(name: str) -> None:
    assert name not in s2cube.__all__


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("stackstac", {"cube.stack"}),
        (
            "distributed",
            {f"cluster.{name}" for name in ("_local", "_versions", "client", "early", "stream", "this_process")},
        ),
        ("cyclopts", {"cli"}),
        ("rich", {"cli", "progress_bar"}),
        ("obstore", {"fetch.object_store", "fetch.store", "storage._bucket"}),
        ("pystac_client", {"stac.api", "stac.question"}),
        ("imagecodecs", {"output._tiff", "output.png", "raster._codec"}),
        ("tenacity", {"fetch.retry"}),
    ],
)
def test_few_files_know_it(library: str, doors: set[str]) -> None:
    """A door is a module, or a whole wing."""
    who = {
        wing(name) if wing(name) in doors else name
        for name, path in MODULES.items() if re.search(rf"^\s*(from|import) {library}\b", path.read_text(), re.M)
    }  # fmt: skip
    assert who == doors


# Exceptions, with their lines. These lists may only become shorter.
LONG_FILES: dict[str, int] = {}
LONG_BODIES: dict[str, int] = {}
LARGE_WINGS: dict[str, int] = {}


def check_sizes(sizes: dict[str, int], most: int, exceptions: dict[str, int]) -> None:
    """Nothing is larger than usual, or than its exception says; no exception is left that none needs."""
    assert {name: size for name, size in sizes.items() if size > max(most, exceptions.get(name, 0))} == {}
    assert [name for name in exceptions if sizes.get(name, 0) <= most] == []


def test_files_are_short() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    check_sizes(lengths, MOST_LINES, LONG_FILES)


def test_wings_are_small() -> None:
    sizes = {name: len(list(path.parent.glob("*.py"))) - 1 for name, path in MODULES.items() if path.stem == "__init__"}
    check_sizes(sizes, MOST_FILES, LARGE_WINGS)


def test_bodies_are_short() -> None:
    lengths = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                if body:
                    lengths[f"{name}.{node.name}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    check_sizes(lengths, MOST_BODY_LINES, LONG_BODIES)


@pytest.mark.parametrize(
    "code",
    ["import s2cube", "import s2cube.cli.commands, sys; sys.argv = ['s2cube', '--help']; s2cube.cli.commands.main()"],
)
def test_light(code: str) -> None:
    look = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run([sys.executable, "-c", look + code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "s2cube" in loaded
    assert not loaded & {"dask", "xarray", "rasterio", "pandas", "numpy", "distributed", "stackstac", "geopandas"}


def test_public_names() -> None:
    assert s2cube.__all__ == [
        "AOI", "JobConfig", "S2CubeError", "composite", "load_config", "open_cube", "open_output", "read_aoi",
        "read_aois", "run", "save_items", "search", "statistics", "write_cogs",
    ]  # fmt: skip
    assert all(callable(getattr(s2cube, name)) for name in s2cube.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'cubes'"):
        _ = s2cube.cubes


def test_editors_and_help_show_the_public_names() -> None:
    """Completion imports no library; help names everything that is public, and nothing else."""
    code = "import s2cube, sys; shown = dir(s2cube); print(*shown, '|', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, loaded = done.stdout.partition("|")
    assert [name for name in shown.split() if not name.startswith("_")] == sorted(s2cube.__all__)
    assert not set(loaded.split()) & {"dask", "xarray", "rasterio", "pandas", "numpy", "geopandas", "shapely"}
    text = pydoc.plain(pydoc.render_doc(s2cube))
    assert all(re.search(rf"^    (class )?{name}\b", text, re.M) for name in s2cube.__all__)


def test_type_checkers_see_the_public_names() -> None:
    """What is imported for type checkers is what `__getattr__` finds."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: f"{(node.module or '').removeprefix('s2cube.')}:{alias.name}"
        for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert seen == s2cube._HOMES
    assert sorted(seen) == sorted(s2cube.__all__)


@pytest.mark.slow
def test_strict_types_and_style() -> None:
    root = PACKAGE.parent
    for command in (["mypy"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by their names, without their folders."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_arrays_are_compared_with_plain_numbers() -> None:
    """numpy takes 12 times as long to compare an array with a member of an enumeration."""
    slow = re.compile(r"[=!]= QA\.[A-Z_]+\b(?!\.value)")
    assert slow.findall("(qa == QA.CLEAR) | (qa != QA.CLEAR.value)") == ["== QA.CLEAR"]
    found = [path.name for path in PACKAGE.rglob("*.py") if slow.search(path.read_text())]
    assert found == []
