"""A catalogue that a test changes between passes of sync, and a clock that it sets."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.updates._sync_pass import make_pass
from s2cube.updates.pass_record import Pass

Items = list[dict[str, Any]]


@dataclass
class Sync:
    """Makes passes on a file of items.

    Attributes
    ----------
    items
        What the catalogue has now.
    """

    path: Path
    aoi: Path
    items: Items = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)

    def __call__(self, day: str, **flags: Any) -> Pass:
        """Make a pass at noon of a day."""
        self.path.write_text(json.dumps({"type": "FeatureCollection", "features": self.items}))
        now = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)
        usual = {"aoi": str(self.aoi), "stac": str(self.path), "bands": "blue", "resolution": 60, "out": "out"}
        ticks = iter([now, now + timedelta(minutes=1)])
        return make_pass(load_config(usual | self.flags | flags, {}), clock=lambda: next(ticks))

    def of(self, day: str) -> Items:
        """Return the items of a day that the catalogue has now."""
        return [item for item in self.items if f"_{day}_" in item["id"]]


@pytest.fixture
def every_item(archive: Archive, archive_items: Items, tmp_path: Path) -> Items:
    """The items over the corner. Each has files of its own: links, which a test may remove or replace."""
    return with_own_files([item for item in archive_items if "_14TNL_" in item["id"]], archive, tmp_path)


def with_own_files(items: Items, archive: Archive, folder: Path) -> Items:
    """Copy items; the files of the copies are links."""
    items = copy.deepcopy(items)
    for item in items:
        for key, asset in item["assets"].items():
            source = archive.items.parent / asset["href"]
            own = folder / "files" / item["id"] / f"{key}{source.suffix}"
            own.parent.mkdir(parents=True, exist_ok=True)
            own.symlink_to(source)
            asset["href"] = str(own)
    return items


@pytest.fixture
def sync(tmp_path: Path, small_aoi: Path) -> Sync:
    return Sync(tmp_path / "catalogue.json", small_aoi)


@pytest.fixture
def digests() -> Callable[[Path], dict[str, Any]]:
    """Return the content of an output: files by name, and Items without times."""

    def read(out: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(out.rglob("*")):
            name = str(path.relative_to(out))
            if path.is_file() and path.suffix in (".tif", ".png", ".qml", ".parquet") and name != "items.parquet":
                found[name] = path.read_bytes()
            elif path.suffix == ".json" and path.parent.parent.parent == out:
                item = json.loads(path.read_text())
                for key in ("created", "updated"):
                    item["properties"].pop(key, None)
                found[name] = item
        return found

    return read
