"""Merge TOML file, environment and flags into one validated JobConfig."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from s2cube.config.sections import JobConfig, Section
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


def load_config(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> JobConfig:
    """Merge flags, environment and TOML file into one configuration.

    Parameters
    ----------
    flags
        Values of the flags that the user sets, by key. They override the environment.
    environ
        Environment variables. Only variables with the prefix ``S2CUBE_`` are used. They override the file.
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
    values: dict[str, dict[str, object]] = {}
    origins: dict[tuple[str, str], str] = {}
    for source in (_from_file(file), _from_environment(environ), _from_flags(flags)):
        for section, key, value, origin in source:
            values.setdefault(section, {})[key] = value
            origins[section, key] = origin
    known = {(section, key) for section, key, _ in settings()}
    for section, key in origins.keys() - known:
        raise _unknown(origins[section, key], section, known)
    try:
        return JobConfig.model_validate(values)
    except ValidationError as error:
        raise explain(
            error, JobConfig, lambda loc: origins[str(loc[0]), str(loc[1])] if loc[1:] else f"[{loc[0]}]"
        ) from None


_Setting = tuple[str, str, object, str]


def _from_file(file: Path | None) -> Iterator[_Setting]:
    if file is None and not DEFAULT_FILE.exists():
        return
    path = file or DEFAULT_FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a byte order mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            str(path), f"cannot be read as TOML: {error}", "Correct it, or choose another --config"
        ) from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}", "is outside a section", "Put it under its [section]")
        for key, value in table.items():
            yield section, key, value, f"{path}: [{section}] {key}"


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Setting]:
    for name, value in environ.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            yield section, key, value, name


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Setting]:
    section_of = {key: section for section, key, _ in settings()}
    for key, value in flags.items():
        yield section_of[key], key, value, "--" + key.replace("_", "-")


def _unknown(origin: str, section: str, known: set[tuple[str, str]]) -> ConfigError:
    keys = sorted(key for its_section, key in known if its_section == section)
    if keys:
        return ConfigError(origin, "unknown key", f"Keys of [{section}]: {', '.join(keys)}")
    sections = ", ".join(f"[{name}]" for name in JobConfig.model_fields)
    return ConfigError(origin, "unknown section", f"Sections: {sections}")
