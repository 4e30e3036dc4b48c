"""Generate the parts of the reference that come from the code: settings, commands and the Python API."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import s2cube
from s2cube.cli._mistakes import commands_of
from s2cube.cli.commands import app
from s2cube.config.sections import JobConfig


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the markers of a page. MkDocs calls this function when it reads the page."""
    for marker, write in (("settings", settings), ("commands", commands), ("python", python)):
        line = f"<!-- {marker} -->"
        if line in markdown:
            markdown = markdown.replace(line, "\n".join(write()))
    return markdown


def settings() -> Iterator[str]:
    """Write a table for each section of the settings."""
    for section, section_field in JobConfig.model_fields.items():
        model: Any = section_field.annotation
        yield f"\n## `[{section}]`\n\n{model.__doc__}\n"
        rows = []
        for name, field in model.model_fields.items():
            key = field.alias or name
            rows.append((f"`{_flag(key)}`", f"`{key}`", _description(field), _default(field.default)))
        yield from _table(("flag", "key", "meaning", "default"), rows)


def commands() -> Iterator[str]:
    """Write, for each command, its description, its flags and examples."""
    setting_flags = [_flag(field.alias or name) for name, field in _fields()]
    for name, command in commands_of(app).items():
        arguments = [each for each in command.assemble_argument_collection() if each.parameter.help]
        accepted = [each.name for each in arguments if each.name in setting_flags]
        yield f"\n## `s2cube {name}`\n\n{command.help}\n"
        if len(accepted) > 1:
            arguments = [each for each in arguments if each.name not in setting_flags]
            accepts_all = accepted == setting_flags
            quantity = "All" if accepts_all else f"{len(accepted)} of the"
            names = "" if accepts_all else ": " + ", ".join(f"`{each}`" for each in accepted)
            yield f"{quantity} [settings](settings.md) are flags of this command{names}.\n"
        rows = [(", ".join(f"`{name}`" for name in each.names), str(each.parameter.help)) for each in arguments]
        yield from _table(("flag", "meaning"), rows)
        heading, *examples = str(command.help_epilogue).splitlines()
        yield "\n".join(("", heading, "", "```sh", *examples, "```"))


def python() -> Iterator[str]:
    """Write each public name, with a marker that mkdocstrings replaces by its description."""
    for name in s2cube.__all__:
        value = getattr(s2cube, name)
        yield f"\n## `s2cube.{name}`\n\n::: {value.__module__}.{value.__qualname__}\n"


def _fields() -> Iterator[tuple[str, Any]]:
    for section_field in JobConfig.model_fields.values():
        model: Any = section_field.annotation
        yield from model.model_fields.items()


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _description(field: Any) -> str:
    choices = [f"`{value}`" for value in get_args(field.annotation) if isinstance(value, str)]
    return f"{field.description} Choices: {', '.join(choices)}." if choices else str(field.description)


def _default(value: object) -> str:
    if value is None or value is False or value == ():
        return ""
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        cells = (each.replace("|", r"\|") for each in row)
        yield f"| {' | '.join(cells)} |"
