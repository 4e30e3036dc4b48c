"""Compare existing images with a plan: what has changed since they were written."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2cube.config.sections import CubeSection
from s2cube.output._existing_items import read_items
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.time_slice import Plan, TimeSlice
from s2cube.storage.image_item import DATA_VERSION as MADE_BY_VERSION
from s2cube.storage.image_item import GROUND, SEARCH, SETTINGS, ImageItem
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_FIRST_DATA_VERSION = 1
"""Data version of Items without this property."""


@dataclass(frozen=True)
class Comparison:
    """A time slice, and its existing image.

    Parameters
    ----------
    is_there
        Whether there is an image, with all its files.
    settings
        Settings that the user has changed since the image was written, described for people.
    others
        Other changes, described for people.
    lost
        Ids of scenes of the image that the search no longer finds.
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
        """Whether a new image would lack scenes of the old one although the user has changed no setting."""
        return self.is_there and not self.settings and bool(self.lost)


def compare(plan: Plan, output: Output, sizes: Mapping[str, int], config: CubeSection) -> Iterator[Comparison]:
    """Compare the slices of a plan with the images in an output.

    Parameters
    ----------
    sizes
        See `Output.sizes`.
    """
    items = read_items(output, plan.aoi.id, [each.id for each in plan.slices])
    for each, made in zip(plan.slices, items, strict=True):
        yield _compare(plan, each, made, sizes, config) if made else Comparison(each)


def _compare(plan: Plan, each: TimeSlice, made: ImageItem, sizes: Mapping[str, int], config: CubeSection) -> Comparison:
    found = {scene.id for scene in each.scenes}
    lost = {*made.scenes} - found - {dropped.scene for dropped in each.dropped}
    if flaw := made.flaw(sizes):
        without = f", without {', '.join(sorted(lost))}, which the search no longer finds" if lost else ""
        log.warning("%s: will be recomputed%s: %s", each.id, without, flaw)
        return Comparison(each)
    if (made.recipe, made.bands) == (each.recipe, config.bands):
        return Comparison(each, is_there=True)
    settings = _changed_settings(made, plan, config)
    others = list(_other_changes(made, found))
    if not settings and not others:
        others = ["its scenes were processed again, or their files have changed"]
    return Comparison(each, True, settings, tuple(others), tuple(sorted(lost)))


def _changed_settings(made: ImageItem, plan: Plan, config: CubeSection) -> tuple[str, ...]:
    """Describe which settings differ from those of an image, as far as its Item contains them."""
    properties = made.properties
    pairs = [("bands", ",".join(made.bands), ",".join(config.bands))]
    for name, now in ((SETTINGS, settings_of(config)), (SEARCH, plan.search)):
        before = properties.get(name)
        if isinstance(before, Mapping):
            pairs += [(key, _text(before[key]), _text(now[key])) for key in now if key in before]
    changes = [f"{name} was {before}, is now {now}" for name, before, now in pairs if before != now]
    if properties.get(GROUND, plan.aoi.ground) != plan.aoi.ground:
        changes.append("the area has changed")
    return tuple(changes)


def _other_changes(made: ImageItem, found: set[str]) -> Iterator[str]:
    if made.properties.get(MADE_BY_VERSION, _FIRST_DATA_VERSION) != DATA_VERSION:
        yield "this version of s2cube may compute other pixels from the same scenes"
    if found - {*made.scenes}:
        yield "it has new scenes"
    elif {*made.scenes} - found:
        yield "some of its scenes are gone or were replaced"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
