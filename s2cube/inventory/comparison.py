"""Compare existing images with a plan, and describe what has changed since they were written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s2cube.config.sections import CubeSection
from s2cube.inventory.renewal import is_older
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.time_slice import Plan, TimeSlice
from s2cube.storage.image_item import DATA_VERSION as MADE_BY_VERSION
from s2cube.storage.image_item import GROUND, MISSING, SEARCH, SETTINGS, ImageItem
from s2cube.storage.output import Output

_FIRST_DATA_VERSION = 1
"""Data version of an Item without this property."""


@dataclass(frozen=True)
class Comparison:
    """A time slice, compared with its existing image.

    Parameters
    ----------
    is_there
        Whether the image exists with all its files.
    settings
        Descriptions of settings that the user has changed since the image was written.
    others
        Descriptions of other changes.
    lost
        Ids of scenes of the image that the search does not find any more.
    is_older
        Whether the Item of the image has an older form, see `renewal.is_older`.
    flaw
        Why an image with an Item is not there: a file that is missing or has another size. Empty if it is there.
    """

    slice: TimeSlice
    is_there: bool = False
    settings: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    is_older: bool = False
    flaw: str = ""

    @property
    def is_same(self) -> bool:
        """Whether an image of the same scenes with the same settings exists."""
        return self.is_there and not self.changes

    @property
    def changes(self) -> tuple[str, ...]:
        """All changes; empty if the image is up to date."""
        return (*self.settings, *self.others)

    @property
    def would_lose_scenes(self) -> bool:
        """Whether a new image would lack scenes of the existing one. False if the user has changed a setting."""
        return self.is_there and not self.settings and bool(self.lost)


def compare(
    plans: Sequence[Plan], output: Output, sizes: Mapping[str, int], config: CubeSection, most_missing: int = 0
) -> Iterator[Comparison]:
    """Compare the slices of plans, plan by plan, with the images in an output.

    Parameters
    ----------
    sizes
        See `Output.sizes`.
    most_missing
        Maximum number of days that a composite may lack because they could not be read.
    """
    present = [output.present(plan.aoi.id, [each.id for each in plan.slices], sizes) for plan in plans]
    items = output.read_items(
        (plan.aoi.id, each.id)
        for plan, there in zip(plans, present, strict=True)
        for each in plan.slices
        if each.id in there
    )
    for plan, there in zip(plans, present, strict=True):
        for each in plan.slices:
            existing = next(items) if each.id in there else None
            if existing:
                found = _compare(plan, each, existing, sizes, config)
                lacks = len(existing.properties.get(MISSING, ()))
                if found.is_same and lacks > most_missing:
                    found = replace(found, others=(f"it lacks {lacks} days, which could not be read",))
                yield replace(found, is_older=is_older(existing))
            else:
                yield Comparison(each)


def _compare(
    plan: Plan, each: TimeSlice, existing: ImageItem, sizes: Mapping[str, int], config: CubeSection
) -> Comparison:
    found = {scene.id for scene in each.scenes}
    lost = {*existing.scenes} - found - {dropped.scene for dropped in each.dropped}
    if flaw := existing.flaw(sizes):
        without = f", without {', '.join(sorted(lost))}, which the search no longer finds" if lost else ""
        return Comparison(each, lost=tuple(sorted(lost)), flaw=f"will be recomputed{without}: {flaw}")
    if (existing.recipe, existing.bands) == (each.recipe, config.image_bands):
        return Comparison(each, is_there=True)
    if existing.name:
        was = (
            f"an image '{existing.name}' has its name, which write_cogs wrote of values that were computed from a cube"
        )
        return Comparison(each, is_there=True, others=(was,))
    settings = _changed_settings(existing, plan, config)
    others = list(_other_changes(existing, found))
    if not settings and not others:
        others = ["its scenes were processed again, or their files have changed"]
    return Comparison(each, True, settings, tuple(others), tuple(sorted(lost)))


def _changed_settings(existing: ImageItem, plan: Plan, config: CubeSection) -> tuple[str, ...]:
    """Describe the settings that differ from those in the Item of an image. Settings that it lacks are ignored."""
    properties = existing.properties
    pairs = [("bands", ",".join(existing.bands), ",".join(config.image_bands))]
    for name, now in ((SETTINGS, settings_of(config)), (SEARCH, plan.search)):
        before = properties.get(name)
        if isinstance(before, Mapping):
            pairs += [(key, _text(before[key]), _text(now[key])) for key in now if key in before]
    changes = [f"{name} was {before}, is now {now}" for name, before, now in pairs if before != now]
    if properties.get(GROUND, plan.aoi.ground) != plan.aoi.ground:
        changes.append("the area has changed")
    return tuple(changes)


def _other_changes(existing: ImageItem, found: set[str]) -> Iterator[str]:
    if existing.properties.get(MADE_BY_VERSION, _FIRST_DATA_VERSION) != DATA_VERSION:
        yield "this version of s2cube may compute other pixels from the same scenes"
    if found - {*existing.scenes}:
        yield "it has new scenes"
    elif {*existing.scenes} - found:
        yield "some of its scenes are gone or were replaced"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
