"""Fixtures of the tests of statistics: scenes of several days, and blocks that are so small that fields cross them."""

from collections.abc import Iterator

import pystac
import pytest

from s2cube.fetch import session
from support.field_scenes import day_scenes


@pytest.fixture(scope="session")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[pystac.Item]:
    return day_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of 64 cells. Squares in which fields are joined are those of tiles of 64 pixels of 10 m."""
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 64)
    monkeypatch.setattr("s2cube.fields.division._TILE_M", 640)
    monkeypatch.setattr("s2cube.fields.division._SIDES_M", (640, 1280, 3840, 7680))
    session.reset()
    yield
    session.reset()
