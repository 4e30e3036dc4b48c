"""A search gives every scene, or an error.

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
from s2cube.stac._question import PAGE_SIZE, Question
from s2cube.stac._refusal import RETRIES, AnswerError
from s2cube.stac._service import Api

log = logging.getLogger(__name__)

_MOST_PAGES = 10_000
"""Of a whole answer, whatever it is asked in parts: a million scenes by a hundred."""
_DEEPEST = 24
"""Times that a time range is halved: 2015 to 2026 becomes a few seconds."""
_MOST_IN_VAIN = 40
"""Consecutive requests that bring nothing new."""
_COUNTED_UP_TO = 10_000
"""Elasticsearch counts no further by default."""
_RETRIES_OF_SMALLER_PAGES = 1
_LAST_S = 253_402_300_799
"""9999-12-31T23:59:59Z: there are no later dates."""
_BROKEN = "Report it to the operator of the catalogue"
_DAY = timedelta(days=1)

_Features = Generator[list[Any], None, "_Seen"]


def answer(api: Api, question: Question) -> Iterator[list[Any]]:
    """Give the features of all pages, each scene once.

    Raises
    ------
    AnswerError
        If the API refuses, or gives no complete answer.
    SearchError
        If an answer is not a page, if the pages never end, or if the API gives fewer scenes than it counts.
    """
    asking = _Asking(api)
    if question.ids:
        yield from asking.for_ids(question)
        return
    seen = yield from asking.for_all(question, 0)
    if not seen.is_whole:
        raise SearchError(
            question.stac, f"returns {seen.count} scenes, but counts {seen.matched}",
            "Try again later, or ask for fewer dates; if it persists, report it to the operator of the catalogue",
        )  # fmt: skip


@dataclass
class _Seen:
    """What has been received for a question.

    Parameters
    ----------
    scenes
        Acquisition time of each scene, None if it gives none; by the identity of the scene.
    repeats
        How often a page had a scene again: a catalogue that lists a scene twice counts it twice.
    matched
        Number of scenes that the server counts; None if it gives no count.
    instants, sizes
        Of the last chain of pages: acquisition times of its scenes, in their order; number of scenes of each page.
    is_settled
        Whether a request for missing scenes brought nothing, or showed that the count was wrong.
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

    def join(self, other: "_Seen") -> None:
        """Add what was received for a part of this question. The count stays that of the whole question."""
        self.scenes |= other.scenes
        self.repeats += other.repeats
        self.instants, self.sizes, self.limit = other.instants, other.sizes, other.limit

    @property
    def count(self) -> int:
        return len(self.scenes) + self.repeats

    @property
    def is_lacking(self) -> bool:
        return self.matched is not None and self.count < self.matched

    @property
    def has_open_end(self) -> bool:
        """Whether a link to the next page may be missing: nothing is counted, or the last page is full."""
        size = self.sizes[-1] if self.sizes else 0
        if self.matched is None:
            return size > 0
        # A server may give fewer scenes than requested. Then its pages have one size, most often a round number.
        is_round = size % 5 == 0 or (size >= 8 and size & (size - 1) == 0)
        return size > 0 and (size >= self.limit or size >= max(self.sizes[:-1], default=size + 1) or is_round)

    @property
    def is_whole(self) -> bool:
        if self.is_settled:
            return True
        if self.matched and self.matched % _COUNTED_UP_TO:
            return not self.is_lacking
        return not self.is_lacking and not self.has_open_end

    def beyond(self) -> Question | None:
        """Ask for scenes beyond the last one; None if the scenes did not come in order of time."""
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
        """Ask the same in two parts, by time; None if no instant lies between the ends of the question."""
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

    def lies_beside(self) -> bool:
        """Say whether there is a scene of a time that was not requested."""
        start, end = (_parse(each) for each in _ends(self.question))
        return any(
            (start and start - instant > _DAY) or (end and instant - end > _DAY)
            for instant in self.scenes.values()
            if instant
        )


class _Asking:
    """Ask one question until the answer is complete."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._given: set[str] = set()
        self._pages = 0
        self._in_vain = 0
        self._heeds_time = True

    def for_all(self, question: Question, depth: int) -> _Features:
        """Ask for all scenes of a time range: first at once, then for those beyond the last, then in halves."""
        seen = last = yield from self._once(question)
        while not seen.is_whole and self._may_go_on(depth) and last.has_open_end and (beyond := seen.beyond()):
            if last is not seen and beyond == last.question:
                problem = "gives full pages of new scenes of one instant, and no link to the next page"
                raise SearchError(question.stac, problem, _BROKEN)
            last = yield from self._once(beyond)
            if not last.scenes.keys() - seen.scenes.keys():
                seen.is_settled = not seen.is_lacking
                break
            seen.join(last)
        halves = None if seen.is_whole or not self._may_go_on(depth) else seen.halves()
        if halves:
            log.debug(
                "%s: received %d scenes of %s; the search is repeated in parts", question.stac, seen.count,
                "an unknown number" if seen.matched is None else seen.matched,
            )  # fmt: skip
            parts = []
            for half in halves:
                parts.append((yield from self.for_all(half, depth + 1)))
                seen.join(parts[-1])
            # Some servers estimate large counts. If each part is complete by its own count, the whole is complete.
            is_counted = seen.matched is None or all(part.matched is not None for part in parts)
            seen.is_settled = is_counted and all(part.is_whole for part in parts)
        if seen.matched is None and not halves:
            # No sign that scenes are missing, and no other way to ask.
            seen.is_settled = True
        return seen

    def for_ids(self, question: Question) -> Generator[list[Any], None, None]:
        """Ask for scenes by their ids. Ask again for the missing ones until none arrives."""
        missing = dict.fromkeys(question.ids)
        while missing:
            asked = tuple(missing)[:PAGE_SIZE]
            seen = yield from self._once(replace(question, ids=asked))
            if not seen.ids <= {*asked}:
                raise SearchError(question.stac, "returns scenes with other ids than requested", _BROKEN)
            if seen.is_lacking and not seen.ids:
                raise SearchError(question.stac, f"returns no scene, but counts {seen.matched}", "Try again later")
            for name in seen.ids or asked:
                del missing[name]

    def _may_go_on(self, depth: int) -> bool:
        return depth < _DEEPEST and self._in_vain < _MOST_IN_VAIN and self._heeds_time

    def _once(self, question: Question) -> _Features:
        """Read a chain of pages. Start again in a simpler form if the server refuses."""
        seen = _Seen(question)
        form = replace(self._api.form, outline="exact")
        first_error: AnswerError | None = None
        retries, is_new = RETRIES, False
        while True:
            seen.begin(form.limit)
            try:
                address = self._api.addresses[form.methods[0]]
                for page in read_pages(self._api.io, form.request(self._api.client, address, question), retries):
                    self._api.form = form
                    self._count_page(question)
                    seen.take(page)
                    named = {identity(feature): feature for feature in page.features}
                    new = [feature for name, feature in named.items() if name not in self._given]
                    self._given |= named.keys()
                    is_new = is_new or bool(new)
                    yield new
                break
            except AnswerError as error:
                first_error = first_error or error
                simpler = form.simpler(error, question, bool(seen.sizes))
                if simpler is None:
                    raise first_error from None
                log.debug("%s: %s; the request is repeated %s", question.stac, error.problem, simpler)
                retries = RETRIES if simpler.limit == form.limit else _RETRIES_OF_SMALLER_PAGES
                form = simpler
        self._in_vain = 0 if is_new else self._in_vain + 1
        self._heeds_time = self._heeds_time and not seen.lies_beside()
        return seen

    def _count_page(self, question: Question) -> None:
        self._pages += 1
        if self._pages > _MOST_PAGES:
            raise SearchError(question.stac, f"gives more than {_MOST_PAGES} pages, and goes on", "Ask for fewer dates")


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
