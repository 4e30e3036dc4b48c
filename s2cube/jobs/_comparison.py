"""Compare an existing image with what is asked for now: what has changed since it was made."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from s2cube.config.sections import CubeSection
from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.time_slice import Plan, TimeSlice
from s2cube.storage.image_item import DATA_VERSION as MADE_BY_VERSION
from s2cube.storage.image_item import GROUND, SEARCH, SETTINGS, ImageItem
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_FIRST_DATA_VERSION = 1
"""Data version of Items that do not state one."""


@dataclass(frozen=True)
class Comparison:
    """A time slice, and its existing image.

    Parameters
    ----------
    is_there
        Whether there is an image, with all its files.
    settings
        Settings that the user has changed since the image was made, in words.
    others
        Other changes, in words.
    lost
        Ids of scenes that the image was made of, and that the search no longer finds.
    """

    slice: TimeSlice
    is_there: bool = False
    settings: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether there is an image of the same scenes with the same settings."""
        return self.is_there and not self.changes

    @property
    def changes(self) -> tuple[str, ...]:
        """All changes; empty if the image is up to date."""
        return (*self.settings, *self.others)

    @property
    def would_lose_scenes(self) -> bool:
        """Whether a new image would lack scenes that the old one has, though the user has changed nothing."""
        return self.is_there and not self.settings and bool(self.lost)


def compare(plan: Plan, output: Output, sizes: Mapping[str, int], config: CubeSection) -> Iterator[Comparison]:
    """Compare the slices of a plan with the images in an output.

    Parameters
    ----------
    sizes
        See `Output.sizes`.
    """
    with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
        yield from threads.map(partial(_compared, plan, output, sizes, config), plan.slices)


def _compared(plan: Plan, output: Output, sizes: Mapping[str, int], config: CubeSection, each: TimeSlice) -> Comparison:
    made = output.item(plan.aoi.id, each.id)
    if made is None:
        return Comparison(each)
    found = {scene.id for scene in each.scenes}
    lost = {*made.scenes} - found - {dropped.scene for dropped in each.dropped}
    if flaw := made.flaw(sizes):
        without = f", without {', '.join(sorted(lost))}, which the search no longer finds" if lost else ""
        log.warning("%s: will be made again%s: %s", each.id, without, flaw)
        return Comparison(each)
    if (made.recipe, made.bands) == (each.recipe, config.bands):
        return Comparison(each, is_there=True)
    settings = _changed_settings(made, plan, config)
    others = list(_other_changes(made, found))
    if not settings and not others:
        others = ["its scenes were processed again, or their files have changed"]
    return Comparison(each, True, settings, tuple(others), tuple(sorted(lost)))


def _changed_settings(made: ImageItem, plan: Plan, config: CubeSection) -> tuple[str, ...]:
    """Say which settings differ from those of an image, as far as its Item states them."""
    told = made.properties
    pairs = [("bands", ",".join(made.bands), ",".join(config.bands))]
    for name, now in ((SETTINGS, settings_of(config)), (SEARCH, plan.search)):
        before = told.get(name)
        if isinstance(before, Mapping):
            pairs += [(key, _shown(before[key]), _shown(now[key])) for key in now if key in before]
    changes = [f"{name} was {before}, is now {now}" for name, before, now in pairs if before != now]
    if told.get(GROUND, plan.aoi.ground) != plan.aoi.ground:
        changes.append("the area has changed")
    return tuple(changes)


def _other_changes(made: ImageItem, found: set[str]) -> Iterator[str]:
    if made.properties.get(MADE_BY_VERSION, _FIRST_DATA_VERSION) != DATA_VERSION:
        yield "this version of s2cube may make other pixels of the same scenes"
    if found - {*made.scenes}:
        yield "it has new scenes"
    elif {*made.scenes} - found:
        yield "some of its scenes are gone or were replaced"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
