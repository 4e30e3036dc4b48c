"""Join the scenes of a search to the areas of interest that they cover."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import SearchSection
from s2cube.config.times import TimeRange, day_begin
from s2cube.errors import SliceError
from s2cube.scenes._granules import find_granules
from s2cube.scenes.scene import UNKNOWN_TIME, footprint, sort_key
from s2cube.scenes.scene_facts import SceneFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

log = logging.getLogger(__name__)

_SAME_PASS = timedelta(minutes=1)
"""Maximum time difference between two processings of one granule. Known differences are milliseconds."""


class Join:
    """Areas of interest that are searched together, and the scenes that were found for each of them.

    Parameters
    ----------
    facts_of
        Returns the value that is stored for an item that covers an area.

    Attributes
    ----------
    scenes
        The scenes of each area, in the order of arrival. Areas share them.
    """

    def __init__(
        self, aois: Sequence[AOI], config: SearchSection, facts_of: Callable[[pystac.Item], SceneFacts]
    ) -> None:
        import numpy as np
        import shapely

        self._aois, self._config, self._facts_of = aois, config, facts_of
        self._days = [days_searched(aoi, config) for aoi in aois]
        self._times = TimeRange.around([days for days in self._days if days])
        self._shapes = np.array([aoi.geometry_lonlat.geom for aoi in aois], dtype=object)
        self._tree = shapely.STRtree(self._shapes)
        self._open = set(range(len(aois)))
        """Positions of the areas that do not have all their scenes yet."""
        self.scenes: list[list[SceneFacts]] = [[] for _ in aois]

    def add_all(self, items: Iterable[pystac.Item]) -> None:
        """Add the items of an answer. Items that cover no area are not stored."""
        for item in items:
            self._add(item)

    def add_newest(self, items: Iterable[pystac.Item]) -> None:
        """Add the items of an answer. If they arrive newest first, stop when every area has enough complete days."""
        earliest, in_order = UNKNOWN_TIME, True
        for item in items:
            time, _ = sort_key(item)
            in_order &= time <= earliest
            if in_order and time < earliest:
                self._open -= {each for each in self._open if self._has_enough(each, earliest, time)}
                if not self._open:
                    return
            self._add(item)
            if time < UNKNOWN_TIME:
                earliest = time

    def _add(self, item: pystac.Item) -> None:
        covered = [position for position in self._covered_by(item) if position in self._open]
        if covered:
            scene = self._facts_of(item)
            for position in covered:
                self.scenes[position].append(scene)

    def _covered_by(self, item: pystac.Item) -> list[int]:
        """Return the positions of the areas that a scene covers at a time that is searched."""
        if item.collection_id not in (None, self._config.collection):
            return []
        time, _ = sort_key(item)
        if not _may_be_in(time, self._times):
            return []
        unknown: SliceError | None = None
        try:
            near = self._met_by(footprint(item)).tolist()
        except SliceError as error:
            # The scene may cover the areas. Include it, so that only its slices fail, and the search continues.
            near, unknown = range(len(self._aois)), error
        covered = [position for position in near if _may_be_in(time, self._days[position])]
        if unknown and covered:
            others = f" and {len(covered) - 1} other areas" if covered[1:] else ""
            log.warning("%s. s2cube assumes that it covers %s%s", unknown, self._aois[covered[0]].id, others)
        return covered

    def _met_by(self, outline: "BaseGeometry") -> "NDArray[np.intp]":
        """Return the positions of the areas that a footprint intersects, and does not only touch."""
        import numpy as np
        import shapely

        positions: NDArray[np.intp] = np.sort(self._tree.query(outline, predicate="intersects"))
        shapely.prepare(outline)
        # This is faster than to ask whether they touch: the footprint contains most areas.
        beyond = ~shapely.contains(outline, self._shapes[positions])
        beyond[beyond] = shapely.touches(outline, self._shapes[positions[beyond]])
        met: NDArray[np.intp] = positions[~beyond]
        return met

    def _has_enough(self, position: int, earliest: datetime, time: datetime) -> bool:
        """Check whether an area has `max_items` granules, and all scenes of the day of the earliest.

        A day that is only partly in `config.datetime` is not counted.

        Parameters
        ----------
        earliest
            Time of the earliest item so far.
        time
            Time of the next item.
        """
        scenes, lon, enough = self.scenes[position], self._aois[position].lon, self._config.max_items or 0
        if len(scenes) < enough or time >= day_begin(earliest, lon) - _SAME_PASS:
            return False
        exact = self._config.datetime and self._config.datetime.at(lon)
        counted = 0
        for each in find_granules(scenes):
            taken, _ = each.scene.sort_key
            is_full = (
                exact is None
                or taken == UNKNOWN_TIME
                or day_begin(taken, lon) + timedelta(days=1) <= (exact.end or UNKNOWN_TIME)
            )
            counted += is_full and is_clear(each.scene, self._config)
        return counted >= enough


def days_searched(aoi: AOI, config: SearchSection) -> TimeRange | None:
    """Return the solar days of an area that a search must find completely; None for all days."""
    return config.datetime and config.datetime.whole_days_at(aoi.lon)


def _may_be_in(time: datetime, times: TimeRange | None) -> bool:
    """Check whether a scene may be of a time range. None: every scene is."""
    return times is None or time == UNKNOWN_TIME or time in times


def is_clear(scene: SceneFacts, config: SearchSection) -> bool:
    """Check the cloud cover of a scene."""
    if config.max_cloud_percent == 100:
        return True
    return scene.cloud_percent is not None and scene.cloud_percent <= config.max_cloud_percent
