"""Settings: which source wins, what they may be, and that they are written down once."""

import contextlib
import inspect
import re
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import s2cube
from s2cube.config.loading import load_config, settings
from s2cube.config.sections import (
    CubeSection,
    JobConfig,
    OutputSection,
    ReadSection,
    SearchSection,
    Section,
    TableSection,
)
from s2cube.config.times import TimeRange, parse_times
from s2cube.errors import ConfigError, S2CubeError


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[search]\nmax_cloud = 10\nmax_items = 1\ncollection = "file"\n')
    environ = {"S2CUBE_SEARCH__MAX_CLOUD": "20", "S2CUBE_SEARCH__MAX_ITEMS": "2", "HOME": "/"}
    config = load_config({"max_cloud": "30"}, environ, file)
    assert config.search.max_cloud_percent == 30
    assert config.search.max_items == 2
    assert config.search.collection == "file"
    assert config.cube.resolution_m == 30


def test_the_file_in_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "s2cube.toml").write_text("[cube]\nresolution = 20\n")
    assert load_config({}, {}).cube.resolution_m == 20


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, newline: str) -> None:
    """Editors on Windows write one."""
    for file in (tmp_path / "s2cube.toml", tmp_path / "job.toml"):
        file.write_bytes(b"\xef\xbb\xbf" + f"[cube]{newline}resolution = 20{newline}".encode())
    assert load_config({}, {}).cube.resolution_m == 20
    assert load_config({}, {}, tmp_path / "job.toml").cube.resolution_m == 20


def test_every_source_spells_values_alike(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[cube]\nbands = ["blue", "red"]\n[job]\noverwrite = true\n[search]\ndatetime = "2024"\n')
    by_file = load_config({}, {}, file)
    environ = {"S2CUBE_CUBE__BANDS": "blue,red", "S2CUBE_JOB__OVERWRITE": "true", "S2CUBE_SEARCH__DATETIME": "2024"}
    by_flags = load_config({"bands": "blue, red", "overwrite": True, "datetime": "2024"}, {})
    assert by_file == load_config({}, environ) == by_flags


def test_the_error_names_who_said_it(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text("[search]\nmax_cloud = 400\n")
    with pytest.raises(ConfigError, match=r"job.toml: \[search\] max_cloud: .* is more than 100"):
        load_config({}, {}, file)
    with pytest.raises(ConfigError, match="^S2CUBE_SEARCH__MAX_CLOUD: "):
        load_config({}, {"S2CUBE_SEARCH__MAX_CLOUD": "-1"}, file)
    with pytest.raises(ConfigError, match="^--max-cloud: "):
        load_config({"max_cloud": "none"}, {}, file)


@pytest.mark.parametrize("value", ["2024-01-01", "2024-01-01T00:00:00Z", '["2024-01", 2024-02-03]', '"2024-01"'])
def test_dates_of_toml(tmp_path: Path, value: str) -> None:
    file = tmp_path / "job.toml"
    file.write_text(f"[search]\ndatetime = {value}\n")
    times = load_config({}, {}, file).search.datetime
    assert times is not None
    assert times.start == datetime(2024, 1, 1, tzinfo=UTC)


def test_home_is_known() -> None:
    assert load_config({"out": "~/x"}, {}).job.out == Path.home() / "x"


def test_a_flag_takes_back_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[cluster]\nscheduler = "tcp://host:8786"\n')
    assert load_config({"scheduler": ""}, {}, file).cluster.scheduler is None


@pytest.mark.parametrize("text", ["max_cloud = 3\n", "[search.more]\nx = 1\n"])
def test_misplaced_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_config({}, {}, file)


def test_variable_without_a_section() -> None:
    with pytest.raises(ConfigError, match="S2CUBE_DEBUG: unknown section"):
        load_config({}, {"S2CUBE_DEBUG": "1"})


def test_keys_are_flags_so_no_two_are_alike() -> None:
    keys = [key for _, key, _ in settings()]
    assert len(set(keys)) == len(keys)
    assert all(field.description for _, _, field in settings())


FUNCTIONS: dict[str, tuple[type[Section], ...]] = {
    "search": (SearchSection,),
    "open_cube": (CubeSection, ReadSection),
    "write_cogs": (OutputSection,),
}
NO_SETTINGS = {
    ("search", "crs"), ("open_cube", "aoi_crs"), ("open_cube", "chunks"), ("write_cogs", "name"), ("write_cogs", "aoi"),
    ("write_cogs", "datetime"), ("write_cogs", "progress"),
}  # fmt: skip
"""Parameters that only Python has."""

OTHER_DEFAULTS = {("open_cube", "dtype"): "float32"}
"""A notebook computes with floats."""


def keyword_parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(getattr(s2cube, name)).parameters.items()
    return {
        key: each for key, each in parameters
        if each.kind is inspect.Parameter.KEYWORD_ONLY and (name, key) not in NO_SETTINGS
    }  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_the_settings(name: str) -> None:
    written = {key: each.default for key, each in keyword_parameters(name).items()}
    of_models = {
        field.alias or attribute: OTHER_DEFAULTS.get((name, field.alias or attribute), field.default)
        for section in FUNCTIONS[name] for attribute, field in section.model_fields.items()
    }  # fmt: skip
    assert list(written.items()) == list(of_models.items())
    assert all(each.annotation is not inspect.Parameter.empty for each in keyword_parameters(name).values())


def test_parameters_of_statistics_are_those_of_a_cube() -> None:
    """In the same order, with the same defaults."""
    cube, statistics = (keyword_parameters(name) for name in ("open_cube", "statistics"))
    assert [
        (key, each.default) for key, each in statistics.items() if key not in ("aoi_id", "aoi_crs", "statistics")
    ] == [(key, each.default) for key, each in cube.items() if key != "dtype"]
    assert statistics["statistics"].default == TableSection().chosen


@pytest.mark.parametrize("name", [*FUNCTIONS, "statistics"])
def test_docstrings_explain_every_parameter(name: str) -> None:
    function = getattr(s2cube, name)
    head, _, rest = inspect.getdoc(function).partition("Parameters\n----------\n")
    listed = re.findall(r"^(\w+(?:, \w+)*)$", rest.partition("\n\n")[0], re.M)
    assert head
    assert [key for line in listed for key in line.split(", ")] == list(inspect.signature(function).parameters)


OTHERS: dict[str, object] = {
    "stac": "x", "collection": "y", "datetime": "2024", "max_cloud": 7, "max_items": 3,
    "bands": "nir", "indices": ("NDVI",), "crs": "EPSG:3857", "resolution": 20, "quality": "fast", "offset": -1000,
    "mask": "none", "mask_classes": [9], "max_cloud_probability": 5, "max_snow_probability": 6, "dilation": 90,
    "group_by": "scene", "dtype": "int16", "timeout": 9, "retries": 1, "tokens": {"https://a": "https://b"},
    "stores": {"s3://x": {"anonymous": True}}, "compress": "zstd", "compress_level": 20,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_arrive(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument reaches its section."""
    seen: list[Section] = []
    validate = Section.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Section, "of", classmethod(lambda kind, given: seen.append(validate(kind, given)) or seen[-1]))
    assert all(OTHERS[key] != each.default for key, each in keyword_parameters(name).items())
    with contextlib.suppress(S2CubeError, AttributeError):
        positional = {"search": [None], "open_cube": [(), None], "write_cogs": [None, "out"]}[name]
        getattr(s2cube, name)(*positional, **{key: OTHERS[key] for key in keyword_parameters(name)})
    assert [type(each) for each in seen] == list(FUNCTIONS[name])
    for each in seen:
        assert each == type(each)(**{key: OTHERS[key] for key in each.setting_names()})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="^max_clouds: "):
        SearchSection.of({"max_clouds": 3})


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("2024-02", "2024-02-01T00:00:00", "2024-02-29T23:59:59.999999"),
        ("2024-12", "2024-12-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("2024-02-03", "2024-02-03T00:00:00", "2024-02-03T23:59:59.999999"),
        ("2024-02-03T04:05:06Z/2024-02-03T04:05:06Z", "2024-02-03T04:05:06", "2024-02-03T04:05:06"),
        ("9999", "9999-01-01T00:00:00", "9999-12-31T23:59:59.999999"),
        ("9999-12", "9999-12-01T00:00:00", "9999-12-31T23:59:59.999999"),
        ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T23:59:59.999999"),
        ("2024-01/2024-06", "2024-01-01T00:00:00", "2024-06-30T23:59:59.999999"),
        ("2023/2024-01-02", "2023-01-01T00:00:00", "2024-01-02T23:59:59.999999"),
        ("2024-03-01/..", "2024-03-01T00:00:00", None),
        ("../2024-03", None, "2024-03-31T23:59:59.999999"),
    ],
)
def test_time_range(text: str, first: str | None, last: str | None) -> None:
    times = TimeRange.parse(text)
    assert times.start == (first and datetime.fromisoformat(first + "+00:00"))
    assert times.end == (last and datetime.fromisoformat(last + "+00:00"))


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-03T04:05:06Z",
        "2024-02-03 00:00:00",
        "",
        "..",
        "../..",
        "/",
        "24-01",
        "2024-13",
        "2024-1-1",
        "2024-01-01/x",
        "2024/2023",
    ],
)
def test_no_time_range(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        TimeRange.parse(text)


JUNE = "2022-06-14"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2022, 6, 14), JUNE),
        (datetime(2022, 6, 14), JUNE),
        (datetime(2022, 6, 14, tzinfo=UTC), JUNE),
        (datetime(2022, 6, 14, tzinfo=timezone(timedelta(hours=9))), JUNE),
        (pd.Timestamp(JUNE), JUNE),
        (pd.Timestamp(JUNE, tz="Asia/Tokyo"), JUNE),
        (np.datetime64(JUNE), JUNE),
        (np.datetime64(JUNE, "ns"), JUNE),
        (np.datetime64("2022-06"), "2022-06"),
        (np.datetime64("2022"), "2022"),
        ((date(2022, 6, 1), date(2022, 6, 14)), f"2022-06-01/{JUNE}"),
        ([date(2022, 6, 1), "2022-07"], "2022-06-01/2022-07"),
        ((date(2022, 6, 1), None), "2022-06-01/.."),
        ((None, datetime(2022, 6, 14)), f"../{JUNE}"),
        ((datetime(2022, 6, 14, 1), datetime(2022, 6, 14, 2, 30)), f"{JUNE}T01:00:00Z/{JUNE}T02:30:00Z"),
        ((datetime(2022, 6, 14, 1, tzinfo=timezone(timedelta(hours=1))), None), f"{JUNE}T00:00:00Z/.."),
        ((np.datetime64(f"{JUNE}T01:00"), pd.Timestamp(f"{JUNE}T02:00:00.5")), f"{JUNE}T01:00:00Z/{JUNE}T02:00:00.5Z"),
    ],
)
def test_dates_of_python(value: object, text: str) -> None:
    assert parse_times(value) == TimeRange.parse(text)


@pytest.mark.parametrize("value", [None, (None, None)])
def test_all_times(value: object) -> None:
    assert parse_times(value) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (datetime(2022, 6, 14, 17), f"is one instant.* write the day, {JUNE}, or a range, {JUNE}T17:00:00Z/"),
        (pd.Timestamp(f"{JUNE}T17:00"), "is one instant"),
        (np.datetime64(f"{JUNE}T17:00"), "is one instant"),
        ((date(2022, 6, 14), date(2022, 6, 13)), "ends before it begins"),
        (pd.NaT, "is not a time"),
        (np.datetime64("NaT", "ns"), "is not a time"),
        (5, "is not a time"),
        (np.array([1]), "is not a time"),
        ((1, 2, 3), "has 3 dates"),
        ([], "has 0 dates"),
    ],
)
def test_no_dates_of_python(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_times(value)
    with pytest.raises(ConfigError, match=f"^datetime: .*{problem}"):
        SearchSection.of({"datetime": value})


@given(st.sampled_from(["0001", "0001-01-01", "9999", "9999-12-31"]), st.floats(-180, 180))
def test_the_first_and_the_last_year(text: str, lon: float) -> None:
    times = TimeRange.parse(text).whole_days_at(lon)
    assert times.start is not None
    assert times.end is not None
    assert times.start < times.end


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), np.dtype(">f4")])
def test_data_types_of_numpy(dtype: object) -> None:
    assert CubeSection.of({"dtype": dtype}).dtype == "float32"


@pytest.mark.parametrize("dtype", [None, float, np.float64, "f4", 5, object(), [1]])
def test_other_data_types(dtype: object) -> None:
    with pytest.raises(ConfigError, match="^dtype: "):
        CubeSection.of({"dtype": dtype})


def test_no_mask() -> None:
    assert CubeSection.of({"mask": None}).mask == CubeSection.of({"mask": "none"}).mask == ()


def test_paths_and_boxes() -> None:
    assert SearchSection.of({"stac": Path("a/b.json")}).stac == "a/b.json"
    assert SearchSection.of({"stac": Path("~/b.json")}).stac == str(Path.home() / "b.json")
    assert load_config({"aoi": (10, 50, 10.5, 50.5)}, {}).job.aoi == "10,50,10.5,50.5"
    with pytest.raises(ConfigError, match="^--aoi: must be a file, a box .* run takes other areas"):
        load_config({"aoi": object()}, {})


def test_what_a_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = load_config({"bands": "red", "max_cloud": 20}, {})
    file = tmp_path / "job.toml"
    file.write_text('[cube]\nbands = ["red"]\n[search]\nmax_cloud = 20\n')
    assert load_config(file) == load_config(str(file)) == load_config(file=str(file)) == want
    assert load_config({"cube": {"bands": ["red"]}, "search": {"max_cloud": 20}}) == want
    assert load_config({"bands": ("red",), "search": {"max_cloud": 20}}) == want
    assert load_config({"--bands": "red", "max-cloud": 20}) == want
    monkeypatch.setenv("S2CUBE_CUBE__BANDS", "nir")
    assert load_config().cube.bands == ("nir",)
    assert load_config({}, {}).cube.bands == load_config(environ={}).cube.bands != ("nir",)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (({"max_clouds": 3},), "max_clouds: unknown key. Did you mean max_cloud"),
        (({"zzz": 3},), "zzz: unknown key. Keys: aoi, "),
        (({5: 3},), "5: unknown key"),
        (({"cube": 5},), r"\[cube\]: is a int, not a dict"),
        (({"cube": {"band": "red"}},), r"\[cube\] band: unknown key"),
        (({"cube": {"resolution": "x"}},), r"^\[cube\] resolution: "),
        ((5,), "the settings: are a int, not a dict"),
        (({}, 5), "environ: is a int, not a mapping"),
        (({}, {}, 5), "file: is a int, not a path"),
        (("nowhere.toml",), "nowhere.toml: cannot be read as TOML"),
        (("a.toml", {}, "b.toml"), "gets two files"),
        (("a\0b",), "cannot be read as TOML"),
    ],
)
def test_what_no_user_has(arguments: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(*arguments)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3) | st.dates()
    | st.datetimes() | st.sampled_from(["http://[", "~nobody/x", "9999-12-31", "none", "[5", "s3://b", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=4) | st.integers() | st.sampled_from(["s3://b", "endpoint"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from([key for _, key, _ in settings()])
SECTIONS = st.sampled_from(sorted({section for section, _, _ in settings()}))


@pytest.mark.parametrize("key", ["options", "stores"])
def test_deep_json(key: str) -> None:
    with pytest.raises(ConfigError, match="JSON object"):
        load_config({key: "[" * 100_000}, {})


@given(
    st.dictionaries(KEYS, VALUES, max_size=2)
    | st.dictionaries(SECTIONS, st.dictionaries(KEYS, VALUES, max_size=2) | VALUES, max_size=2)
    | VALUES,
    st.dictionaries(st.sampled_from(["S2CUBE_CUBE__BANDS", "S2CUBE_READ__STORES"]) | st.text(max_size=3), VALUES),
)
@example({"datetime": "0000"}, {})
@example({"tokens": {"http://[": "http://["}}, {})
@example({"stores": {5: {}}}, {})
@example({"tls_ca": "~nobody/x"}, {})
@example({"crs": {"": b""}}, {})
def test_any_settings_are_a_configuration_or_a_config_error(values: Any, environ: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(values, environ), JobConfig)


INSTANTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


@given(INSTANTS, st.timedeltas(timedelta(0), timedelta(days=900)))
def test_a_range_holds_its_days_and_no_others(start: datetime, length: timedelta) -> None:
    end = start + length
    times = TimeRange.parse(f"{start:%Y-%m-%d}/{end:%Y-%m-%d}")
    assert start in times
    assert end in times
    assert start - timedelta(days=1) not in times
    assert end + timedelta(days=1) not in times
    assert TimeRange.parse(str(times)) == times
