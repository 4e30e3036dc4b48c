"""Write placeholders of values for help texts, and explanations of invalid values for errors."""

import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from s2cube.errors import ConfigError

_CAPITALS = re.compile(r"\b[A-Z]+(?:[:/=][A-Z]+)*\b")

_PROBLEMS = {
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "dataclass_type": "is not a value of this setting",
    "dict_type": "is not a table",
    "extra_forbidden": "is not the value of a setting",
    "finite_number": "is not a finite number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "greater_than": "is not more than {gt:g}",
    "greater_than_equal": "is less than {ge:g}",
    "int_from_float": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_parsing_size": "is too large a number",
    "int_type": "is not a whole number",
    "less_than_equal": "is more than {le:g}",
    "literal_error": "is unknown",
    "path_type": "is not a path",
    "string_type": "is not a text",
    "tuple_type": "is not a list",
}
"""What pydantic finds wrong with a value, by its name of the problem. pydantic's own messages are for programmers."""


def choices(setting: FieldInfo) -> tuple[str, ...]:
    """Return the values of a setting that has a fixed list of values, or of each element of a setting."""
    return tuple(
        value for part in _parts(setting.annotation) if get_origin(part) is Literal for value in get_args(part)
    )


def placeholder(setting: FieldInfo) -> str:
    """Return what help shows in the place of a value: its choices, or the first word in capitals of its description."""
    kinds = set(_parts(setting.annotation))
    if (values := choices(setting)) and not _is_list(kinds):
        return "|".join(values)
    if found := _CAPITALS.search(setting.description or ""):
        return found[0]
    return "N" if int in kinds else "NUMBER" if float in kinds else "TEXT"


def explain(
    error: ValidationError, model: type[BaseModel], origin: Callable[[Sequence[str | int]], str]
) -> ConfigError:
    """Convert the first problem that pydantic found into an error in the user's words.

    Parameters
    ----------
    model
        Model that was validated.
    origin
        Function that returns where a value was set (flag, variable or key), from its location in the model.
    """
    first = error.errors(include_url=False)[0]
    setting, place = _setting_at(model, first["loc"]), origin(first["loc"])
    # Do not show tables and JSON: they may contain a secret key, although this is not allowed.
    is_hidden = isinstance(first["input"], dict) or not {"stores", "options"}.isdisjoint(first["loc"])
    context = first.get("ctx", {})
    if first["type"] == "value_error":
        problem, *remedies = map(str, context["error"].args)
        given = "" if is_hidden or repr(first["input"]) in problem else f" (given: {first['input']!r})"
        return ConfigError(place, problem + given, remedies[0] if remedies else _advice(setting))
    value = "its value" if is_hidden else repr(first["input"])
    return ConfigError(place, f"{value} {problem_of(first)}", _advice(setting))


def problem_of(found: ErrorDetails) -> str:
    """Describe what pydantic found wrong with a value, without the value."""
    return _PROBLEMS.get(found["type"], f"is not accepted ({found['msg']})").format_map(found.get("ctx", {}))


def _advice(setting: FieldInfo | None) -> str:
    """Describe the values of a setting."""
    if setting is None:
        return "Correct the value"
    kinds = set(_parts(setting.annotation))
    is_list = _is_list(kinds)
    if (values := choices(setting)) and not is_list:
        return f"Choose {', '.join(values[:-1])} or {values[-1]}"
    if bool in kinds:
        return "Write true or false"
    if kinds & {int, float} and not is_list:
        return f"Give {'a whole number' if int in kinds else 'a number'}{_limits(setting)}"
    return f"Expected: {str(setting.description).rstrip('.')}"


def _is_list(kinds: set[Any]) -> bool:
    return any(get_origin(each) is tuple for each in kinds)


def _limits(setting: FieldInfo) -> str:
    """Describe the lowest and the highest value of a setting."""
    nested = [each for part in _parts(setting.annotation) if isinstance(part, FieldInfo) for each in part.metadata]
    found = {
        name: getattr(each, name) for each in (*setting.metadata, *nested) for name in ("ge", "gt", "le")
        if hasattr(each, name)
    }  # fmt: skip
    if "le" in found:
        return f" from {found['ge']:g} to {found['le']:g}" if "ge" in found else f" above 0, up to {found['le']:g}"
    return f", {found['ge']:g} or more" if "ge" in found else ""


def _setting_at(model: type[BaseModel], location: Sequence[str | int]) -> FieldInfo | None:
    for step in location:
        setting = next((each for name, each in model.model_fields.items() if (each.alias or name) == step), None)
        if setting is None:
            return None
        if not (isinstance(setting.annotation, type) and issubclass(setting.annotation, BaseModel)):
            return setting
        model = setting.annotation
    return None


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield a type and the types in it."""
    yield annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple):
        for each in get_args(annotation):
            yield from _parts(each)
