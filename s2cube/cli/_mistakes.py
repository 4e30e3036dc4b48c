"""Explain mistakes in a command line in the user's words. cyclopts finds them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from s2cube.config.loading import settings
from s2cube.errors import UsageError

_NEGATIVE = re.compile(r"-\.?\d")
_LAST_FLAG = re.compile(r".* (--[\w-]+)[ =](.*)")


def join_negative_values(arguments: Sequence[str]) -> list[str]:
    """Join a flag and a value that begins with a negative number, such as a box of degrees, by ``=``."""
    joined: list[str] = []
    for word in arguments:
        if _NEGATIVE.match(word) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def explain_mistake(error: CycloptsError, app: App, arguments: Sequence[str]) -> UsageError:
    """Convert an error of cyclopts into one that names what the user wrote, and what to write instead."""
    commands = {name: _arguments(each) for name, each in commands_of(app).items()}
    name = " ".join(error.command_chain or ())
    match error:
        case UnknownCommandError(unused_tokens=[word, *_]):
            return _unknown_command(word, [name for name in app if not name.startswith("-")])
        case UnknownOptionError():
            return _unknown_flag(error.token.keyword or error.token.value, name, commands)
        case UnusedCliTokensError(unused_tokens=[word, *_]) if word == arguments[1] and _below(name, commands):
            return _unknown_command(word, _below(name, commands), f"is not a command that {name} runs")
        case UnusedCliTokensError(unused_tokens=[*words]):
            return _unused(words, name, commands[name], arguments)
        case MissingArgumentError(argument=Argument() as argument):
            flag = error.keyword or argument.name
            return UsageError(flag, "has no value", f"Write {flag} {_value_of(argument)}")
        case RepeatArgumentError():
            flag = str(error.token.keyword)
            between = _separator(flag)
            remedy = f"Write {flag} A{between}B" if between else "Give it once"
            return UsageError(flag, "is given more than once", remedy)
        case CoercionError(argument=Argument() as argument):
            return UsageError(argument.name, "takes no value", f"Write {' or '.join(argument.names)}")
    return UsageError("the command line", str(error).rstrip("."), f"See s2cube {name} --help".replace("  ", " "))


def commands_of(app: App) -> dict[str, App]:
    """Return the commands by name, and those of commands, such as ``submit sync``."""
    found = {}
    for name in (each for each in app if not each.startswith("-")):
        found[name] = app[name]
        found |= {f"{name} {below}": each for below, each in commands_of(app[name]).items()}
    return found


def _below(name: str, commands: Iterable[str]) -> list[str]:
    """Return the names of the commands of a command."""
    return [each.removeprefix(f"{name} ") for each in commands if each.startswith(f"{name} ")]


def _arguments(command: App) -> dict[str, Argument]:
    """Return the arguments of a command by all of their flags."""
    return {flag: each for each in command.assemble_argument_collection() for flag in each.names}


def _unknown_command(word: str, commands: Sequence[str], problem: str = "is not a command") -> UsageError:
    if word.startswith("-"):
        return UsageError(word, "is before the command", f"Write the command first, such as s2cube run {word}")
    remedy = f"Commands: {', '.join(commands)}"
    if found := get_close_matches(word, commands, 1):
        remedy = f"Did you mean {found[0]}? {remedy}"
    return UsageError(word, problem, remedy)


def _unknown_flag(word: str, name: str, commands: Mapping[str, Mapping[str, Argument]]) -> UsageError:
    flag = word.partition("=")[0]
    mine = list(commands[name])
    written = flag.lower().replace("_", "-")
    # What submit runs has the flags of a command that is named anyway.
    named = {other: flags for other, flags in commands.items() if " " not in other}
    others = [other for other, flags in named.items() if flag in flags]
    if others and flag not in mine:
        return UsageError(flag, f"is not a flag of {name}, but of {_listed(others)}", f"See s2cube {name} --help")
    if found := get_close_matches(written, mine, 1, 0.7):
        return UsageError(flag, f"is not a flag of {name}", f"Did you mean {found[0]}?")
    every = {each: other for other, flags in named.items() for each in flags}
    remedy = f"See s2cube {name} --help"
    if found := get_close_matches(written, every, 1, 0.7):
        remedy = f"There is {found[0]} of {_listed([other for other in named if found[0] in named[other]])}"
    return UsageError(flag, f"is not a flag of {name}", remedy)


def _unused(words: Sequence[str], name: str, flags: Mapping[str, Argument], arguments: Sequence[str]) -> UsageError:
    """Explain values that belong to no flag: often the second value of a flag, or a part of one."""
    if any(each.field_info.is_positional for each in flags.values()):
        return UsageError(words[0], f"is a second output: {name} takes one", "Name one, with or without --out")
    before = " ".join(arguments[: arguments.index(words[0])] if words[0] in arguments else ())
    flag, value = _LAST_FLAG.search(before + " ").groups() if " --" in before else ("", "")  # type: ignore[union-attr]
    if flag not in flags or not flags[flag].parameter.metavar:
        such = f"--out {words[0]}" if name == "demo" else f"--aoi {words[0]}"
        return UsageError(words[0], "is not the value of a flag", f"Write its flag before it, such as {such}")
    between = _separator(flag)
    whole = between.join((value.strip(), *words)) if between else f"'{' '.join((value.strip(), *words))}'"
    remedy = f"Write {flag} {whole}" if between else f"If it is one value with spaces, write {flag} {whole}"
    return UsageError(flag, f"takes one value, and {words[0]} is another", remedy)


def _separator(flag: str) -> str:
    """Return what separates several values of a flag; nothing if it takes only one."""
    for _, key, setting in settings():
        if f"--{key.replace('_', '-')}" == flag:
            text = setting.description or ""
            return "," if "comma-separated" in text else "/" if "A/B" in text else ""
    return ""


def _value_of(argument: Argument) -> str:
    return argument.parameter.metavar or "VALUE"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
