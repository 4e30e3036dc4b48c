"""The error tree: facts, cause and remedy survive the way home; credentials do not get on it."""

import inspect
import pickle

import pytest

from s2cube import errors
from s2cube.errors import AssetReadError, S2CubeError, redact

TREE = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, S2CubeError) and kind is not S2CubeError
]  # fmt: skip


@pytest.mark.parametrize("kind", TREE)
def test_survives_pickling(kind: type[S2CubeError]) -> None:
    facts = ("scene", "is gone", "Look for it")
    error = kind(*facts, "blue") if issubclass(kind, errors.SliceError) else kind(*facts)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert str(back) == "scene: is gone. Look for it"


@pytest.mark.parametrize("kind", TREE)
def test_stands_in_the_picture_of_the_tree(kind: type[S2CubeError]) -> None:
    assert f" {kind.__name__} " in (errors.__doc__ or "")
    assert kind.__doc__


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/x.tif", "https://…@host/x.tif"),
        ("at 'https://host/x.tif?sig=abc&se=1' now", "at 'https://host/x.tif?…' now"),
        ("s3://key:secret@bucket/x?token=1", "s3://…@bucket/x?…"),
        ("plain words? yes", "plain words? yes"),
        ("https://me:p@ss@host/x", "https://…@host/x"),
        ("https://host/x#token=1", "https://host/x?…"),
        ("url: /v1?sig=abc (Caused by", "url: /v1?… (Caused by"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown
    error = AssetReadError(text, text, text)
    assert error.problem == shown
    assert error.args == ()
