"""The examples in docstrings of public functions run, offline, on the demo's archive."""

import doctest
import inspect
from pathlib import Path

import pytest

import s2cube
from s2cube.demo.archive import Archive

WITHOUT = {"S2CubeError"}
"""It is caught, not called."""


@pytest.fixture
def demo_folder(archive: Archive, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command demo leaves, and a cluster for the run."""
    (tmp_path / "s2cube-demo").mkdir()
    (tmp_path / "s2cube-demo" / "archive").symlink_to(archive.items.parent)
    monkeypatch.setenv("S2CUBE_CLUSTER__SCHEDULER", scheduler)


@pytest.mark.parametrize("name", sorted(set(s2cube.__all__) - WITHOUT))
@pytest.mark.usefixtures("demo_folder")
def test_examples(name: str) -> None:
    text = inspect.getdoc(getattr(s2cube, name)) or ""
    assert "Examples\n--------\n" in text
    run_examples(text, name)


@pytest.mark.usefixtures("demo_folder")
def test_the_package_shows_each_public_name() -> None:
    text = s2cube.__doc__ or ""
    code = "".join(each.source for each in doctest.DocTestParser().get_examples(text))
    assert [name for name in s2cube.__all__ if f"s2cube.{name}" not in code or f"`{name}`" not in text] == []
    run_examples(text, "s2cube")


def run_examples(text: str, name: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, None, None)
    assert test.examples
    problems: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=problems.append)
    if problems:
        pytest.fail("".join(problems), pytrace=False)
