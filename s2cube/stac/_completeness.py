"""Search an API until its answer is complete: every scene, or an error.

A page without a link to the next page is not always the last: some servers forget the link, and some lose scenes at
page boundaries. So the number of scenes received is compared with the server's count. If the server gives no count,
it is asked for scenes beyond the last one. If scenes are missing, the search is repeated in parts, by time.
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
"""Of a whole answer with all its parts: a million scenes at a hundred per page."""
_DEEPEST = 24
"""How often a time range may be halved: 2015 to 2026 becomes a few seconds."""
_MOST_FRUITLESS = 40
"""Consecutive requests that bring nothing new."""
_COUNTED_UP_TO = 10_000
"""By default, Elasticsearch does not count beyond this, so a multiple of it may be too small."""
_RETRIES_OF_SMALLER_PAGES = 1
_LAST_S = 253_402_300_799
"""9999-12-31T23:59:59Z: there are no later dates."""
_BROKEN = "Report it to the operator of the catalogue"
_DAY = timedelta(days=1)

_Features = Generator[list[Any], None, "_Received"]
"""Yields the new features of each page, and returns what was received in all."""


def complete_answer(api: Api, question: Question) -> Iterator[list[Any]]:
    """Give the features of all pages, each scene once.

    Raises
    ------
    AnswerError
        If the API refuses, or gives no complete answer.
    SearchError
        If an answer is not a page, if the pages never end, or if the API gives fewer scenes than it counts.
    """
    search = _Search(api)
    if question.ids:
        yield from search.by_ids(question)
        return
    received = yield from search.by_time(question, 0)
    if not received.is_whole:
        raise SearchError(
            question.stac, f"returns {received.count} scenes, but counts {received.matched}",
            "Try again later, or ask for fewer dates; if it persists, report it to the operator of the catalogue",
        )  # fmt: skip


@dataclass
class _Received:
    """What has been received for a question.

    Parameters
    ----------
    ids
        Ids of the scenes.
    scenes
        Acquisition time of each scene, None if it gives none; by the identity of the scene.
    repeats
        Number of scenes that a page repeats: a catalogue that lists a scene twice counts it twice.
    matched
        Number of scenes that the server counts; None if it gives no count.
    instants, sizes, limit
        Of the last chain of pages: acquisition times of its scenes, in their order; number of scenes of each page;
        requested number of scenes per page.
    is_settled
        Whether it is known that no scene is missing, although the count or the last page suggests it.
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

    def begin(self, limit: int) -> None:
        """Prepare for the first page."""
        self.instants, self.sizes, self.limit, self.repeats = [], [], limit, 0

    def take(self, page: Page) -> None:
        """Add a page."""
        named = {identity(feature): _instant(feature) for feature in page.features}
        self.scenes |= named
        self.ids |= {str(feature.get("id")) for feature in page.features if isinstance(feature, dict)}
        self.repeats += len(page.features) - len(named)
        self.instants += [instant for instant in named.values() if instant]
        self.sizes.append(len(page.features))
        if page.matched is not None:
            self.matched = max(page.matched, self.matched or 0)

    def join(self, other: "_Received") -> None:
        """Add what was received for a part of this question. The count stays that of the whole question."""
        self.scenes |= other.scenes
        self.repeats += other.repeats
        self.instants, self.sizes, self.limit = other.instants, other.sizes, other.limit

    @property
    def count(self) -> int:
        """Number of scenes, counted as a server counts them."""
        return len(self.scenes) + self.repeats

    @property
    def is_lacking(self) -> bool:
        """Whether there are fewer scenes than the server counts."""
        return self.matched is not None and self.count < self.matched

    @property
    def has_open_end(self) -> bool:
        """Whether a link to the next page may be missing: nothing is counted, or the last page is full."""
        size = self.sizes[-1] if self.sizes else 0
        if self.matched is None:
            return size > 0
        # A server may give fewer scenes per page than requested. Then all pages have one size, often a round number.
        is_round = size % 5 == 0 or (size >= 8 and size & (size - 1) == 0)
        return size > 0 and (size >= self.limit or size >= max(self.sizes[:-1], default=size + 1) or is_round)

    @property
    def is_whole(self) -> bool:
        """Whether nothing suggests that a scene is missing."""
        if self.is_settled:
            return True
        if self.matched and self.matched % _COUNTED_UP_TO:
            return not self.is_lacking
        return not self.is_lacking and not self.has_open_end

    def beyond(self) -> Question | None:
        """Give the question for scenes beyond the last one; None if the scenes did not come in order of time."""
        if not self.instants:
            return None
        start, end = _ends(self.question)
        if all(one >= other for one, other in pairwise(self.instants)):
            end = _text(-(-self.instants[-1].timestamp() // 1))  # whole seconds, rounded up
        elif all(one <= other for one, other in pairwise(self.instants)):
            start = _text(self.instants[-1].timestamp() // 1)
        else:
            return None
        return replace(self.question, datetime=f"{start}/{end}")

    def halves(self) -> tuple[Question, Question] | None:
        """Give the question in two parts, by time; None if no instant lies between its ends."""
        start, end = _ends(self.question)
        instants = sorted(instant for instant in self.scenes.values() if instant)
        if not instants:
            return None
        for middle in (instants[len(instants) // 2], instants[0] + (instants[-1] - instants[0]) / 2):
            text = _text(middle.timestamp() // 1)
            if not {_parse(text)} & {_parse(start), _parse(end)}:
                return replace(self.question, datetime=f"{start}/{text}"), replace(
                    self.question, datetime=f"{text}/{end}"
                )
        return None

    def has_other_times(self) -> bool:
        """Say whether there is a scene of a time that was not requested, so that the server ignores the time range."""
        start, end = (_parse(each) for each in _ends(self.question))
        return any(
            (start and start - instant > _DAY) or (end and instant - end > _DAY)
            for instant in self.scenes.values()
            if instant
        )


class _Search:
    """A search that repeats its question, whole or in parts, until the answer is complete."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._given: set[str] = set()
        self._pages = 0
        self._fruitless = 0
        """Consecutive requests without a new scene."""
        self._filters_by_time = True
        """Whether the server gives only scenes of the requested times, as far as is known."""

    def by_time(self, question: Question, depth: int) -> _Features:
        """Request all scenes of a time range: first at once, then those beyond the last one, then in halves."""
        received = last = yield from self._read_chain(question)
        while not received.is_whole and self._may_go_on(depth) and last.has_open_end and (beyond := received.beyond()):
            if last is not received and beyond == last.question:
                problem = "gives full pages of new scenes of one instant, and no link to the next page"
                raise SearchError(question.stac, problem, _BROKEN)
            last = yield from self._read_chain(beyond)
            if not last.scenes.keys() - received.scenes.keys():
                received.is_settled = not received.is_lacking
                break
            received.join(last)
        halves = None if received.is_whole or not self._may_go_on(depth) else received.halves()
        if halves:
            log.debug(
                "%s: received %d scenes of %s; the search is repeated in parts", question.stac, received.count,
                "an unknown number" if received.matched is None else received.matched,
            )  # fmt: skip
            parts = []
            for half in halves:
                parts.append((yield from self.by_time(half, depth + 1)))
                received.join(parts[-1])
            # Some servers estimate large counts. If each part is complete by its own count, the whole is complete.
            is_counted = received.matched is None or all(part.matched is not None for part in parts)
            received.is_settled = is_counted and all(part.is_whole for part in parts)
        if received.matched is None and not halves:
            # Nothing shows that scenes are missing, and there is no other way to find out.
            received.is_settled = True
        return received

    def by_ids(self, question: Question) -> Generator[list[Any], None, None]:
        """Request scenes by their ids. Request the missing ones again until none arrives."""
        missing = dict.fromkeys(question.ids)
        while missing:
            requested = tuple(missing)[:PAGE_SIZE]
            received = yield from self._read_chain(replace(question, ids=requested))
            if not received.ids <= {*requested}:
                raise SearchError(question.stac, "returns scenes with other ids than requested", _BROKEN)
            if received.is_lacking and not received.ids:
                raise SearchError(question.stac, f"returns no scene, but counts {received.matched}", "Try again later")
            for name in received.ids or requested:
                del missing[name]

    def _may_go_on(self, depth: int) -> bool:
        return depth < _DEEPEST and self._fruitless < _MOST_FRUITLESS and self._filters_by_time

    def _read_chain(self, question: Question) -> _Features:
        """Read a chain of pages. If the server refuses the form of the request, start again in a simpler form."""
        received = _Received(question)
        form = replace(self._api.form, outline="exact")
        first_error: AnswerError | None = None
        retries, is_new = RETRIES, False
        while True:
            received.begin(form.limit)
            try:
                address = self._api.addresses[form.methods[0]]
                for page in read_pages(self._api.io, form.request(self._api.client, address, question), retries):
                    self._api.form = form
                    self._count_page(question)
                    received.take(page)
                    named = {identity(feature): feature for feature in page.features}
                    new = [feature for name, feature in named.items() if name not in self._given]
                    self._given |= named.keys()
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
        self._fruitless = 0 if is_new else self._fruitless + 1
        self._filters_by_time = self._filters_by_time and not received.has_other_times()
        return received

    def _count_page(self, question: Question) -> None:
        self._pages += 1
        if self._pages > _MOST_PAGES:
            raise SearchError(
                question.stac, f"gives more than {_MOST_PAGES} pages, and more follow", "Ask for fewer dates"
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


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(min(seconds, _LAST_S), UTC).isoformat().replace("+00:00", "Z")


def _instant(feature: Any) -> datetime | None:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return None
    return _parse(properties.get("datetime")) or _parse(properties.get("start_datetime"))
