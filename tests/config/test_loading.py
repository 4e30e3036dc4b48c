"""Settings: which source wins, what they may be, and that they are written down once."""

import contextlib
import inspect
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import s2cube
from s2cube.config.loading import load_config, settings
from s2cube.config.sections import CubeSection, OutputSection, ReadSection, SearchSection, Section
from s2cube.config.times import TimeRange
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
    with pytest.raises(ConfigError, match=r"job.toml: \[search\] max_cloud: .* less than or equal to 100"):
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
OTHER_DEFAULTS = {("open_cube", "dtype"): "float32"}
"""A notebook computes with floats."""

NO_SETTINGS = {"progress"}
"""Keywords that are not settings of a job."""


def keyword_parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(getattr(s2cube, name)).parameters.items()
    return {
        key: each for key, each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY and key not in NO_SETTINGS
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_the_settings(name: str) -> None:
    written = {key: each.default for key, each in keyword_parameters(name).items()}
    of_models = {
        field.alias or attribute: OTHER_DEFAULTS.get((name, field.alias or attribute), field.default)
        for section in FUNCTIONS[name] for attribute, field in section.model_fields.items()
    }  # fmt: skip
    assert list(written.items()) == list(of_models.items())
    assert all(each.annotation is not inspect.Parameter.empty for each in keyword_parameters(name).values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_explain_every_parameter(name: str) -> None:
    function = getattr(s2cube, name)
    head, _, rest = inspect.getdoc(function).partition("Parameters\n----------\n")
    listed = re.findall(r"^(\w+(?:, \w+)*)$", rest.partition("\n\n")[0], re.M)
    assert head
    assert [key for line in listed for key in line.split(", ")] == list(inspect.signature(function).parameters)


OTHERS: dict[str, object] = {
    "stac": "x", "collection": "y", "datetime": "2024", "max_cloud": 7, "max_items": 3,
    "bands": "nir", "crs": "EPSG:3857", "resolution": 20, "quality": "fast", "offset": -1000, "mask": "none",
    "mask_classes": [9], "max_cloud_probability": 5, "max_snow_probability": 6, "dilation": 90, "group_by": "scene",
    "dtype": "int16", "timeout": 9, "retries": 1, "tokens": {"https://a": "https://b"},
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
        ("2024-02-03T04:05:06Z", "2024-02-03T04:05:06", "2024-02-03T04:05:06"),
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


@pytest.mark.parametrize("text", ["", "..", "../..", "/", "24-01", "2024-13", "2024-1-1", "2024-01-01/x", "2024/2023"])
def test_no_time_range(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        TimeRange.parse(text)


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
