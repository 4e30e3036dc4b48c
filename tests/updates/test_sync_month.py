"""Thirty daily passes, a pass that is killed, and many areas."""

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import pytest
import shapely
from updates.conftest import Items, Sync, with_own_files

from s2cube.demo.archive import Archive
from support.runs import FARM

pytestmark = pytest.mark.slow


class Event(NamedTuple):
    """What the catalogue does before the pass of a day, and what the pass must find and make.

    Parameters
    ----------
    acquired
        Day of the scene.
    kind
        new, late, reprocessed, withdrawn, absent (its file comes later), healed.
    """

    acquired: int
    kind: str


MONTH: dict[int, list[Event]] = {
    1: [Event(1, "new")],
    3: [Event(3, "new")],
    6: [Event(6, "new")],
    8: [Event(8, "absent")],
    9: [Event(4, "late"), Event(3, "reprocessed")],
    11: [Event(8, "healed"), Event(11, "new")],
    13: [Event(13, "new"), Event(6, "withdrawn")],
    16: [Event(16, "new")],
    18: [Event(18, "absent"), Event(12, "late")],
    19: [Event(18, "healed")],
    21: [Event(21, "new"), Event(1, "withdrawn")],
    23: [Event(23, "new"), Event(4, "reprocessed")],
    26: [Event(26, "new"), Event(16, "reprocessed"), Event(9, "late")],
    28: [Event(28, "new")],
    30: [Event(30, "new"), Event(21, "withdrawn")],
}


class Archives:
    """Scenes of a month: each is a copy of an item of the demo, with files of its own."""

    def __init__(self, sync: Sync, templates: Items, archive: Archive, folder: Path) -> None:
        self._sync, self._templates, self._archive, self._folder = sync, templates, archive, folder

    def scene(self, day: int, kind: str) -> dict[str, Any]:
        item = copy.deepcopy(self._templates[day % len(self._templates)])
        item["id"] = f"scene_{day:02}"
        datatake = f"GS2A_202206{day:02}T172901_0{day:02}_N04.00"
        item["properties"] |= {"datetime": f"2022-06-{day:02}T17:30:00Z", "s2:datatake_id": datatake}
        (own,) = with_own_files([item], self._archive, self._folder)
        if kind == "absent":
            Path(own["assets"]["blue"]["href"]).rename(self._folder / f"kept_{day}")
        return own

    def happen(self, event: Event) -> None:
        items, name = self._sync.items, f"scene_{event.acquired:02}"
        if event.kind in ("new", "late", "absent"):
            items.append(self.scene(event.acquired, event.kind))
        (item,) = (each for each in items if each["id"] == name)
        if event.kind == "reprocessed":
            before = item["properties"].get("s2:generation_time", "")
            item["properties"]["s2:generation_time"] = "2031-01-01T00:00:00Z"
            assert before != "2031-01-01T00:00:00Z"
        elif event.kind == "withdrawn":
            items.remove(item)
        elif event.kind == "healed":
            (self._folder / f"kept_{event.acquired}").rename(item["assets"]["blue"]["href"])


def test_thirty_passes_make_what_one_run_makes(
    sync: Sync, archive_items: Items, archive: Archive, tmp_path: Path, digests: Callable[[Path], dict[str, Any]]
) -> None:
    templates = [item for item in archive_items if "_14TNL_2022" in item["id"]]
    archives = Archives(sync, templates, archive, tmp_path)
    sync.flags = {"products": "images,statistics,composites", "datetime": "2022-06", "statistics": "mean,std"}
    for day in range(1, 31):
        events = MONTH.get(day, [])
        for event in events:
            archives.happen(event)
        made = sync(f"2022-06-{day:02}")
        named = {kind: sorted(f"scene_{each.acquired:02}" for each in events if each.kind == kind) for kind in KINDS}
        assert [*made.new] == sorted(named["new"] + named["absent"]), day
        assert [*made.late] == named["late"], day
        assert [*made.reprocessed] == named["reprocessed"], day
        assert [*made.withdrawn] == named["withdrawn"], day
        waiting = [*made.pending]
        assert {*named["absent"]} <= {*waiting}
        assert {*named["healed"]}.isdisjoint(waiting)
        assert made.failed == ()
        expected = {
            f"corner_202206{each.acquired:02}"
            for each in events
            if each.kind in ("new", "late", "reprocessed", "healed")
        }
        assert {each for each in made.written if "median" not in each} == expected, day
        assert [*made.removed] == [f"corner_202206{name[-2:]}" for name in named["withdrawn"]], day
        assert ("corner_202206_median" in made.written) == bool(events and not waiting), day
        if not events and not waiting:
            assert made.requests == 0
    sync.flags |= {"out": "at-once", "full": True}
    sync("2022-06-30")
    assert digests(Path("out")) == digests(Path("at-once"))


KINDS = ("new", "late", "reprocessed", "withdrawn", "absent", "healed")

_KILLED = """
import json, os, signal, sys
from datetime import UTC, datetime
from s2cube.config.loading import load_config
from s2cube.storage.folder import Folder
from s2cube.updates._sync_pass import make_pass

put = Folder.put_folder
def killed(self, name, folder):
    put(self, name, folder)
    os.kill(os.getpid(), signal.SIGKILL)
Folder.put_folder = killed
make_pass(load_config(json.loads(sys.argv[1]), {}), clock=lambda: datetime(2022, 7, 10, 12, tzinfo=UTC))
"""


def test_a_killed_pass_is_repeated(
    sync: Sync, every_item: Items, tmp_path: Path, digests: Callable[[Path], dict[str, Any]]
) -> None:
    sync.items = [item for item in every_item if "20220520" <= item["id"].split("_")[2] <= "20220709"]
    whole = sync("2022-07-10", out="whole", lookback="90d")
    flags = {"aoi": str(sync.aoi), "stac": str(sync.path), "bands": "blue", "resolution": 60, "lookback": "90d"}
    command = [sys.executable, "-c", _KILLED, json.dumps(flags)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not Path("out/sync.jsonl").exists()
    again = sync("2022-07-10", lookback="90d")
    assert again.new == whole.new
    assert 0 < len(again.written) < len(whole.written)
    assert digests(Path("out")) == digests(Path("whole"))


def test_a_pass_with_nothing_new_over_200_areas_reads_nothing(sync: Sync, every_item: Items, tmp_path: Path) -> None:
    west, south, _, _ = FARM
    shapes = [shapely.box(west + 130 * (at % 20), south + 130 * (at // 20), west + 130 * (at % 20) + 100,
                          south + 130 * (at // 20) + 100) for at in range(200)]  # fmt: skip
    frame = geopandas.GeoDataFrame({"id": [f"f{at}" for at in range(200)]}, geometry=shapes, crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "areas.geojson")
    sync.flags = {"aoi": str(tmp_path / "areas.geojson"), "lookback": "500d"}
    sync.items = every_item
    first = sync("2022-10-01")
    assert len(first.written) >= 200 * 5
    second = sync("2022-10-02")
    assert (second.written, second.requests) == ((), 0)
