"""Search an API until its answer is complete: return every scene, or raise an error.

A page without a link to the next page is not always the last page. Some servers forget the link. Some lose scenes at
page boundaries. So the search compares the number of received scenes with the server's count. If the server reports no
count, the search requests scenes beyond the last one. If scenes are missing, it repeats parts of the time range.
"""

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from s2cube.errors import SearchError
from s2cube.stac._pages import Page, identity, read_pages
from s2cube.stac._refusal import RETRIES, AnswerError
from s2cube.stac.api import Api
from s2cube.stac.question import PAGE_SIZE, Question

log = logging.getLogger(__name__)

_MOST_PAGES = 10_000
"""Maximum number of pages of an answer, with all its parts: a million scenes at 100 scenes per page."""
_DEEPEST = 24
"""Maximum number of times that a time range is halved: it reduces 2015 to 2026 to about 20 seconds."""
_MOST_WITHOUT_NEW = 40
"""Maximum number of consecutive requests that return no new scene."""
_COUNTED_UP_TO = 10_000
"""By default, Elasticsearch stops counting here. So a count that is a multiple of this number may be too small."""
_RETRIES_OF_SMALLER_PAGES = 1
_LAST_S = 253_402_300_799
"""9999-12-31T23:59:59Z: there are no later dates."""
_REPORT_IT = "Report it to the operator of the catalogue"
_DAY = timedelta(days=1)

_Features = Generator[list[Any], None, "_Received"]
"""Yields the new features of each page. Returns everything that was received."""


def complete_answer(api: Api, question: Question) -> Iterator[list[Any]]:
    """Yield the features of all pages, each scene once.

    Raises
    ------
    AnswerError
        If the API refuses a request, or does not return a complete answer.
    SearchError
        If an answer is not a page, if the pages never end, or if the API returns fewer scenes than it counts.
    """
    search = _Search(api)
    if question.ids:
        yield from search.by_ids(question)
        return
    received = yield from search.by_time(question, 0)
    if not received.is_complete:
        raise SearchError(
            question.stac, f"returns {received.count} scenes, but counts {received.matched}",
            "Try again later, or request fewer dates; if it happens again, report it to the operator of the catalogue",
        )  # fmt: skip


@dataclass
class _Received:
    """The scenes received for a question.

    Parameters
    ----------
    ids
        Ids of the scenes.
    scenes
        Acquisition time of each scene, by the identity of the scene; None if the scene has no time.
    repeats
        Number of scenes that a page repeats. A catalogue that lists a scene twice also counts it twice.
    matched
        Number of scenes that the server counts; None if it reports no count.
    instants, sizes, limit
        Of the last chain of pages: acquisition times of its scenes in the order of arrival; number of scenes of each
        page; requested number of scenes per page.
    is_settled
        Whether the answer is known to be complete, although the count or the last page suggests missing scenes.
    """

    question: Question
    ids: set[str] = field(default_factory=set)
    scenes: dict[str, datetime | None] = field(default_factory=dict)
    repeats: int = 0
    matched: int | None = None
    instants: list[datetime] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    limit: int = PAGE_SIZE
    is_settled: bool = False

    def reset_pages(self, limit: int) -> None:
        """Forget the pages before a new chain of pages. Keep the scenes."""
        self.instants, self.sizes, self.limit, self.repeats = [], [], limit, 0

    def add_page(self, page: Page) -> None:
        """Add a page."""
        named = {identity(feature): _acquired(feature) for feature in page.features}
        self.scenes |= named
        self.ids |= {str(feature.get("id")) for feature in page.features if isinstance(feature, dict)}
        self.repeats += len(page.features) - len(named)
        self.instants += [instant for instant in named.values() if instant]
        self.sizes.append(len(page.features))
        if page.matched is not None:
            self.matched = max(page.matched, self.matched or 0)

    def add_part(self, other: "_Received") -> None:
        """Add the scenes received for a part of this question. Keep the server's count for the full question."""
        self.scenes |= other.scenes
        self.repeats += other.repeats
        self.instants, self.sizes, self.limit = other.instants, other.sizes, other.limit

    @property
    def count(self) -> int:
        """Number of received scenes, counted in the same way as the server counts: with repeats."""
        return len(self.scenes) + self.repeats

    @property
    def has_missing(self) -> bool:
        """Whether fewer scenes were received than the server counts."""
        return self.matched is not None and self.count < self.matched

    @property
    def has_open_end(self) -> bool:
        """Whether a link to the next page may be missing: the server reports no count, or the last page is full."""
        size = self.sizes[-1] if self.sizes else 0
        if self.matched is None:
            return size > 0
        # A server may return fewer scenes per page than requested. Then all pages have one size, often a round number.
        is_round = size % 5 == 0 or (size >= 8 and size & (size - 1) == 0)
        return size > 0 and (size >= self.limit or size >= max(self.sizes[:-1], default=size + 1) or is_round)

    @property
    def is_complete(self) -> bool:
        """Whether the answer appears complete."""
        if self.is_settled:
            return True
        if self.matched and self.matched % _COUNTED_UP_TO:
            return not self.has_missing
        return not self.has_missing and not self.has_open_end

    def beyond(self) -> Question | None:
        """Return the question for scenes beyond the last one; None if the scenes did not arrive in order of time."""
        if not self.instants:
            return None
        start, end = _ends(self.question)
        if all(one >= other for one, other in pairwise(self.instants)):
            end = _iso_time(-(-self.instants[-1].timestamp() // 1))  # whole seconds, rounded up
        elif all(one <= other for one, other in pairwise(self.instants)):
            start = _iso_time(self.instants[-1].timestamp() // 1)
        else:
            return None
        return replace(self.question, datetime=f"{start}/{end}")

    def halves(self) -> tuple[Question, Question] | None:
        """Split the question into two time ranges; None if it has no time to split at."""
        start, end = _ends(self.question)
        instants = sorted(instant for instant in self.scenes.values() if instant)
        if not instants:
            return None
        for middle in (instants[len(instants) // 2], instants[0] + (instants[-1] - instants[0]) / 2):
            text = _iso_time(middle.timestamp() // 1)
            if not {_parse(text)} & {_parse(start), _parse(end)}:
                return replace(self.question, datetime=f"{start}/{text}"), replace(
                    self.question, datetime=f"{text}/{end}"
                )
        return None

    def has_other_times(self) -> bool:
        """Check whether a scene has a time that was not requested. Then the server ignores the time range."""
        start, end = (_parse(each) for each in _ends(self.question))
        return any(
            (start and start - instant > _DAY) or (end and instant - end > _DAY)
            for instant in self.scenes.values()
            if instant
        )


class _Search:
    """Repeat a question, in full or in parts, until the answer is complete."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: set[str] = set()
        self._pages = 0
        self._without_new = 0
        """Number of consecutive requests that returned no new scene."""
        self._filters_by_time = True
        """Whether all scenes so far have requested times: the server does not ignore the time range."""

    def by_time(self, question: Question, depth: int) -> _Features:
        """Request all scenes of a time range: first the full range, then scenes beyond the last one, then each half."""
        received = last = yield from self._read_chain(question)
        while not received.is_complete and self._may_split(depth) and last.has_open_end and (rest := received.beyond()):
            if last is not received and rest == last.question:
                problem = "returns full pages of new scenes of one instant, but no link to the next page"
                raise SearchError(question.stac, problem, _REPORT_IT)
            last = yield from self._read_chain(rest)
            if not last.scenes.keys() - received.scenes.keys():
                received.is_settled = not received.has_missing
                break
            received.add_part(last)
        halves = None if received.is_complete or not self._may_split(depth) else received.halves()
        if halves:
            log.debug(
                "%s: received %d scenes of %s; the search is repeated in parts", question.stac, received.count,
                "an unknown number" if received.matched is None else received.matched,
            )  # fmt: skip
            parts = []
            for half in halves:
                parts.append((yield from self.by_time(half, depth + 1)))
                received.add_part(parts[-1])
            # Some servers estimate large counts. If each part is complete by its own count, the answer is complete.
            is_counted = received.matched is None or all(part.matched is not None for part in parts)
            received.is_settled = is_counted and all(part.is_complete for part in parts)
        if received.matched is None and not halves:
            # There is no sign of missing scenes, and no other way to check.
            received.is_settled = True
        return received

    def by_ids(self, question: Question) -> Generator[list[Any], None, None]:
        """Request scenes by their ids. Repeat the request for the missing scenes until no scene arrives."""
        missing = dict.fromkeys(question.ids)
        while missing:
            requested = tuple(missing)[:PAGE_SIZE]
            received = yield from self._read_chain(replace(question, ids=requested))
            if not received.ids <= {*requested}:
                raise SearchError(question.stac, "returns scenes with other ids than requested", _REPORT_IT)
            if received.has_missing and not received.ids:
                raise SearchError(question.stac, f"returns no scene, but counts {received.matched}", "Try again later")
            for name in received.ids or requested:
                del missing[name]

    def _may_split(self, depth: int) -> bool:
        return depth < _DEEPEST and self._without_new < _MOST_WITHOUT_NEW and self._filters_by_time

    def _read_chain(self, question: Question) -> _Features:
        """Read a chain of pages. If the server refuses the form of the request, restart with a simpler form."""
        received = _Received(question)
        form = replace(self._api.form, outline="exact")
        first_error: AnswerError | None = None
        retries, is_new = RETRIES, False
        while True:
            received.reset_pages(form.limit)
            try:
                address = self._api.addresses[form.methods[0]]
                for page in read_pages(self._api.io, form.request(self._api.client, address, question), retries):
                    self._api.form = form
                    self._count_page(question)
                    received.add_page(page)
                    named = {identity(feature): feature for feature in page.features}
                    new = [feature for name, feature in named.items() if name not in self._known]
                    self._known |= named.keys()
                    is_new = is_new or bool(new)
                    yield new
                break
            except AnswerError as error:
                first_error = first_error or error
                simpler = form.simpler(error, question, bool(received.sizes))
                if simpler is None:
                    raise first_error from None
                log.debug("%s: %s; the request is repeated %s", question.stac, error.problem, simpler)
                retries = RETRIES if simpler.limit == form.limit else _RETRIES_OF_SMALLER_PAGES
                form = simpler
        self._without_new = 0 if is_new else self._without_new + 1
        self._filters_by_time = self._filters_by_time and not received.has_other_times()
        return received

    def _count_page(self, question: Question) -> None:
        self._pages += 1
        if self._pages > _MOST_PAGES:
            raise SearchError(
                question.stac, f"returns more than {_MOST_PAGES} pages, and more follow", "Request fewer dates"
            )


def _ends(question: Question) -> tuple[str, str]:
    start, _, end = (question.datetime or "../..").partition("/")
    return start or "..", end or start or ".."


def _parse(text: object) -> datetime | None:
    try:
        instant = datetime.fromisoformat(str(text))
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _iso_time(seconds: float) -> str:
    return datetime.fromtimestamp(min(seconds, _LAST_S), UTC).isoformat().replace("+00:00", "Z")


def _acquired(feature: Any) -> datetime | None:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return None
    return _parse(properties.get("datetime")) or _parse(properties.get("start_datetime"))
