"""Save which rows an --overwrite has written, so that the next run of the same job continues it if it is stopped."""

import hashlib
import json
import logging
from io import BytesIO
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from s2cube import __version__
from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.storage.layout import OVERWRITE_ROWS
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_STATE = b"s2cube:overwrite"


class RowJournal:
    """Which rows a stopped --overwrite has written, and those that this run adds.

    There may be millions of rows, so their ids are in a Parquet file.

    Parameters
    ----------
    job
        Digest of the settings that determine the rows. The areas are not among them: rows are compared with the
        outlines of their fields in any case.
    is_overwriting
        Whether this run is an --overwrite.
    """

    def __init__(self, output: Output, job: str, is_overwriting: bool) -> None:
        self.output, self.is_overwriting, self._job = output, is_overwriting, job
        self._began, self._written = timestamp(), list[pa.Array]()
        self._ids: set[str] | None = None

    @classmethod
    def of(cls, output: Output, config: JobConfig) -> Self:
        """Read the journal of a job, and report an --overwrite that is not finished."""
        excluded = {"overwrite", "slice_retries", "out"}
        settings = config.model_dump(mode="json", include={"job", "search", "cube"})
        settings["job"] = {key: value for key, value in settings["job"].items() if key not in excluded}
        # A worker does not know the address of the catalogue.
        settings["search"].pop("stac")
        content = json.dumps([__version__, settings, config.table.chosen], sort_keys=True, default=str)
        found = cls(output, hashlib.sha256(content.encode()).hexdigest()[:16], config.job.overwrite)
        found._read()
        return found

    def _read(self) -> None:
        content = self.output.destination.read(OVERWRITE_ROWS)
        if content is None:
            return
        path = f"{self.output.destination.address}/{OVERWRITE_ROWS}"
        try:
            table = pq.read_table(BytesIO(content), page_checksum_verification=True)
            state = json.loads(table.schema.metadata[_STATE])
            job, began, ids = state["job"], str(state["began"]), table["slice"]
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
            log.warning("%s cannot be read: the progress of the stopped --overwrite is unknown", path)
            return
        if job != self._job:
            return
        if self.is_overwriting:
            rest = f"this run computes the others (delete {path} to start again)"
            self._began, self._written = began, ids.chunks
        else:
            rest = "the others are unchanged (--overwrite recomputes them)"
        begun = f"an --overwrite that began {began} is not finished: {len(ids)} rows are written"
        log.warning("%s: %s; %s", self.output.destination.address, begun, rest)

    def has(self, slice_id: str) -> bool:
        """Return whether this --overwrite has written a row."""
        if self._ids is None:
            self._ids = {each for array in self._written for each in array.to_pylist()}
        return slice_id in self._ids

    @property
    def is_empty(self) -> bool:
        """Whether this --overwrite has written no row."""
        return not self._written

    def add(self, slices: pa.ChunkedArray) -> None:
        """Add rows that are in the table now."""
        if not self.is_overwriting:
            return
        self._written += slices.chunks
        self._ids = None
        content, state = BytesIO(), json.dumps({"job": self._job, "began": self._began})
        table = pa.table({"slice": pa.chunked_array(self._written, pa.string())})
        table = table.replace_schema_metadata({_STATE: state})
        pq.write_table(table, content, compression="zstd", write_page_checksum=True)
        self.output.fence.check()
        self.output.destination.put(OVERWRITE_ROWS, content.getvalue())

    def end(self) -> None:
        """Delete the journal, because all rows are overwritten."""
        if self.is_overwriting:
            self.output.fence.check()
            self.output.destination.remove(OVERWRITE_ROWS)
