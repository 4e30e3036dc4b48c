"""Group the items of a search by granule, and choose the newest processing of each granule."""

from collections.abc import Iterable
from dataclasses import dataclass

import pystac

from s2cube.scenes.scene import baseline_of, name_of_granule, view
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.time_slice import Dropped


@dataclass(frozen=True)
class Granule:
    """All scenes of one granule.

    Parameters
    ----------
    scene
        The newest processing.
    older
        The other processings, newest first; and other items of the newest processing.
    """

    scene: SceneFacts
    older: tuple[SceneFacts, ...] = ()

    def is_older_than(self, other: "Granule") -> bool:
        """Return whether another catalogue has a newer processing baseline of the granule."""
        is_same = self.scene.granule_key == other.scene.granule_key
        return is_same and baseline_of(self.scene.item) < baseline_of(other.scene.item)

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The scenes that are not used, with the reason, ordered by id."""
        kept = self.scene
        found = [
            Dropped(other.item.id, kept.item.id, "listed twice")
            if other.processed == kept.processed
            else Dropped(other.item.id, kept.item.id, "older processing of the same granule")
            for other in self.older
        ]
        return tuple(sorted(found, key=lambda each: each.scene))


def find_granules(scenes: Iterable[SceneFacts]) -> list[Granule]:
    """Group scenes by granule. The choice of the newest processing does not depend on the order of the scenes."""
    of_granule: dict[object, list[SceneFacts]] = {}
    for scene in scenes:
        of_granule.setdefault(scene.granule_key, []).append(scene)
    return [Granule(group[0]) if len(group) == 1 else _granule(group) for group in of_granule.values()]


def _granule(processings: list[SceneFacts]) -> Granule:
    # The text is the last sort key, so that the choice is always the same.
    newest, *older = sorted(processings, key=lambda each: (each.processed, each.item.id, each.json), reverse=True)
    return Granule(newest, tuple(older))


def each_once(
    here: list[SceneFacts], there: list[SceneFacts], kept: frozenset[str]
) -> tuple[list[SceneFacts], set[str]]:
    """Choose the catalogue of each granule; return the scenes, oldest first, and the ids of those of the second one.

    Parameters
    ----------
    here, there
        Scenes of the first and the second catalogue.
    kept
        Ids of scenes of the second one, which are preferred, unless the first one has a newer processing baseline.
    """
    own = _Named(here)
    chosen, taken, left_out = list[SceneFacts](), set[str](), set[int]()
    for each in find_granules(there):
        same = own.granule_of(each.scene.item)
        if same is not None and each.scene.item.id not in kept:
            continue
        chosen += [each.scene, *each.older]
        if same is not None and each.is_older_than(same):
            # Both are returned. So the image of the older one is replaced, as for two processings in one catalogue.
            continue
        left_out |= {id(scene) for scene in (same.scene, *same.older)} if same else set()
        taken.add(each.scene.item.id)
    scenes = [*(each for each in here if id(each) not in left_out), *chosen]
    return sorted(scenes, key=lambda scene: scene.sort_key), taken


class _Named:
    """Finds granules by names that are equal in different catalogues."""

    def __init__(self, scenes: list[SceneFacts]) -> None:
        self._by_name: dict[object, Granule] = {}
        self._by_view: dict[object, Granule] = {}
        for each in find_granules(scenes):
            self._by_name[name_of_granule(each.scene.item)] = each
            self._by_view[view(each.scene.item)] = each

    def granule_of(self, item: pystac.Item) -> Granule | None:
        """Return the granule of a scene of another catalogue. Views are compared if one of the two has no name."""
        name, seen = name_of_granule(item), view(item)
        if name and name in self._by_name:
            return self._by_name[name]
        found = self._by_view.get(seen) if seen else None
        return found if found and not (name and name_of_granule(found.scene.item)) else None
