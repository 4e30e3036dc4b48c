"""Help, and mistakes in a command line: each command has its own flags, and errors are in the user's words."""

import shlex
from pathlib import Path

import pytest

from s2cube.cli._mistakes import commands_of
from s2cube.cli.commands import EXAMPLES, SUBMITTED, app
from s2cube.config.loading import load_config, settings
from s2cube.config.wording import placeholder
from s2cube.errors import ConfigError
from support.runs import CommandLine

ALL = {f"--{key.replace('_', '-')}" for _, key, _ in settings()}
OF_SEARCH = {f"--{key.replace('_', '-')}" for section, key, _ in settings() if section == "search"}
OF_COMPOSITES = {f"--{key.replace('_', '-')}" for section, key, _ in settings() if section == "composite"}
OF_TABLE = {f"--{key.replace('_', '-')}" for section, key, _ in settings() if section == "table"}
OF_SYNC = {f"--{key.replace('_', '-')}" for section, key, _ in settings() if section == "sync"}
OF_OUTPUT = {f"--{key.replace('_', '-')}" for section, key, _ in settings() if section == "output"}
TAKEN = {
    "run": ALL - OF_COMPOSITES - OF_SYNC,
    "plan": (ALL - OF_SYNC) | {"--products"},
    "submit": ALL - OF_COMPOSITES - OF_SYNC,
    "sync": ALL,
    "stats": ALL - OF_COMPOSITES - OF_SYNC - OF_OUTPUT - {"--max-aoi-cloud"},
    "composite": ALL - OF_TABLE - OF_SYNC - {"--max-aoi-cloud", "--group-by"},
    "search": OF_SEARCH | {"--timeout"} | {flag for flag in ALL if flag.startswith("--aoi")},
    "status": {"--out"},
    "verify": {"--out"},
    "report": {"--out"},
    "indices": set(),
    "demo": {"--out"},
}
TAKEN |= {f"submit {command}": TAKEN[command] for command in ("stats", "composite", "sync")}
PLACEHOLDERS = {
    "ADDRESS", "CLASSES", "COMMAND", "DATES", "DIR", "DURATION", "EPSG:N", "FILE", "ID", "INDEX", "JSON",
    "LAYER", "LAYERS", "METRES", "N", "NAME", "NAMES", "PERCENT", "PERIOD", "PREFIX=ADDRESS",
    "PRODUCTS", "PROPERTY", "SECONDS", "TIME", "URL",
}  # fmt: skip


@pytest.mark.parametrize("command", commands_of(app))
def test_help_lists_the_settings_of_the_command_only(
    s2cube_command: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = s2cube_command(*command.split(), "--help").out
    assert {flag for flag in ALL if f" {flag} " in text} == TAKEN[command]
    name = command.replace(" ", "_")
    (lines,) = (lines for function, lines in (EXAMPLES | SUBMITTED).items() if function.__name__ == name)
    assert text.rstrip().endswith("\n".join(lines))


def test_help_shows_what_kind_of_value_a_flag_takes(
    s2cube_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = s2cube_command("run", "--help").out
    for each in (
        "--aoi FILE",
        "--crs EPSG:N",
        "--max-cloud PERCENT",
        "--quality exact|fast",
        "--workers N",
        "--out DIR",
    ):
        assert f" {each} " in text
    assert " STR " not in text
    for _, key, setting in settings():
        shown = placeholder(setting)
        assert shown in PLACEHOLDERS or "|" in shown or setting.annotation is bool, f"{key}: {shown}"


@pytest.mark.parametrize("line", [line for lines in (EXAMPLES | SUBMITTED).values() for line in lines])
def test_examples_are_right(line: str) -> None:
    name, *words = shlex.split(line)
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    flags = bound.arguments.get("flags")
    given = {key[:-1]: value for key, value in vars(flags).items() if value is not None} if flags else {}
    assert name == "s2cube"
    assert load_config(given, {})
    assert len(line) <= 80


FLAGS = {
    "search --bands red": "--bands: is not a flag of search, but of run, plan, stats, composite, sync and submit. See",
    "verify --workers 2": "--workers: is not a flag of verify, but of run, plan, stats, composite, sync and submit",
    "run --save x.json": "--save: is not a flag of run, but of search",
    "run --max-clod 3": "--max-clod: is not a flag of run. Did you mean --max-cloud?",
    "run --AOI x": "--AOI: is not a flag of run. Did you mean --aoi?",
    "run --no-aoi": "--no-aoi: is not a flag of run. Did you mean --aoi?",
    "search --bnds red": "--bnds: is not a flag of search. There is --bands of run, plan, stats, "
    "composite, sync and submit",
    "run --zzz 3": "--zzz: is not a flag of run. See s2cube run --help",
    "run -x": "-x: is not a flag of run. See s2cube run --help",
    "run --bands red nir": "--bands: takes one value, and nir is another. Write --bands red,nir",
    "run --bands=red nir swir16 --out x": "Write --bands red,nir,swir16",
    "run --datetime 2024-01 2024-02": "Write --datetime 2024-01/2024-02",
    "run --aoi my fields.gpkg": "If it is one value with spaces, write --aoi 'my fields.gpkg'",
    "run fields.gpkg": "fields.gpkg: is not the value of a flag. Write its flag before it, such as --aoi fields.gpkg",
    "run --quiet yes": "yes: is not the value of a flag",
    "demo here": "here: is not the value of a flag. Write its flag before it, such as --out here",
    "status a b": "b: is a second output: status takes one",
    "verify a --out b": "a: is a second output: verify takes one",
    "run --crs": "--crs: has no value. Write --crs EPSG:N",
    "search --save --json": "--save: has no value. Write --save FILE",
    "run --overwrite=maybe": "--overwrite: takes no value. Write --overwrite or --no-overwrite",
    "run --verbose=x": "--verbose: takes no value. Write --verbose or -v",
    "run --stac a --stac b": "--stac: is given more than once. Give it once",
    "run --bands red --bands nir": "--bands: is given more than once. Write --bands A,B",
    "submit snc": "snc: is not a command that submit runs. Did you mean sync? Commands: stats, composite, sync",
    "submit --lookback 3d": "--lookback: is not a flag of submit, but of sync. See s2cube submit --help",
    "submit sync --lookbak 3d": "--lookbak: is not a flag of submit sync. Did you mean --lookback?",
    "submit sync now": "now: is not the value of a flag",
    "runn": "runn: is not a command. Did you mean run? Commands: run, plan, stats, composite, sync, search",
    "--json run": "--json: is before the command. Write the command first, such as s2cube run --json",
}
VALUES = {
    "--resolution thirty": "--resolution: 'thirty' is not a number. Give a number from 1 to 10000",
    "--resolution -30": "--resolution: '-30' is less than 1. Give a number from 1 to 10000",
    "--resolution nan": "--resolution: 'nan' is more than 10000. Give a number from 1 to 10000",
    "--retries 2.5": "--retries: '2.5' is not a whole number. Give a whole number from 0 to 20",
    "--workers 0": "--workers: '0' is less than 1. Give a whole number, 1 or more",
    "--timeout 0": "--timeout: '0' is not more than 0. Give a number above 0, up to 3600",
    "--max-aoi-cloud 101": "--max-aoi-cloud: '101' is more than 100. Give a number from 0 to 100",
    "--quality best": "--quality: 'best' is unknown. Choose exact or fast",
    "--offset 5": "--offset: '5' is unknown. Choose auto, none or -1000",
    "--mask fog": "--mask: 'fog' is unknown. Expected: none, or LAYERS: scl",
    "--mask-classes 1,x": "--mask-classes: 'x' is not a whole number. Expected: Scene CLASSES, 0 to 11",
    "--crs 4326": "--crs: '4326' is not a projected CRS in metres with an EPSG code. Expected: EPSG:N, or auto",
    "--bands red,red": "--bands: a band is named twice (given: 'red,red'). Expected: NAMES of bands, comma-separated",
    "--datetime x": "--datetime: 'x' is not a date such as 2024, 2024-06",
    "--compress-level 20": "--compress-level: deflate has no level 20 (given: '20'). Give a level from 1 to 12",
    "--compress none --compress-level 2": "--compress-level: none has no level 2 (given: '2'). Remove the level",
    "--stores x": "--stores: is not a JSON object. Expected: Endpoint, region",
    "--options []": "--options: its value is not a table. Expected: Arguments of the cluster class",
    "--class a.B": "[cluster]: a class needs the number of workers. Set --workers",
    "--class a.B --scheduler tcp://b": "[cluster]: scheduler and class exclude each other. Remove one of them",
    '--options {"a":1}': "[cluster]: options need a class. Set --class",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"), [*FLAGS.items(), *((f"run {flags}", said) for flags, said in VALUES.items())]
)
def test_a_mistake_is_named_with_its_remedy(s2cube_command: CommandLine, line: str, said: str) -> None:
    done = s2cube_command(*line.split())
    assert done.status == 2
    assert done.err.startswith("s2cube: ")
    assert said in done.err
    for foreign in ("Input should", "Token", "Correct the value", "Parameter", "parameter", "argument", "Traceback"):
        assert foreign not in done.err


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[search]\nmax_cloud = "much"', "[search] max_cloud: 'much' is not a number. Give a number from 0 to 100"),
        ("[search]\ndatetime = 5", "(given: 5). Expected: DATES: A/B"),
        ("[search]\nstac = 5", "[search] stac: 5 is not a text. Expected: URL or PATH of a STAC API"),
        ("[cube]\nbands = 5", "[cube] bands: 5 is not a list. Expected: NAMES of bands"),
        ('[job]\noverwrite = "maybe"', "[job] overwrite: 'maybe' is neither true nor false. Write true or false"),
        ('[cluster]\noptions = 3', "[cluster] options: its value is not a table"),
        ("[read]\nretries = 1.5", "[read] retries: 1.5 is not a whole number"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_named_with_its_remedy(tmp_path: Path, toml: str, said: str) -> None:
    (tmp_path / "job.toml").write_text(toml)
    with pytest.raises(ConfigError) as raised:
        load_config({}, {}, tmp_path / "job.toml")
    assert said in str(raised.value)


@pytest.mark.parametrize("command", ["search", "status"])
def test_a_file_may_have_settings_of_other_commands(
    s2cube_command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "s2cube.toml").write_text('[cube]\nbands = ["red"]\n[cluster]\nworkers = 2\n')
    monkeypatch.setenv("S2CUBE_OUTPUT__COMPRESS", "zstd")
    done = s2cube_command(command)
    assert (
        "no run has written there" if command == "status" else "there is no file aoi.geojson. Name your area"
    ) in done.err


def test_a_box_in_the_west_is_a_value(s2cube_command: CommandLine) -> None:
    """A value that begins with a negative number is not a flag."""
    words = ["search", "--aoi", "-98.2,41.1,-98.1,41.2", "--stac", "nowhere.json"]
    assert "nowhere.json" in s2cube_command(*words).err


OF_ANY_JOB = ["--datetime", "2022-06", "--stac", "http://127.0.0.1:9/"]
AREA_MISTAKES = {"nowhere.geojson": "there is no such file", "empty.geojson": "contains no features"}


@pytest.mark.parametrize("area", AREA_MISTAKES)
@pytest.mark.parametrize(
    "command",
    [
        "search",
        "run --out out",
        "run --out out --statistics mean",
        "plan --out out",
        "plan --out out --products statistics",
        "plan --out out --products composites",
        "stats --out out",
        "composite --out out --period month",
        "sync --out out --lookback 9999d",
        "sync --out out --lookback 9999d --products statistics",
        "sync --out out --lookback 9999d --products composites",
        "sync --out out --lookback 1d",  # no date is left to search
        "sync --out out --lookback 1d --products statistics",
        "sync --out out --lookback 9999d --also http://127.0.0.1:9/,other",
    ],
)
def test_wrong_areas_are_named_also_if_the_catalogue_does_not_answer(
    s2cube_command: CommandLine, command: str, area: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    made = s2cube_command(*command.split(), "--aoi", area, *OF_ANY_JOB)
    assert made.status == 2, made.err
    assert f"{area}: {AREA_MISTAKES[area]}" in made.err
