"""File names of foreign texts are unique, and possible on every file system."""

import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pystac
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geom import box

import s2cube
from s2cube.area.aoi import AOI
from s2cube.area.names import file_name, file_names, name_key, name_keys, unique_file_names
from s2cube.config.sections import CubeSection
from s2cube.errors import AOIError
from s2cube.scenes.plan import make_plan

DEVICES = ["CON", "prn", "Aux", "nul", "COM1", "com0", "LPT9", "COM¹", "CON:", "-nul-", "CONIN$"]
TEXTS = st.lists(st.text(max_size=6) | st.sampled_from(["a", "A", "a/", "é", "e\u0301", "É", "ß", "ss", "", *DEVICES]))


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.upper().lower().casefold())


@given(TEXTS)
def test_unique_where_upper_and_lower_case_are_the_same(texts: list[str]) -> None:
    names = unique_file_names(texts)
    assert len({folded(name) for name in names}) == len(texts)
    assert all(names)
    assert all(name.partition(".")[0].casefold() not in {each.casefold() for each in DEVICES} for name in names)


@given(TEXTS, st.randoms())
def test_the_order_of_texts_does_not_decide(texts: list[str], random: object) -> None:
    texts = list(dict.fromkeys(texts))
    shuffled = sorted(texts, key=lambda _: random.random())  # type: ignore[attr-defined]
    named = dict(zip(shuffled, unique_file_names(shuffled), strict=True))
    # Of texts whose digests are alike the order would decide: there are none.
    assert named == dict(zip(texts, unique_file_names(texts), strict=True))


def test_what_can_stay_stays() -> None:
    fine = ["S2A_32TWM_20240101_0_L2A", "20240101", "小麦", "con2", "com10", "console", "a-b"]
    assert unique_file_names(fine) == fine
    # As before 7 was mended, so that what was written is found again.
    assert unique_file_names(["a/b", "a:b", "c"]) == ["a-b-c14cddc0", "a-b-6783a31e", "c"]


@pytest.mark.parametrize("device", DEVICES)
def test_devices_of_windows(device: str) -> None:
    name = file_name(device)
    assert len(name.rpartition("-")[2]) == 8
    assert name != file_name(device.swapcase()) or device.swapcase() == device


@pytest.mark.parametrize(
    ("texts", "alike"),
    [
        (["T/1", "T:1"], True),
        (["Field", "FIELD"], True),
        (["é", "É"], True),
        (["x" * 81, "x" * 82], True),
        (["a", "a"], True),
        (["a-1ab2", "b"], False),
    ],
)
def test_names_that_collide_get_digests(texts: list[str], alike: bool) -> None:
    names = unique_file_names(texts)
    assert len({folded(name) for name in names}) == len(texts)
    assert [len(name) - len(file_name(text)) for name, text in zip(names, texts, strict=True)] == [9 * alike] * 2


def test_a_digest_that_is_a_name_already() -> None:
    first, second = unique_file_names(["a/b", "a:b"])
    names = unique_file_names(["a/b", "a:b", first.upper()])
    assert len({folded(name) for name in names}) == 3
    assert names[1:] == [second, first.upper()]


def test_slices_of_scenes_whose_ids_differ_by_case() -> None:
    area = box(-98.2, 41.0, -98.1, 41.1, "EPSG:4326")
    items = [
        pystac.Item(name, {"type": "Point", "coordinates": [-98.15, 41.05]}, None, datetime(2022, 7, day, tzinfo=UTC),
                    {"s2:processing_baseline": "05.10"})
        for day, name in enumerate(["scene", "SCENE", "con"], 1)
    ]  # fmt: skip
    plan = make_plan(items, AOI("field", area), CubeSection(group_by="scene"))
    ids = [each.id for each in (*plan.slices, *getattr(plan, "unusable", ()))]
    assert len({each.casefold() for each in ids}) == 3


def save(path: Path, *names: str) -> Path:
    square = shapely.geometry.mapping(shapely.box(10, 50, 10.1, 50.1))
    features = [{"type": "Feature", "properties": {"id": name}, "geometry": square} for name in names]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_folders_of_areas(tmp_path: Path) -> None:
    con, other, aux = s2cube.read_aois(save(tmp_path / "a.geojson", "con", "CON", "aux.1"))
    assert (con.id, other.id, aux.id) == (file_name("con"), file_name("CON"), "aux-1")
    assert con.id.casefold() != other.id.casefold()
    (tmp_path / con.id).mkdir()


@pytest.mark.parametrize("names", [("é", "É"), ("e\u0301", "é"), ("ſ", "s"), ("\u212a", "k"), ("a/b", "A b")])
def test_areas_that_would_share_a_folder_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(AOIError, match="would both be written"):
        s2cube.read_aois(save(tmp_path / "a.geojson", *names))


def test_a_text_of_combining_characters_takes_no_time() -> None:
    assert file_name("a" + "\u0301\u0316" * 500_000) == file_name("a" + "\u0301\u0316" * 600)


@given(TEXTS | st.lists(st.text("aB1_- é", max_size=90)))
def test_columns_of_names(texts: list[str]) -> None:
    names = file_names(pa.array(texts, pa.string()))
    assert names.to_pylist() == [file_name(text) for text in texts]
    assert name_keys(names).to_pylist() == [name_key(file_name(text)) for text in texts]
