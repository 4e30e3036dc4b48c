"""What is written down twice says the same: dependencies, examples."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert names - {"s2cube"} <= held


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
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_notebooks_name_no_place_of_this_machine() -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert not re.search(r"/(home|root|Users|tmp)/", notebook.read_text())
