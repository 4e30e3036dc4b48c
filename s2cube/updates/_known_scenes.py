"""The scenes that passes have seen in the catalogue, and what has changed since the last pass."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from s2cube.config.sections import CubeSection
from s2cube.config.times import TimeRange, timestamp
from s2cube.errors import S2CubeError
from s2cube.scenes.assets import used_keys
from s2cube.scenes.recipe import scene_part
from s2cube.scenes.scene import UNKNOWN_TIME
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.storage.destination import Destination
from s2cube.storage.layout import SCENES

log = logging.getLogger(__name__)


SECOND = "second"


@dataclass(frozen=True)
class KnownScene:
    """A scene that a pass has seen: the newest processing of a granule.

    Parameters
    ----------
    granule
        Key that is equal for all processings of the granule.
    files
        Digest of the names of the files that are used. Versions of other files are not compared.
    version
        Digest of the processing and the versions of these files. Empty if the scene cannot be used.
    acquired
        Time of acquisition, RFC 3339, UTC.
    catalogue
        `SECOND` for a scene of the second catalogue; empty for one of the first.
    """

    id: str
    granule: str
    files: str
    version: str
    acquired: str
    catalogue: str = ""

    @classmethod
    def of(cls, scene: SceneFacts, config: CubeSection, catalogue: str = "") -> Self:
        """Return what is kept of a scene."""
        files = version = ""
        try:
            files = _digest([used_keys(scene.item, config), config.offset])
            version = _digest(scene_part(scene.item, config))
        except S2CubeError:
            version = ""
        acquired = timestamp(scene.sort_key[0])
        return cls(scene.item.id, _digest(repr(scene.granule_key)), files, version, acquired, catalogue)

    @property
    def time(self) -> datetime:
        """Time of acquisition, UTC."""
        return datetime.fromisoformat(self.acquired)

    def is_other_version_of(self, before: "KnownScene") -> bool:
        """Return whether this is another processing, or has other files, than the scene had before."""
        are_comparable = self.version and before.version and self.files == before.files
        return self.id != before.id or bool(are_comparable and self.version != before.version)


@dataclass(frozen=True)
class Changes:
    """What the catalogue has now, compared with the last pass.

    Parameters
    ----------
    found
        All scenes of the search.
    new, late, reprocessed
        Scenes of `found`, see `Pass`.
    missing
        Known scenes of the first catalogue that the search does not find. They are withdrawn only if it confirms it.
    """

    found: tuple[KnownScene, ...]
    new: tuple[KnownScene, ...]
    late: tuple[KnownScene, ...]
    reprocessed: tuple[KnownScene, ...]
    missing: tuple[KnownScene, ...]


@dataclass(frozen=True)
class KnownScenes:
    """What passes keep for the next one, in a file of the output.

    Parameters
    ----------
    started
        Start of the last pass, RFC 3339, UTC; empty before the first pass.
    since
        Earliest time that passes have searched, RFC 3339, UTC; empty if they have searched all times.
    scenes
        The scenes.
    withdrawn
        Ids of the scenes that the catalogue has withdrawn.
    pending
        When a pass first found a scene not readable, RFC 3339, UTC, by the id of the scene.
    unfinished
        Times of acquisition of the scenes whose composites failed in the last pass, RFC 3339, UTC.
    """

    started: str = ""
    since: str = ""
    scenes: tuple[KnownScene, ...] = ()
    withdrawn: tuple[str, ...] = ()
    pending: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()

    @property
    def begin(self) -> datetime | None:
        """Start of the last pass; None before the first one."""
        return datetime.fromisoformat(self.started) if self.started else None

    def without_other_copies(self, found: Iterable[KnownScene]) -> list[KnownScene]:
        """Leave out scenes of the second catalogue whose granules are known from the first one, which is not there."""
        of_first = {each.granule for each in self.scenes if not each.catalogue}
        return [each for each in found if not (each.catalogue and each.granule in of_first)]

    def changes(self, found: Sequence[KnownScene], within: TimeRange) -> Changes:
        """Compare scenes that a search has found with the known ones.

        Parameters
        ----------
        within
            Range of dates of the search.
        """
        by_granule = {each.granule: each for each in self.scenes}
        by_id = {each.id: each for each in self.scenes}
        since = datetime.fromisoformat(self.since) if self.since else None
        sorts: dict[str, list[KnownScene]] = {"new": [], "late": [], "reprocessed": []}
        for each in found:
            before = by_granule.get(each.granule) or by_id.get(each.id)
            if before is None:
                is_late = self.begin and each.time < self.begin and (since is None or each.time >= since)
                sorts["late" if is_late else "new"].append(each)
            elif each.is_other_version_of(before):
                sorts["reprocessed"].append(each)
        there = {each.granule for each in found} | {each.id for each in found}
        missing = (each for each in self.scenes if each.granule not in there and each.id not in there)
        return Changes(
            tuple(found), tuple(sorts["new"]), tuple(sorts["late"]), tuple(sorts["reprocessed"]),
            tuple(
                each
                for each in missing
                if not each.catalogue and (each.time in within or each.time.year == UNKNOWN_TIME.year)
            ),
        )  # fmt: skip

    def after(self, found: Iterable[KnownScene], withdrawn: Iterable[str]) -> Self:
        """Return the scenes that are known after a pass.

        Parameters
        ----------
        withdrawn
            Ids of the scenes that are known to be withdrawn.
        """
        found = list(found)
        ids, granules, gone = {each.id for each in found}, {each.granule for each in found}, {*withdrawn}
        kept = [
            each for each in self.scenes if each.id not in ids and each.granule not in granules and each.id not in gone
        ]
        scenes = sorted([*kept, *found], key=lambda each: (each.acquired, each.id, each.granule))
        return replace(self, scenes=tuple(scenes), withdrawn=tuple(sorted((gone | {*self.withdrawn}) - ids)))


def read_known_scenes(destination: Destination) -> KnownScenes:
    """Read what earlier passes have kept. If it cannot be read, the next pass is like the first one, with a warning."""
    content = destination.read(SCENES)
    if content is None:
        return KnownScenes()
    try:
        return _parse(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        path = f"{destination.address}/{SCENES}"
        log.warning("%s cannot be read: all scenes count as new, and no scene as withdrawn", path)
        return KnownScenes()


def write_known_scenes(destination: Destination, known: KnownScenes) -> None:
    """Write what the next pass must know.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    destination.put(SCENES, json.dumps(asdict(known)).encode())


def _parse(content: Any) -> KnownScenes:
    scenes = tuple(KnownScene(**{name: _text(value) for name, value in each.items()}) for each in content["scenes"])
    found = KnownScenes(
        _text(content["started"]), _text(content["since"]), scenes, tuple(map(_text, content["withdrawn"])),
        {_text(name): _text(value) for name, value in content["pending"].items()},
        tuple(map(_text, content["unfinished"])),
    )  # fmt: skip
    times = [*(each.acquired for each in scenes), *found.pending.values(), *found.unfinished]
    for each in [*times, *filter(None, (found.started, found.since))]:
        if datetime.fromisoformat(each).tzinfo is None:
            raise ValueError("a time without a zone")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
