"""When a slice is made again: exactly when it would come out differently."""

import copy
import hashlib
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.demo.archive import PASSES, Archive
from s2cube.jobs.job import plan_job
from s2cube.scenes.assets import drop_unused_assets
from s2cube.scenes.plan import Planner, make_plan
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.recipe import DATA_VERSION
from s2cube.scenes.scene import processed
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.time_slice import TimeSlice
from s2cube.storage.output import Output
from s2cube.workers.worker import compute_batch
from support.runs import CommandLine, Job
from support.scenes import open_int16

ONE_DAY = ("--bands", "blue", "--datetime", "2021")
Change = Callable[[dict[str, Any]], None]


def _set(key: str, value: object) -> Change:
    return lambda item: item["properties"].__setitem__(key, value)


def _sign(item: dict[str, Any]) -> None:
    for asset in item["assets"].values():
        asset["href"] += "?sv=1&se=2030&sig=abc"


def _other_file(item: dict[str, Any]) -> None:
    item["assets"]["blue"]["href"] = item["assets"]["blue"]["href"].replace(".tif", "_v2.tif")


def _unused(item: dict[str, Any]) -> None:
    item["assets"]["thumbnail"] = {"href": "./new.jpg"}
    item["assets"]["red"]["href"] = "./another_red.tif"


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (_set("s2:generation_time", "2031-01-01T00:00:00Z"), True),
        (_set("s2:processing_baseline", "05.11"), True),
        (_set("earthsearch:boa_offset_applied", False), True),
        (_other_file, True),
        (_set("updated", "2031-01-01T00:00:00Z"), False),
        (_set("eo:cloud_cover", 3.2), False),
        (_sign, False),
        (_unused, False),
    ],
)
def test_of_a_scene(archive_items: list[dict[str, Any]], archive: Archive, change: Change, again: bool) -> None:
    aoi = s2cube.read_aoi(archive.aoi)
    before = copy.deepcopy(archive_items[2])
    before["properties"] |= {
        "s2:processing_baseline": "04.00", "s2:generation_time": "2022-01-01T00:00:00Z",
        "earthsearch:boa_offset_applied": True,
    }  # fmt: skip
    for asset in before["assets"].values():
        asset["href"] = f"https://host/{asset['href']}"
    after = copy.deepcopy(before)
    change(after)
    assert (_slice(before, aoi).recipe != _slice(after, aoi).recipe) == again


@pytest.mark.parametrize("of_rows", [False, True])
def test_a_file_that_is_replaced_under_its_address_is_known_by_its_size_else_by_the_time_of_the_item(
    archive_items: list[dict[str, Any]], archive: Archive, of_rows: bool
) -> None:
    aoi = s2cube.read_aoi(archive.aoi)

    def found(size: int | None, updated: str) -> object:
        item = copy.deepcopy(archive_items[0])
        item["properties"] |= {"s2:generation_time": "2022-01-01T00:00:00Z", "updated": updated}
        for asset in item["assets"].values():
            asset |= {"href": "https://host/a.tif", "file:size": size}
        made = _slice(item, aoi)
        return (made.processing, made.files) if of_rows else made.recipe

    assert found(1, "2022") == found(1, "2023")
    assert len({found(1, "2022"), found(2, "2022"), found(None, "2022"), found(None, "2023")}) == 4


def _slice(item: dict[str, Any], aoi: AOI) -> TimeSlice:
    (one,) = make_plan([pystac.Item.from_dict(item, migrate=False)], aoi, CubeSection(bands=("blue",))).slices
    return one


def test_by_its_checksum_a_file_is_known_wherever_it_lies(
    archive_items: list[dict[str, Any]], archive: Archive
) -> None:
    aoi = s2cube.read_aoi(archive.aoi)
    recipes = []
    for href, checksum in (("a.tif", "1220aa"), ("mirror/a.tif", "1220aa"), ("a.tif", "1220bb")):
        item = copy.deepcopy(archive_items[0])
        for asset in item["assets"].values():
            asset |= {"href": f"https://host/{href}", "file:checksum": checksum}
        recipes.append(_slice(item, aoi).recipe)
    assert recipes[0] == recipes[1] != recipes[2]


def test_is_the_digest_of_all_that_it_names(archive: Archive) -> None:
    """Its parts are made separately, and areas share them: the whole is one JSON array, as it always was."""
    config = CubeSection.of({"bands": "blue", "dilation": 60})
    aois = [s2cube.read_aoi(archive.aoi), AOI("other", s2cube.read_aoi(archive.aoi).geometry_lonlat.geom.buffer(-0.01))]
    planner = Planner(config)
    settings = config.model_dump(mode="json", exclude={"bands", "indices", "crs", "resolution_m", "group_by", "offset"})
    for aoi in aois:
        items = s2cube.search(aoi, stac=str(archive.items))
        plan = planner.plan(map(SceneFacts, items), aoi)
        for each in plan.slices:
            of_scenes = [
                [scene.id, processed(scene), offset_dn(scene), [_version(scene.assets[key]) for key in ("blue", "scl")]]
                for scene in sorted(each.scenes, key=lambda scene: (scene.datetime, scene.id))
            ]
            grid = [str(plan.geobox.crs), plan.geobox.affine[:6], plan.geobox.shape]
            content = json.dumps([DATA_VERSION, aoi.ground, *grid, settings, of_scenes], default=str)
            assert each.recipe == hashlib.sha256(content.encode()).hexdigest()[:16]
    assert len(plan.slices) == len(PASSES)


def _version(asset: pystac.Asset) -> str:
    return f"{asset.href} {asset.extra_fields['file:size']}"


def test_a_reprocessed_scene_and_a_late_granule_redo_exactly_their_slices(
    s2cube_command: CommandLine, job: Job, archive: Archive, tmp_path: Path
) -> None:
    page = json.loads(archive.items.read_text())
    for item in page["features"]:
        for asset in item["assets"].values():
            asset["href"] = str(archive.items.parent / asset["href"])
    stac = tmp_path / "items.json"
    stac.write_text(json.dumps(page))
    first = s2cube_command(*job("--bands", "blue", "--stac", stac))
    assert len(first.json["written"]) == len(PASSES)
    item = next(item for item in page["features"] if "14TNL_20220614" in item["id"])
    item["properties"]["s2:generation_time"] = "2030-01-01T00:00:00Z"
    late = copy.deepcopy(next(item for item in page["features"] if "14TNL_20220803" in item["id"]))
    late["id"] = "a late granule"
    late["properties"]["s2:datatake_id"] = "another"
    stac.write_text(json.dumps({**page, "features": [*page["features"], late]}))
    second = s2cube_command(*job("--bands", "blue", "--stac", stac))
    assert [Path(path).stem for path in second.json["written"]] == ["corner_20220614", "corner_20220803"]
    assert len(second.json["skipped"]) == len(PASSES) - 2
    third = s2cube_command(*job("--bands", "blue", "--stac", stac))
    assert third.json["written"] == []
    assert third.json["requests"] == 0


def test_another_version_of_the_data_makes_slices_again(
    s2cube_command: CommandLine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    s2cube_command(*job(*ONE_DAY))
    assert s2cube_command(*job(*ONE_DAY)).json["written"] == []
    monkeypatch.setattr("s2cube.scenes.recipe.DATA_VERSION", DATA_VERSION + 1)
    assert len(s2cube_command(*job(*ONE_DAY)).json["written"]) == 1


@pytest.mark.slow
def test_the_version_of_the_data_stands_for_these_pixels(archive: Archive) -> None:
    """Other pixels of the same scenes: then `recipe.DATA_VERSION` must grow, or old and new slices would be mixed."""
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items), datetime="2022")
    digest = hashlib.sha256()
    for settings in ({}, {"mask": "none", "quality": "fast"}, {"resolution": 45, "dilation": 90}):
        cube = open_int16(items, aoi, bands=["blue", "swir16"], **settings)
        digest.update(np.ascontiguousarray(cube.values).tobytes())
        digest.update(np.ascontiguousarray(cube.qa.values).tobytes())
    assert (DATA_VERSION, digest.hexdigest()[:16]) == (3, "48686a322dea59f8")


class TestLean:
    def test_what_is_shipped_is_small(self, real: Path) -> None:
        """Of real items, with all their properties: some kilobytes a scene."""
        for path in sorted((real / "items").rglob("*.json")):
            content = json.loads(path.read_text())
            if content.get("type") != "Feature":
                continue
            item = pystac.Item.from_dict(content, migrate=False)
            item.clear_links()
            light = drop_unused_assets(item, CubeSection())
            assert len(pickle.dumps(light)) < 15_000
            assert len(pickle.dumps(light)) < 0.5 * len(pickle.dumps(item))

    @pytest.mark.parametrize(("bands", "mask"), [(("swir16", "blue"), ("scl",)), (("B04",), ()), (("nir09",), ())])
    def test_decides_alike(self, real: Path, bands: tuple[str, ...], mask: tuple[Any, ...]) -> None:
        config = CubeSection(bands=bands, mask=mask)
        for path in sorted((real / "items").rglob("*.json")):
            content = json.loads(path.read_text())
            if content.get("type") != "Feature":
                continue
            item = pystac.Item.from_dict(content, migrate=False)
            aoi = AOI("x", _middle(item))
            (one,) = make_plan([item], aoi, config).slices
            (other,) = make_plan([drop_unused_assets(item, config)], aoi, config).slices
            assert one.recipe == other.recipe

    def test_what_cannot_be_used_stays_whole(self, archive_items: list[dict[str, Any]]) -> None:
        item = pystac.Item.from_dict(archive_items[0], migrate=False)
        del item.assets["blue"]
        assert drop_unused_assets(item, CubeSection(bands=("blue",))) is item


def _middle(item: pystac.Item) -> Any:
    from odc.geo.geom import box

    west, south, east, north = item.bbox or ()
    x, y = (west + east) / 2, (south + north) / 2
    return box(x - 0.01, y - 0.01, x + 0.01, y + 0.01, "EPSG:4326")


def test_what_is_shipped_holds_no_secret(archive: Archive, tmp_path: Path) -> None:
    """Neither where scenes are searched, nor what a cluster is started with, nor signatures of links."""
    page = json.loads(archive.items.read_text())
    for item in page["features"]:
        for asset in item["assets"].values():
            asset["href"] = f"https://user:word1@host/{asset['href']}?sv=1&se=2030&sig=word2"
    stac = tmp_path / "items.json"
    stac.write_text(json.dumps(page))
    flags = {"aoi": str(archive.aoi), "stac": str(stac), "out": str(tmp_path / "out")}
    flags |= {"class": "x.Y", "workers": "1", "options": '{"password": "word3"}'}
    config = s2cube.load_config(flags, {})
    job = plan_job(config, Output.at(config.job.out))
    search = config.search.model_copy(update={"stac": "https://me:word4@host/?token=word5"})
    secretive = config.model_copy(update={"search": search})
    assert all(f"word{number}".encode() in pickle.dumps((secretive, page)) for number in range(1, 6))
    shipped = pickle.dumps(partial(compute_batch, config=secretive.for_workers(), output=job.output)) + pickle.dumps(
        job.todo
    )
    assert len(job.todo) == len(PASSES)
    assert b"word" not in shipped
