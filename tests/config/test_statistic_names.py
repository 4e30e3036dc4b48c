"""Names of statistics."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, BeforeValidator

from s2cube.config._parsers import DEFAULT_STATISTICS, check_statistics, split_names
from s2cube.config.sections import Section
from s2cube.errors import ConfigError


class Example(Section):
    statistics: Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(check_statistics)] = (
        DEFAULT_STATISTICS
    )


def checked(text: str) -> tuple[str, ...]:
    return Example.of({"statistics": text}).statistics


def test_known_names_keep_their_order() -> None:
    assert checked("p90,mean,min, p0,max,count,p100,std,median,p7") == (
        "p90", "mean", "min", "p0", "max", "count", "p100", "std", "median", "p7",
    )  # fmt: skip
    assert Example().statistics == ("mean", "std", "median")


def test_duplicates_are_removed() -> None:
    assert checked("std,mean,std,p5,p5") == ("std", "mean", "p5")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("p101", None), ("p-1", None), ("p2.5", None), ("p05", None), ("p", None), ("", None), ("p١", None),
        ("p5\n", None), ("Mean", "mean"), ("medien", "median"), ("average", None), ("stdev", "std"),
    ],
)  # fmt: skip
def test_unknown_names(name: str, near: str | None) -> None:
    with pytest.raises(ConfigError, match="is not a statistic") as caught:
        Example.of({"statistics": ["mean", name]})
    text = str(caught.value)
    assert "Choose mean, std, median, min, max, count, or p0 to p100" in text
    assert ("Do you mean" in text) == (near is not None)
    assert near is None or f"Do you mean {near}" in text


def test_no_name() -> None:
    with pytest.raises(ConfigError, match="there is no statistic"):
        Example.of({"statistics": ()})
