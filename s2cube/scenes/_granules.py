"""Group the items of a search by granule, and choose the newest processing of each granule."""

from collections.abc import Iterable
from dataclasses import dataclass

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
