"""Check names of statistics."""

import difflib
import re

DEFAULT = ("mean", "std", "median")

_KNOWN = (*DEFAULT, "min", "max", "count")
_PERCENTILE = re.compile(r"p([0-9]|[1-9][0-9]|100)")


def check_statistics(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of statistics and remove duplicates. The order does not change.

    Parameters
    ----------
    value
        mean, std, median, min, max, count, or pN: the percentile N, a whole number from 0 to 100.

    Raises
    ------
    ValueError
        If there is no name, or a name is unknown.
    """
    remedy = f"Choose {', '.join(_KNOWN)}, or p0 to p100"
    if not value:
        raise ValueError("there is no statistic", remedy)
    for name in value:
        if name not in _KNOWN and not _PERCENTILE.fullmatch(name):
            near = difflib.get_close_matches(name.lower(), _KNOWN)
            question = f"Do you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"'{name}' is not a statistic", question + remedy)
    return tuple(dict.fromkeys(value))
