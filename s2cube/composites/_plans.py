"""Group the time slices of areas into periods: one composite per area and period."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

from s2cube.config.composites import DAY_METHODS, Method
from s2cube.config.periods import DayRange, Period, Periods
from s2cube.config.sections import CubeSection, JobConfig
from s2cube.config.times import solar_day
from s2cube.errors import AssetMissingError, ConfigError
from s2cube.scenes.recipe import DATA_VERSION
from s2cube.scenes.time_slice import Plan, Task, TimeSlice, UnusableSlice
from s2cube.sentinel2 import canonical_bands, class_band_of, reflectance_bands
from s2cube.spectral_indices import bands_of_indices
from s2cube.workers.composite_task import CompositeTask

_Day = TimeSlice | UnusableSlice


@dataclass(frozen=True)
class CompositePlan(Plan):
    """The composite of one area and one period. Its slice has the scenes of all days.

    Parameters
    ----------
    period
        None: the area has no scenes, so it has no composite.
    days, without
        `CompositeTask.days` and `CompositeTask.unusable`.
    """

    period: Period | None = None
    days: tuple[TimeSlice, ...] = ()
    without: tuple[UnusableSlice, ...] = ()

    def tasks(self) -> tuple[Task, ...]:
        """Return the task of the composite, if it can be computed."""
        if self.period is None:
            return ()
        return tuple(
            CompositeTask(
                self.aoi, self.geobox, each, self.search, period=self.period, days=self.days, unusable=self.without
            )
            for each in self.slices
        )


@dataclass(frozen=True)
class Grouping:
    """Groups time slices into periods.

    Parameters
    ----------
    config
        All settings.
    """

    config: JobConfig

    @cached_property
    def method(self) -> Method:
        """The method of the composites."""
        return self.config.composite.chosen

    def plans(self, plan: Plan) -> Iterator[CompositePlan]:
        """Yield the composites of an area, in the order of time.

        Raises
        ------
        ConfigError
            If the period needs a range of dates with both ends.
        """
        lon = plan.aoi.lon
        periods = Periods(self.config.composite.period, DayRange.of(self.config.search.datetime, lon))
        found: dict[Period, list[_Day]] = {}
        undated = tuple(each for each in plan.unusable if each.time is None)
        every: list[_Day] = [*plan.slices, *plan.unusable]
        for each in sorted(every, key=lambda each: (str(each.time), each.id)):
            if each.time and (period := periods.of(_day(each.time, lon))):
                found.setdefault(period, []).append(each)
        if undated or not found:
            yield CompositePlan(plan.aoi, plan.geobox, (), undated, plan.search)
        for period, days in found.items():
            yield self._of_period(plan, period, days)

    def _of_period(self, plan: Plan, period: Period, days: Sequence[_Day]) -> CompositePlan:
        name = f"{plan.aoi.id}_{period.name}_{self.method.name}"
        usable = tuple(each for each in days if isinstance(each, TimeSlice))
        unusable = tuple(each for each in days if isinstance(each, UnusableSlice))
        search = {**plan.search, **_settings(self.method, period)}
        one = CompositePlan(plan.aoi, plan.geobox, (), (), search, period, usable, unusable)
        if len(unusable) > self.config.composite.allow_missing_days or not usable:
            scenes = tuple(scene for each in days for scene in _scene_ids(each))
            failed = UnusableSlice(name, scenes, unusable[0].error, days[0].time, days[-1].end)
            return replace(one, unusable=(failed,))
        whole = TimeSlice(
            id=name,
            time=min(each.time for each in usable),
            end=max(each.end for each in usable),
            scenes=tuple(scene for each in usable for scene in each.scenes),
            dropped=tuple(dict.fromkeys(dropped for each in usable for dropped in each.dropped)),
            recipe=_recipe(self.method, period, usable, unusable),
        )
        return replace(one, slices=(whole,))


def _settings(method: Method, period: Period) -> Mapping[str, Any]:
    """Return the settings of a composite that an Item stores. A changed one is reported."""
    days = f"{period.begin}/{period.end}"
    return {"days": days, "min_count": method.min_count, "score": method.written_score}


def _recipe(method: Method, period: Period, days: Iterable[TimeSlice], unusable: Iterable[UnusableSlice]) -> str:
    """Return the digest of everything that affects the pixels of a composite, except the choice of bands."""
    how = [method.name, method.score, method.is_least, method.min_count]
    of_period = [period.name, period.begin.isoformat(), period.end.isoformat()]
    content = [DATA_VERSION, how, of_period, [each.recipe for each in days], [each.id for each in unusable]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _scene_ids(day: _Day) -> Iterator[str]:
    return (scene if isinstance(scene, str) else scene.id for scene in day.scenes)


def _day(instant: datetime, lon: float) -> date:
    return date.fromisoformat(solar_day(instant, lon))


def check_bands(cube: CubeSection, method: Method) -> None:
    """Check that a method suits the bands.

    Raises
    ------
    ConfigError
        If it does not.
    """
    subject, spectral = f"method '{method.name}'", canonical_bands(reflectance_bands(cube.bands))
    classes = [each for each in cube.bands if class_band_of(each)]
    if classes and method.name not in DAY_METHODS:
        problem = f"computes no {classes[0]}: it is a class, and classes have no {method.name}"
        raise ConfigError(subject, problem, "Leave the band out, or choose first, best or medoid")
    if method.name in ("geomedian", "medoid") and not spectral:
        raise ConfigError(subject, "needs bands of reflectance, and there are none", "Set --bands, or use the median")
    lacking = [each for each in bands_of_indices(cube.indices) if each not in spectral]
    if method.name == "geomedian" and lacking:
        problem = f"computes the indices of its own spectrum, which has no {', '.join(lacking)}"
        raise ConfigError(subject, problem, f"Add {','.join(lacking)} to --bands, or leave the indices out")


def check_score(method: Method, plans: Iterable[Plan]) -> None:
    """Check that some scene has the bands of the score.

    Raises
    ------
    ConfigError
        If all slices of all areas lack one of them.
    """
    plans = [plan for plan in plans if plan.slices or plan.unusable]
    errors = [each.error for plan in plans for each in plan.unusable]
    if not method.score or not plans or any(plan.slices for plan in plans):
        return
    bands = bands_of_indices([method.score])
    if all(isinstance(error, AssetMissingError) and error.asset in bands for error in errors):
        problem = f"needs {', '.join(sorted({error.asset for error in errors}))}, which no scene has"
        raise ConfigError(f"score '{method.score}'", problem, "Choose another index")
