"""What is written down twice says the same: dependencies, examples."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import s2cube
from support.runs import CommandLine

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"dask[array]": "dask-core"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def test_environment_is_pyproject(project: dict[str, Any]) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *packages, by_pip = environment
    assert by_pip == {"pip": ["--editable ."]}
    wanted = [f"python{project['requires-python']}", "pip"]
    for requirement in project["dependencies"]:
        name = re.match(r"[\w\-\[\]]+", requirement)[0]  # type: ignore[index]
        wanted.append(requirement.replace(name, CONDA_NAMES.get(name, name)))
    assert sorted(packages) == sorted(wanted)


def test_environment_is_understood_by_conda() -> None:
    rattler = pytest.importorskip("rattler", reason="py-rattler is not installed")
    for spec in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        if isinstance(spec, str):
            rattler.MatchSpec(spec)


def test_constraints_hold_every_dependency_and_no_host(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[\w.\-]+==[\w.+!]+(; python_version (<|>=) '3\.12')?", line) for line in lines)
    extras = project["optional-dependencies"]
    held = {line.partition("==")[0] for line in lines}
    needed = [*project["dependencies"], *(each for name in ("test", "docs") for each in extras[name])]
    names = {re.match(r"[\w\-]+", each)[0].lower() for each in needed}  # type: ignore[index]
    assert names - {project["name"]} <= held


def test_the_distribution_has_one_name(project: dict[str, Any]) -> None:
    """s2cube on PyPI is another project."""
    assert project["name"] == s2cube.DISTRIBUTION != "s2cube"
    extras = project["optional-dependencies"]
    own = [each for needed in extras.values() for each in needed if "s2cube" in each]
    assert own
    assert all(re.fullmatch(rf"{s2cube.DISTRIBUTION}\[[\w,]+\]", each) for each in own)
    assert {name for each in own for name in re.findall(r"\w+", each.partition("[")[2])} <= set(extras)


def test_nothing_says_to_install_the_other_project() -> None:
    texts = [*ROOT.glob("*.*"), *ROOT.glob("Makefile")]
    texts += [path for folder in ("s2cube", "docs", "notebooks", ".ci") for path in (ROOT / folder).rglob("*")]
    written = {
        path
        for path in texts
        if path.suffix in {"", ".md", ".py", ".toml", ".txt", ".yml", ".ipynb"} and path.is_file()
    }
    assert ROOT / "README.md" in written
    says_so = re.compile(r"""pip3? +install[^\n`]*?[ '"]s2cube(?![\w./-])""")
    assert says_so.search("pip install --quiet 's2cube[test]'")
    assert [path.name for path in written if says_so.search(path.read_text())] == []


def test_version_names_the_distribution(s2cube_command: CommandLine) -> None:
    expected = f"s2cube {s2cube.__version__} (distribution {s2cube.DISTRIBUTION})\n"
    done = s2cube_command("--version")
    assert (done.status, done.out) == (0, expected)
    assert importlib.metadata.version(s2cube.DISTRIBUTION) == s2cube.__version__


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]
    assert all("# " in line for line in block.splitlines() if line.strip().startswith('"'))


def test_the_example_is_in_nebraska() -> None:
    import geopandas

    west, south, east, north = geopandas.read_file(ROOT / "aoi.geojson").total_bounds
    assert (west, south, east, north) == (-98.23, 41.07, -98.17, 41.13)


def test_the_citation_has_the_version(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (s2cube.__version__, project["license"])


def test_notebooks_name_no_place_of_this_machine() -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert not re.search(r"/(home|root|Users|tmp)/", notebook.read_text())


def test_architecture_names_every_file() -> None:
    """The page lists the files of each wing, so that it is right after each change."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    lists = re.findall(r"^\*\*`(\w+)/`\*\*: .*\n((?:.+\n)+)", text, re.M)
    said = {wing: set(re.findall(r"`(\w+)`(?! and)", files)) for wing, files in lists}
    wings = [path.parent for path in (ROOT / "s2cube").glob("*/__init__.py")]
    assert said == {wing.name: {path.stem for path in wing.glob("*.py")} - {"__init__"} for wing in wings}
    for path in re.findall(r"`(\w+/\w+\.py)`", text):
        assert (ROOT / "s2cube" / path).exists() or (ROOT / path).exists(), path


def test_make_demo_tells_that_it_installs(tmp_path: Path) -> None:
    words = ["make", "--dry-run", "demo", f"VENV={tmp_path}/venv"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    told, installed = (next(n for n, line in enumerate(lines) if text in line) for text in ("installing", "--editable"))
    assert f"installing s2cube in {tmp_path}/venv (about a minute)" in lines[told]
    assert told < installed
