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
        ("it said sig=abc%2F, then", "it said sig=…, then"),
        ("AWSAccessKeyId=AKIA&x", "AWSAccessKeyId=…&x"),
        ("<AWSAccessKeyId>AKIA</AWSAccessKeyId><Code>x", "<AWSAccessKeyId>…</AWSAccessKeyId><Code>x"),
        ("<StringToSign>AWS4\nx\ny</StringToSign>", "<StringToSign>…</StringToSign>"),
        ("Authorization: Bearer abc.def\nnext", "Authorization: …\nnext"),
        ("{'authorization': 'AWS4-HMAC-SHA256 Credential=AK/2, Signature=6b'}", "{'authorization': '…'}"),
        ("got Bearer abc.def", "got Bearer …"),
        ('{"token": "st=1&sig=2", "a": 1}', '{"token": "…&sig=…", "a": 1}'),
        ("aws_secret_access_key=abc/def+", "aws_secret_access_key=…"),
        ("X-Amz-Credential=AK%2F2, X-Amz-Date=3", "X-Amz-Credential=…, X-Amz-Date=…"),
        (
            "https://host/token gives no token for it (answers 401)",
            "https://host/token gives no token for it (answers 401)",
        ),
        2 * ("check [read] tokens: the key is no key",),
        2 * ("asset blue: key 'B02' = B02_10m.tif",),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == redact(shown) == shown
    error = AssetReadError(text, text, text)
    assert error.problem == shown
    assert error.args == ()


def test_keys_of_the_environment_are_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PC_SDK_SUBSCRIPTION_KEY", "AZURE_STORAGE_SAS_KEY")
    for name in names:
        monkeypatch.setenv(name, f"value/of+{name.lower()}=")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/home/me/credentials")
    told = redact(" ".join(f"value/of+{name.lower()}=" for name in names) + " us-west-2 /home/me/credentials")
    assert told == "… … … … us-west-2 /home/me/credentials"
