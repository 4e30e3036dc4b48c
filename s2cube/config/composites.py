"""The method of composites: how the observations of a period become one value; and the settings of composites."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from s2cube.config._parsers import empty_to_none
from s2cube.config._section import Section
from s2cube.config.literals import CompositeMethod
from s2cube.config.periods import check_period
from s2cube.errors import ConfigError
from s2cube.spectral_indices import canonical_indices

DAY_METHODS = ("medoid", "best", "first")
"""Methods that choose one day for each cell, so that the cell has a date."""

_BEST_SCORE = "NDVI"
"""Score of ``best`` if none is named: the greenest observation, the usual maximum-NDVI composite (Holben 1986,
doi:10.1080/01431168608948945)."""

_TIMES = {"time": True, "-time": False}
_SCORE = re.compile(r"(-?)([A-Za-z]\w*)")


@dataclass(frozen=True)
class Method:
    """How the observations of a period become one value.

    Parameters
    ----------
    name
        The method.
    score
        Name of the index of ``best``; empty for other methods.
    is_least
        ``best``: the least score wins. ``first``: the latest day wins.
    min_count
        Cells with fewer observations are nodata.
    """

    name: CompositeMethod
    score: str = ""
    is_least: bool = False
    min_count: int = 1

    @classmethod
    def parse(cls, name: str, score: str | None = None, min_count: int = 1) -> Self:
        """Check a method, its score and its minimum count.

        Raises
        ------
        ConfigError
            If the method is unknown, if the score is no score of this method, or if the minimum count is less than 1.

        Examples
        --------
        >>> Method.parse("best", "-NDWI")
        Method(name='best', score='NDWI', is_least=True, min_count=1)
        >>> Method.parse("first", "-time").is_least
        True
        """
        known = get_args(CompositeMethod)
        if name not in known:
            raise ConfigError("method", f"{name!r} is unknown", f"Choose {', '.join(known[:-1])} or {known[-1]}")
        if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
            problem = f"{min_count!r} is not a whole number of 1 or more"
            raise ConfigError("min_count", problem, "Give the least number of observations of a cell: 1 or more")
        of_score = cls._score_of(name, score or None)
        return cls(name, *of_score, min_count)  # type: ignore[arg-type]

    @property
    def written_score(self) -> str:
        """The score as a user writes it; empty if the method has none."""
        score = self.score or ("time" if self.is_least else "")
        return f"-{score}" if self.is_least else score

    @staticmethod
    def _score_of(name: str, score: str | None) -> tuple[str, bool]:
        """Return the index, and whether the least score wins."""
        if name == "best":
            found = _SCORE.fullmatch(score or _BEST_SCORE)
            if not found or found[2] == "time":
                problem = f"{score!r} is not the name of an index"
                raise ConfigError("score", problem, "Name an index: NDVI for the greatest, -NDVI for the least")
            return found[2], bool(found[1])
        if score is None:
            return "", False
        if name != "first":
            problem = f"has no effect on the method {name}"
            raise ConfigError("score", problem, "Use it with the method best, or remove it")
        if score not in _TIMES:
            problem = f"{score!r} is not a score of the method first"
            raise ConfigError("score", problem, "Write -time for the latest day, or choose the method best")
        return "", not _TIMES[score]


class CompositeSection(Section):
    """Composites of the images of a period."""

    period: Annotated[str, AfterValidator(check_period)] = Field(
        "month", description="PERIOD: month, season, year, all, or a number of days such as P10D."
    )
    method: CompositeMethod = Field(
        "median",
        description="median or mean of each band; geomedian of all bands; medoid, the observation nearest to it; "
        "best, the observation of the greatest score; first, the earliest one.",
    )
    score: Annotated[str | None, BeforeValidator(empty_to_none)] = Field(
        None, description="INDEX of the method best, default NDVI; -NDVI for the least; -time: the latest of first."
    )
    min_count: int = Field(1, ge=1, description="Pixels with fewer than N observations become nodata.")
    allow_missing_days: int = Field(
        0, ge=0, description="Compute a composite if up to N of its days cannot be read. Its Item lists them."
    )

    @field_validator("score")
    @classmethod
    def _check_score(cls, score: str | None, others: ValidationInfo) -> str | None:
        if score and (method := others.data.get("method")):
            try:
                _chosen(method, score, 1)
            except ConfigError as error:
                subject = "" if error.subject == "score" else f"{error.subject} "
                raise ValueError(f"{subject}{error.problem}", error.remedy) from None
        return score

    @property
    def chosen(self) -> Method:
        """The method. The name of its score has the spelling of the catalogue."""
        return _chosen(self.method, self.score, self.min_count)


def _chosen(name: str, score: str | None, min_count: int) -> Method:
    found = Method.parse(name, score, min_count)
    return replace(found, score=canonical_indices((found.score,))[0]) if found.score else found
