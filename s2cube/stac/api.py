"""Search a STAC API for scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pystac

from s2cube.errors import SearchError
from s2cube.stac._completeness import answer
from s2cube.stac._items import from_features
from s2cube.stac._question import Question
from s2cube.stac._refusal import AnswerError
from s2cube.stac._service import Api

__all__ = ["Api", "Question", "ask", "sorts"]


def sorts(api: Api) -> bool:
    """Say whether an API sorts. If it does, `ask` gives the newest scenes first.

    An API may announce sorting and then refuse it: this is known only after `ask`.
    """
    return api.form.is_sorted


def ask(api: Api, question: Question) -> Iterator[pystac.Item]:
    """Give the items of an API for a question, each once; newest first if the API sorts.

    The first page is requested at once, the others when they are needed. A caller that takes all items gets every
    scene of the answer, or an error.

    Raises
    ------
    SearchError
        If a page is missing or invalid, if the pages never end, or if the API gives fewer scenes than it counts.
    """
    features = answer(api, question)
    with _explained(question.stac):
        first = next(features, [])
    return _items(chain([first], features), question.stac)


def _items(pages: Iterator[list[Any]], stac: str) -> Iterator[pystac.Item]:
    with _explained(stac):
        for features in pages:
            yield from from_features(features, stac)


@contextmanager
def _explained(stac: str) -> Iterator[None]:
    try:
        yield
    except AnswerError as error:
        raise SearchError(stac, f"failed during the search ({error.problem})", error.remedy) from None
    except RecursionError:
        raise SearchError(
            stac, "returns JSON that is nested too deeply", "Report it to the operator of the catalogue"
        ) from None
