"""Files of this machine, by paths and addresses."""

from pathlib import Path

import pytest

from s2cube.fetch.addresses import is_local, local_path


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("a.json", True), ("/a#1/b?c", True), ("file:/a", True), ("file:///a", True), ("FILE://localhost/a", True),
        ("file://other/a", False), ("https://host/a", False), ("ftp://host/a", False), ("s3://bucket/a", False),
    ],
)  # fmt: skip
def test_what_is_of_this_machine(address: str, local: bool) -> None:
    assert is_local(address) == local


@pytest.mark.parametrize("name", ["a b", "a#1", "b?x=1", "50%", "50%25", "Ä"])
@pytest.mark.parametrize("start", ["", "file:", "file://", "file://localhost"])
def test_as_it_is_written(tmp_path: Path, name: str, start: str) -> None:
    (tmp_path / name).touch()
    assert local_path(f"{start}{tmp_path / name}") == str(tmp_path / name)


def test_escapes_are_decoded_where_the_file_lies_only_there(tmp_path: Path) -> None:
    (tmp_path / "a b").touch()
    assert local_path(f"file://{tmp_path}/a%20b") == str(tmp_path / "a b")
    (tmp_path / "a%20b").touch()
    assert local_path(f"file://{tmp_path}/a%20b") == str(tmp_path / "a%20b")
    assert local_path(f"file://{tmp_path}/not%20there") == f"{tmp_path}/not%20there"


def test_a_name_that_is_too_long_is_not_there() -> None:
    name = "a%20" * 3000
    assert local_path(f"file:///{name}") == f"/{name}"
