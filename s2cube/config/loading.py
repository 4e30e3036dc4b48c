"""Merge TOML file, environment and flags into one validated JobConfig."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from s2cube.config._section import Section
from s2cube.config.paths import expand_user
from s2cube.config.sections import JobConfig
from s2cube.config.wording import explain
from s2cube.errors import ConfigError

ENVIRONMENT_PREFIX = "S2CUBE_"
DEFAULT_FILE = Path("s2cube.toml")


def settings() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield section, key and field of every setting."""
    for section, section_field in JobConfig.model_fields.items():
        model: type[Section] = section_field.annotation  # type: ignore[assignment]
        for name, field in model.model_fields.items():
            yield section, field.alias or name, field


def load_config(
    values: Mapping[str, object] | str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    file: str | Path | None = None,
) -> JobConfig:
    """Merge values, environment and TOML file into one configuration, as the command line does.

    Parameters
    ----------
    values
        Values by key, flat (``{"bands": "red,nir"}``) or in sections (``{"cube": {"bands": "red,nir"}}``), as text or
        in Python types. They override the environment. A path or a text is the TOML file.
    environ
        Environment variables. Only variables with the prefix ``S2CUBE_`` are used. They override the file. None: those
        of this process, ``os.environ``; ``{}``: none.
    file
        TOML file. Default: ``./s2cube.toml`` if it exists.

    Raises
    ------
    ConfigError
        If a key is unknown, a value is not valid, or the file cannot be read. The error names the flag, the variable
        or the key in the file.

    Examples
    --------
    >>> import s2cube
    >>> config = s2cube.load_config({"bands": "red,nir"}, {"S2CUBE_CUBE__RESOLUTION": "20"})
    >>> config.cube.bands, config.cube.resolution_m, config.cube.dtype
    (('red', 'nir'), 20.0, 'int16')
    """
    if isinstance(values, str | Path):
        if file is not None:
            raise ConfigError("load_config", "gets two files", "Give the values as a dict, or leave out file")
        values, file = None, values
    merged: dict[str, dict[str, object]] = {}
    origins: dict[tuple[str, str], str] = {}
    for source in (_from_file(file), _from_environment(environ), _from_values(values)):
        for section, key, value, origin in source:
            merged.setdefault(section, {})[key] = value
            origins[section, key] = origin
    known = {(section, key) for section, key, _ in settings()}
    for section, key in origins.keys() - known:
        raise _unknown(origins[section, key], section, known)
    try:
        return JobConfig.model_validate(merged)
    except ValidationError as error:
        raise explain(
            error, JobConfig, lambda loc: origins[str(loc[0]), str(loc[1])] if loc[1:] else f"[{loc[0]}]"
        ) from None


_Setting = tuple[str, str, object, str]


def _from_file(file: object) -> Iterator[_Setting]:
    if file is None and not DEFAULT_FILE.exists():
        return
    if file is not None and not isinstance(file, str | Path):
        raise ConfigError("file", f"is a {type(file).__name__}, not a path", "Give the path of a TOML file")
    path = DEFAULT_FILE if file is None else expand_user(Path(file))
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            str(path), f"cannot be read as TOML: {error}", "Correct it, or choose another --config"
        ) from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}", "is outside a section", "Put it under its [section]")
        for key, value in table.items():
            yield section, key, value, f"{path}: [{section}] {key}"


def _from_environment(environ: object) -> Iterator[_Setting]:
    variables = os.environ if environ is None else environ
    if not isinstance(variables, Mapping):
        raise ConfigError("environ", f"is a {type(environ).__name__}, not a mapping", "Give os.environ, or {}")
    for name, value in variables.items():
        if isinstance(name, str) and name.startswith(ENVIRONMENT_PREFIX):
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            yield section, key, value, name


def _from_values(values: object) -> Iterator[_Setting]:
    if values is None:
        return
    if not isinstance(values, Mapping):
        problem = f"are a {type(values).__name__}, not a dict of settings"
        raise ConfigError("the settings", problem, "Give a dict of keys and values, or the path of a TOML file")
    section_of = {key: section for section, key, _ in settings()}
    for name, value in values.items():
        if name in JobConfig.model_fields:
            if not isinstance(value, Mapping):
                problem = f"is a {type(value).__name__}, not a dict"
                raise ConfigError(f"[{name}]", problem, "Give the settings of this section by their keys")
            yield from ((str(name), str(key), each, f"[{name}] {key}") for key, each in value.items())
            continue
        key = str(name).removeprefix("--").replace("-", "_")
        if key not in section_of:
            close = get_close_matches(key, section_of, 1)
            remedy = f"Did you mean {close[0]}?" if close else f"Keys: {', '.join(section_of)}"
            raise ConfigError(str(name), "unknown key", remedy)
        yield section_of[key], key, value, "--" + key.replace("_", "-")


def _unknown(origin: str, section: str, known: set[tuple[str, str]]) -> ConfigError:
    keys = sorted(key for its_section, key in known if its_section == section)
    if keys:
        return ConfigError(origin, "unknown key", f"Keys of [{section}]: {', '.join(keys)}")
    sections = ", ".join(f"[{name}]" for name in JobConfig.model_fields)
    return ConfigError(origin, "unknown section", f"Sections: {sections}")
