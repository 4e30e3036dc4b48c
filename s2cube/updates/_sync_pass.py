"""One pass of `s2cube sync`: make what has changed in the catalogue since the last pass, and nothing else."""

import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from s2cube.config.sections import JobConfig
from s2cube.config.times import TimeRange, timestamp
from s2cube.errors import SearchError
from s2cube.fetch.session import reset
from s2cube.jobs.pipeline import Watch
from s2cube.report.page import write_report_if_wanted
from s2cube.report.request import areas_of_part, keep_request
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import (
    Catalogue,
    TwoCatalogues,
    find_withdrawn,
    newest,
    open_catalogue,
    open_two_catalogues,
)
from s2cube.sentinel2 import canonical_bands
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.updates._known_scenes import SECOND, Changes, KnownScene, KnownScenes, read_known_scenes, write_known_scenes
from s2cube.updates._products import Made, check_areas, daily_products, for_products, make_composites
from s2cube.updates._window import after
from s2cube.updates._withdrawal import remove_withdrawn
from s2cube.updates.pass_record import Pass, append_pass

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def make_pass(config: JobConfig, watch: Watch | None = None, clock: Callable[[], datetime] = utc_now) -> Pass:
    """Make one pass, and add it to ``sync.jsonl``.

    Parameters
    ----------
    watch
        Object whose methods are called when slices are planned and after each slice.
    clock
        Function that returns the time, UTC.

    Raises
    ------
    S2CubeError
        If the pass cannot be made: a setting or the AOI is not valid, the catalogue fails, the output cannot be
        written, or another run writes there. A failed slice does not raise an error.
    """
    canonical_bands(config.cube.bands)
    config = for_products(config)
    # A file may have changed under its address since the last pass of this process.
    reset()
    with held(Output.at(config.job.out)) as lease:
        started = clock()
        known = _with_possible_start(read_known_scenes(lease.output.destination), started)
        made, known = _Work(config, lease, known, started, Made(lease.output.destination.address, watch)).done()
        made = replace(made, ended=timestamp(clock()))
        lease.check()
        # If the process is killed here, the next pass makes nothing, but names these scenes again.
        append_pass(lease.output.destination, made)
        write_known_scenes(lease.output.destination, known)
    write_report_if_wanted(config, lease.output)
    return made


def _with_possible_start(known: KnownScenes, now: datetime) -> KnownScenes:
    """Correct the start of the last pass, if the clock was set back since then."""
    if known.begin is None or known.begin <= now:
        return known
    log.warning("the last pass began at %s, which is later than now: the clock was set back", known.started)
    return replace(known, started=timestamp(now))


@dataclass(frozen=True)
class _Work:
    """The work of one pass.

    Parameters
    ----------
    known
        What earlier passes have seen.
    made
        Receives what is made.
    """

    config: JobConfig
    lease: Lease
    known: KnownScenes
    started: datetime
    made: Made

    def done(self) -> tuple[Pass, KnownScenes]:
        """Do the work; return what was done, and what the next pass must know."""
        within = self._window()
        if within is None:
            check_areas(self.config)
            log.warning("nothing is searched: --datetime ends before the days that --lookback reaches (see --full)")
            nothing = Pass(timestamp(self.started), "")
            return nothing, replace(self.known, started=timestamp(self.started))
        catalogue = self._catalogue()
        search = self.config.search.model_copy(update={"datetime": within})
        config = self.config.model_copy(update={"search": search})
        with daily_products(config, self.lease, catalogue, self.made) as daily:
            keep_request(self.lease.output, self.config, areas_of_part(daily.aois))
            found = self._found(newest(daily.scenes), catalogue)
            changes = self.known.changes(found, within)
            withdrawn = self._withdrawn(changes, catalogue)
            gone = ({*self.known.withdrawn} | withdrawn) - {each.id for each in found}
            removed = remove_withdrawn(self.lease.output, gone, daily.planned)
            daily.make()
        touched = self._touched(changes, withdrawn, daily.times_of(self.made.written))
        unfinished = make_composites(self.config, self.lease, catalogue, self.made, touched)
        pending = self._pending()
        known = replace(
            self.known.after(found, gone),
            started=timestamp(self.started),
            since=self._since(within),
            pending=pending,
            unfinished=tuple(map(timestamp, unfinished)),
        )
        made = self._report(changes, withdrawn, removed, pending)
        if isinstance(catalogue, TwoCatalogues):
            made = replace(made, also=tuple(sorted(catalogue.taken)), outage=catalogue.outage)
        return made, known

    def _catalogue(self) -> Catalogue:
        """Open the catalogue, or both of them. If this fails, a mistake in the areas is named first."""
        search, also = self.config.search, self.config.sync.also
        kept = (each.id for each in self.known.scenes if each.catalogue)
        try:
            if also is None:
                return open_catalogue(search, self.config.read.timeout_s)
            return open_two_catalogues(search, also, kept, self.config.read.timeout_s)
        except SearchError:
            check_areas(self.config)
            raise

    def _found(self, scenes: Iterable[SceneFacts], catalogue: Catalogue) -> list[KnownScene]:
        """Return what is kept of the scenes that a search has found."""
        if not isinstance(catalogue, TwoCatalogues):
            return [KnownScene.of(each, self.config.cube) for each in scenes]
        places = ((each, SECOND if each.item.id in catalogue.taken else "") for each in scenes)
        found = [KnownScene.of(each, self.config.cube, place) for each, place in places]
        return self.known.without_other_copies(found) if catalogue.first is None else found

    def _window(self) -> TimeRange | None:
        """Return the dates to search; None if there are none.

        They reach back from the last pass, if that is long ago, and to the scenes that are not readable yet.
        """
        if self.config.sync.full:
            return self.config.search.datetime or TimeRange(None, None)
        try:
            begin = (self.known.begin or self.started) - self.config.sync.lookback
        except OverflowError:
            begin = datetime.min.replace(tzinfo=UTC)
        waiting = (each.time for each in self.known.scenes if self._waits(self.known.pending.get(each.id)))
        return after(self.config.search.datetime, min(begin, *waiting, self.started))

    def _waits(self, since: str | None) -> bool:
        """Return whether a scene that is not readable since a time is still waited for."""
        return since is not None and self.started - datetime.fromisoformat(since) < self.config.sync.pending_for

    def _since(self, within: TimeRange) -> str:
        """Return the earliest time that passes have searched."""
        if within.start is None or (self.known.started and not self.known.since):
            return ""
        return min(filter(None, (self.known.since, timestamp(within.start))))

    def _withdrawn(self, changes: Changes, catalogue: Catalogue) -> frozenset[str]:
        """Return the ids of missing scenes that the catalogue has withdrawn: it is asked for them."""
        missing = {each.id for each in changes.missing}
        others = (each.id for each in (*changes.found, *self.known.scenes) if each.id not in missing)
        present = next(others, None)
        if not missing or present is None:
            return frozenset()
        return find_withdrawn(missing, present, self.config.search, catalogue) & missing

    def _touched(self, changes: Changes, withdrawn: Set[str], made: list[datetime]) -> list[datetime]:
        """Return the times of the scenes for which composites may have changed."""
        changed = [*changes.new, *changes.late, *changes.reprocessed]
        changed += [each for each in changes.missing if each.id in withdrawn]
        changed += [each for each in self.known.scenes if each.id in self.known.pending]
        earlier = map(datetime.fromisoformat, self.known.unfinished)
        return sorted({*(each.time for each in changed), *earlier, *made})

    def _pending(self) -> dict[str, str]:
        """Return since when scenes are not readable, by id. Their slices are no failures while they are waited for."""
        absent = {each.absent for each in self.made.failures.values() if each.absent}
        return {each: self.known.pending.get(each, timestamp(self.started)) for each in sorted(absent)}

    def _report(self, changes: Changes, withdrawn: Set[str], removed: list[str], pending: dict[str, str]) -> Pass:
        waiting = {name for name, since in pending.items() if self._waits(since)}
        failures = self.made.failures
        no_failures = {name for name, each in failures.items() if each.absent in waiting}
        if no_failures:
            self.lease.output.failures.remove(no_failures)
            log.info("%d slices wait for files that their scenes do not have yet", len(no_failures))
        return Pass(
            timestamp(self.started),
            "",
            len(changes.found),
            new=_ids(changes.new),
            late=_ids(changes.late),
            reprocessed=_ids(changes.reprocessed),
            withdrawn=tuple(sorted(withdrawn)),
            pending=tuple(sorted(waiting)),
            written=tuple(sorted(self.made.written)),
            failed=tuple(sorted({*failures} - no_failures)),
            removed=tuple(removed),
            requests=self.made.requests,
            bytes=self.made.bytes,
            files=tuple(sorted(self.made.files)),
        )


def _ids(scenes: Iterable[KnownScene]) -> tuple[str, ...]:
    return tuple(sorted({each.id for each in scenes}))
