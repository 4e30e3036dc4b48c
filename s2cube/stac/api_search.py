"""Search a STAC API and return items."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pystac

from s2cube.errors import SearchError
from s2cube.stac._completeness import complete_answer
from s2cube.stac._items import from_features
from s2cube.stac._refusal import AnswerError
from s2cube.stac.api import Api
from s2cube.stac.question import Question


def search_api(api: Api, question: Question) -> Iterator[pystac.Item]:
    """Return the items that answer a question, each item once; newest first if `Api.is_sorted`.

    The first page is requested at once, the other pages when they are needed. A caller that reads all items receives
    every scene of the answer, or an error.

    Raises
    ------
    SearchError
        If a page is missing or invalid, if the pages never end, or if the API returns fewer scenes than it counts.
    """
    pages = complete_answer(api, question)
    with _as_search_errors(question.stac):
        first = next(pages, [])
    return _items(chain([first], pages), question.stac)


def _items(pages: Iterator[list[Any]], stac: str) -> Iterator[pystac.Item]:
    with _as_search_errors(stac):
        for features in pages:
            yield from from_features(features, stac)


@contextmanager
def _as_search_errors(stac: str) -> Iterator[None]:
    try:
        yield
    except AnswerError as error:
        raise SearchError(stac, f"failed during the search ({error.problem})", error.remedy) from None
    except RecursionError:
        raise SearchError(
            stac, "returns JSON that is nested too deeply", "Report it to the operator of the catalogue"
        ) from None
