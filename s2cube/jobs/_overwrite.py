"""Save the progress of an --overwrite, so that the next run of the same job continues it if it is stopped."""

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter, ValidationError

from s2cube import __version__
from s2cube.area.aoi import AOI
from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.errors import S2CubeError
from s2cube.storage.json_text import as_utf8
from s2cube.storage.layout import OVERWRITE
from s2cube.storage.output import Output
from s2cube.storage.record import Instant
from s2cube.workers.results import SliceResult

log = logging.getLogger(__name__)

_SHARE = 0.05
"""Maximum share of a run's time for saving the progress. In a folder the progress is saved after every slice. In a
bucket it is saved after several slices, because each save uploads the whole file."""


@dataclass(frozen=True)
class Overwrite:
    """Progress of overwriting an output.

    Parameters
    ----------
    job
        Digest of the settings, see `job_digest`.
    began
        RFC 3339, UTC.
    total
        Number of slices to overwrite.
    slices
        Ids of the slices that are overwritten.
    """

    job: str
    began: Instant
    total: int
    slices: tuple[str, ...] = ()

    def __str__(self) -> str:
        done = f"{len(self.slices)} of {self.total} slices are written"
        return f"an --overwrite that began {self.began} is not finished: {done}"


_OVERWRITE = TypeAdapter(Overwrite)


def job_digest(config: JobConfig, aois: Iterable[AOI], product: str = "") -> str:
    """Return a digest of the areas and of all settings that determine the slices of a job and their files.

    Parameters
    ----------
    product
        What is computed of the slices, and its settings; empty for images.

    The name of the file of the areas has no effect, because a run can get its areas from Python, too.
    """
    excluded = {"overwrite", "slice_retries", "out", "aoi", "aoi_id", "aoi_layer"}
    settings = config.model_dump(mode="json", include={"job", "search", "cube", "output"})
    settings["job"] = {key: value for key, value in settings["job"].items() if key not in excluded}
    areas = sorted({(aoi.id, aoi.ground) for aoi in aois})
    content = json.dumps([__version__, settings, areas, *([product] if product else [])], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def interrupted(output: Output, job: str) -> Overwrite | None:
    """Read the progress of a stopped --overwrite of a job; None if there is none."""
    content = output.destination.read(OVERWRITE)
    if content is None:
        return None
    try:
        found = _OVERWRITE.validate_json(content, strict=True)
    except ValidationError:
        path = f"{output.destination.address}/{OVERWRITE}"
        log.warning("%s cannot be read: the progress of the stopped --overwrite is unknown", path)
        return None
    return found if found.job == job else None


class Journal:
    """Saves which slices an --overwrite has written.

    Parameters
    ----------
    todo
        Ids of the slices that are not overwritten yet.
    """

    def __init__(self, output: Output, begun: Overwrite, todo: Iterable[str]) -> None:
        self._output, self._state, self._todo = output, begun, set(todo)
        self._saved_at_s = self._duration_s = 0.0

    def add(self, result: SliceResult) -> None:
        """Add the result of a slice; a failed slice remains to be overwritten."""
        if result.failure:
            return
        self._todo.discard(result.slice)
        if result.path:
            self._state = replace(self._state, slices=tuple(dict.fromkeys((*self._state.slices, result.slice))))
        if time.monotonic() - self._saved_at_s >= self._duration_s / _SHARE:
            self.write()

    def write(self) -> None:
        """Save which slices are overwritten. Delete the file when all slices are overwritten."""
        began_s = time.monotonic()
        self._output.fence.check()
        if not self._todo:
            self._output.destination.remove(OVERWRITE)
        elif self._state.slices:
            self._output.destination.put(OVERWRITE, as_utf8(json.dumps(asdict(self._state))))
        self._saved_at_s = time.monotonic()
        self._duration_s = self._saved_at_s - began_s


@contextmanager
def journal(output: Output, job: str, todo: Collection[str]) -> Iterator[Journal]:
    """Save the progress of an --overwrite while it runs; delete it when all slices are overwritten.

    Parameters
    ----------
    job
        See `job_digest`.
    todo
        Ids of the slices that are not overwritten yet.

    Raises
    ------
    BusyError
        If another run writes there now.
    WriteError
        If the progress cannot be saved.
    """
    before = interrupted(output, job)
    slices = before.slices if before else ()
    begun = Overwrite(job, before.began if before else timestamp(), len({*slices, *todo}), slices)
    progress = Journal(output, begun, todo)
    try:
        yield progress
    except BaseException:
        with suppress(S2CubeError):
            progress.write()
        raise
    progress.write()
