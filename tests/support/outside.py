"""Find the test data that is not part of the project; `tests/README.md` describes it."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared"

REAL = Path(os.environ.get("S2CUBE_TEST_DATA") or _BESIDE / "real")
RECORDINGS = Path(os.environ.get("REPLAY_FOLDER") or _BESIDE / "replay")

FIXTURES = frozenset({"real", "recordings"})
"""A test that reads this data uses one of these fixtures."""


def require_real() -> Path:
    """Return the folder of the real granules; skip the test if it does not exist."""
    return _require(REAL, "real Sentinel-2 granules in ../shared/real or $S2CUBE_TEST_DATA")


def require_recordings() -> Path:
    """Return the folder of the recordings; skip the test if it does not exist."""
    return _require(RECORDINGS, "recordings of STAC APIs in ../shared/replay or $REPLAY_FOLDER")


def _require(folder: Path, needed: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs {needed}; see tests/README.md")
    return folder
