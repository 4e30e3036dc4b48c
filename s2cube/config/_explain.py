"""Convert errors of pydantic into errors that name where a value was set."""

from typing import Any

from pydantic import ValidationError

from s2cube.errors import ConfigError


def explain(error: ValidationError, origin: Any) -> ConfigError:
    """Convert the first problem that pydantic found into a ConfigError.

    Parameters
    ----------
    origin
        Function that returns where a value was set (flag, variable or key), from its location in the model.
    """
    first = error.errors(include_url=False)[0]
    problem = first["msg"].removeprefix("Value error, ")
    # Do not show the value of `stores`: it may contain a secret key, although this is not allowed.
    is_hidden = isinstance(first["input"], dict) or "stores" in first["loc"]
    given = "" if is_hidden else f" (given: {first['input']!r})"
    return ConfigError(str(origin(first["loc"])), f"{problem}{given}", "Correct the value")
