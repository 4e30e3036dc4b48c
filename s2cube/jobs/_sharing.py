"""Count what slices fetch of the files that they share."""

import math
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from s2cube.fetch.cache import Span
from s2cube.fetch.traffic import Traffic


class NeededFile(NamedTuple):
    """What a slice needs of a file: its header, and runs of tiles. A run is fetched by one request."""

    url: str
    header: Traffic
    runs: list[list[Span]]


@dataclass
class _Usage:
    """What all slices need of one file.

    Parameters
    ----------
    slices
        Number of slices that need the file.
    tiles
        Sum of what each slice needs without the header, as if no other slice had fetched a tile.
    most_requests
        Maximum number of these requests: tiles that are already fetched may split a request for n tiles into n / 2.
    gaps_bytes
        Bytes between tiles that these requests include.
    uses
        Bytes of each tile, and the number of slices that need it.
    """

    header: Traffic
    slices: int = 0
    tiles: Traffic = field(default_factory=Traffic)
    most_requests: int = 0
    gaps_bytes: int = 0
    uses: dict[Hashable, tuple[int, int]] = field(default_factory=dict)

    def add(self, part: list[Span]) -> None:
        """Add a request of a slice."""
        request = _request(part)
        self.tiles += request
        self.most_requests += math.ceil(len(part) / 2)
        self.gaps_bytes += request.bytes - sum(span.size for span in part)
        for span in part:
            self.uses[span.key] = span.size, self.uses.get(span.key, (0, 0))[1] + 1

    def at_most(self, processes: int) -> Traffic:
        """Return the maximum if several processes compute the slices. A process fetches a tile only once."""
        if self.slices == 1:
            return self.header + self.tiles
        headers = min(self.slices, processes)
        fetched = [(size, min(slices, processes)) for size, slices in self.uses.values()]
        return Traffic(
            headers * self.header.requests + min(self.most_requests, sum(times for _, times in fetched)),
            headers * self.header.bytes
            + min(self.tiles.bytes, self.gaps_bytes + sum(size * times for size, times in fetched)),
        )


class Sharing:
    """Counts what slices fetch, slice by slice. Parts of files that slices share are fetched once per process."""

    def __init__(self) -> None:
        self._first: dict[Hashable, str] = {}
        self._usages: dict[str, _Usage] = {}

    def add(self, slice_id: str, files: Iterable[NeededFile]) -> tuple[Traffic, tuple[str, ...]]:
        """Add a slice.

        Returns
        -------
        Traffic
            What the slice fetches if one process computes all slices in this order.
        tuple of str
            Slices before it that fetch other parts of its files, which it needs.
        """
        traffic, others, mine = Traffic(), set[str](), set[Hashable]()
        for file in files:
            usage = self._usages.setdefault(file.url, _Usage(file.header))
            if file.url not in mine:
                mine.add(file.url)
                usage.slices += 1
                traffic += Traffic() if file.url in self._first else file.header
                others.add(self._first.setdefault(file.url, slice_id))
            for run in file.runs:
                for part in _split(run, mine):
                    usage.add(part)
                traffic = sum(map(_request, _split(run, self._first)), traffic)
                others.update(self._first.setdefault(span.key, slice_id) for span in run)
                mine.update(span.key for span in run)
        return traffic, tuple(sorted(others - {slice_id}))

    @property
    def tiles(self) -> int:
        """Number of tiles of all slices so far, each counted once."""
        return sum(len(usage.uses) for usage in self._usages.values())

    def at_most(self, processes: int) -> Traffic:
        """Return the maximum for all slices so far, if several processes compute them, in any order."""
        return sum((usage.at_most(processes) for usage in self._usages.values()), Traffic())


def _split(run: list[Span], fetched: Container[Hashable]) -> list[list[Span]]:
    """Split a run at tiles that are already fetched, and leave them out."""
    parts: list[list[Span]] = [[]]
    for span in run:
        if span.key in fetched:
            parts.append([])
        else:
            parts[-1].append(span)
    return [part for part in parts if part]


def _request(part: list[Span]) -> Traffic:
    return Traffic(1, part[-1].stop - part[0].start)
