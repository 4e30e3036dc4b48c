"""A STAC API is asked for scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pystac

from s2cube.completeness import answer
from s2cube.errors import SearchError
from s2cube.items import from_features
from s2cube.question import Question
from s2cube.refusal import AnswerError
from s2cube.service import Api

__all__ = ["Api", "Question", "ask", "sorts"]


def sorts(api: Api) -> bool:
    """Tell whether an API sorts: then `ask` gives the newest scenes first.

    It may announce that and then refuse; that is known after `ask`.
    """
    return api.form.is_sorted


def ask(api: Api, question: Question) -> Iterator[pystac.Item]:
    """Take the items that an API has for a question, each once; the newest first where it sorts.

    The first page is asked for at once, the others when they are needed. Whoever takes all items has all that there
    are, or an error.

    Raises
    ------
    SearchError
        If a page cannot be had or is none, if pages lead on for ever, or if the API gives fewer scenes than it counts.
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
        raise SearchError(stac, f"failed in mid-search ({error.problem})", error.remedy) from None
    except RecursionError:
        raise SearchError(
            stac, "answers something that is nested too deeply", "Tell whoever runs the catalogue"
        ) from None
