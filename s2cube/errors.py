"""The error tree.

::

    S2CubeError                 the job cannot be done                        exit status 1
    ├── UsageError              wrong usage or configuration                  exit status 2
    │   ├── ConfigError         a setting: flag, variable or TOML key
    │   ├── AOIError            the area of interest
    │   └── OutputError         the output folder or bucket
    ├── SearchError             the catalogue does not return its scenes
    ├── ClusterError            there is no Dask cluster to compute on
    ├── BusyError               another run writes to the output
    ├── WriteError              a file cannot be written
    └── SliceError              one time slice failed; the others continue    exit status 3
        ├── AssetMissingError   a scene lacks an asset
        ├── AssetReadError      an asset cannot be read
        ├── SceneError          the item of a scene has no position, or two
        └── HarmonisationError  the offset of the pixels of a scene is unknown

Every error contains its subject, the problem and the remedy. It can be pickled, so it arrives complete from a Dask
worker. Credentials and control characters are removed from its texts.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote

_USER = re.compile(r"(?<=\w)://([^/\s'\"]+|[^/\s'\":@]+:(?!\d{1,5}/)[^\s'\"@]{1,80}+)@")
"""User name and password of a URL. An S3 key may contain a slash. The text after a port is not a password."""

_QUERY = re.compile(r"/[^\s'\"?#]*([?#](?!…[:,.;]?(?:\s|$))[^\s'\"()]*)?")
"""Query of a URL or a path. One that is removed already is left as it is, with the colon after it."""

_BEARER = re.compile(r"(?i)\bbearer[ \t]++((?!…(?:\s|$))[^\n\"']+)")
_ELEMENT = re.compile(
    r"<(?:\w{0,40}(?:AccessKeyId|SecretAccessKey|SessionToken|Signature|SignatureProvided)"
    r"|(?:StringToSign|CanonicalRequest)\w{0,20})>([^<]+)"
)
"""XML elements that contain keys or the signed text. A store sends them after a request with a wrong signature."""

_NAME = re.compile(
    r"(?:(?<![\w-])|(?<=%3[dD]))([\w-]{3,}+)"
    r"(?:(?P<named>=|%3[dD]|\\?[\"']\s{0,3}[:=]\s{0,3}\\?[\"'])|(?P<header>[\"']?: ?[\"']?))"
)
_NAMED_VALUE = re.compile(r"[^\s&,;\"'<>)]+")
_HEADER_VALUE = re.compile(r"(?!\s{0,3}…(?:\s|$))[^\n\"']+")
_SECRET_NAME = re.compile(
    r"(?i)((^([\da-f]{2})?|[-_])(sig|sas|pwd)|signature|credentials?|passw(or)?d|secret|token|googleaccessid"
    r"|(api|access|account|subscription)[-_]?key([-_]?id)?)$"
)
_SECRET_HEADER = re.compile(r"(?i)(authorization|(^|-)cookie|-(key|token|secret|signature|password))$")
_SIGNING_NAME = re.compile(r"(?i)x-(amz|goog)-")
_LONGEST_SECRET_NAME = 64

# Text from outside may be long, and an attacker may have written it. Each of these patterns needs linear time, because
# none is tried again at every letter of a word.

_SECRET_VARIABLE = re.compile(
    r"(AWS|AZURE|GOOGLE|GS|PC_SDK)_\w*?(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|SAS|CONNECTION_STRING)"
    r"|\w+_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
_SHORTEST_SECRET = 6
"""Minimum length of a secret, characters. Removing a shorter value would also remove common words."""

_LONGEST_TEXT = 4000
"""Maximum length of outside text, characters: about one screen. A server may return megabytes."""

_LONGEST_MARK = 50
"""Maximum length of the note about the characters that are left out, characters."""

_SPACES = re.compile(r"[^\S ]\s*")


def redact(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Remove secrets from a text, and the middle of a long text.

    Secrets are: user names, passwords and queries (signatures, tokens) of URLs and paths; the value after the name of a
    secret; keys in environment variables.

    Parameters
    ----------
    longest
        Number of characters to keep.
    """
    return _shortened(_redacted(text), longest)


def printable(text: str) -> str:
    """Make a text safe to print in a terminal, a table or a log: on one line, without control characters.

    Unprintable characters become escapes such as ``\\x1b``; line breaks and tabs become spaces.
    """
    if text.isprintable():
        return text
    text = _SPACES.sub(" ", text)
    return text.translate({ord(each): _escape(each) for each in set(text) if not each.isprintable()})


def safe_text(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Make outside text safe to show: see `redact` and `printable`."""
    return _shortened(printable(_redacted(text)), longest)


def _redacted(text: str) -> str:
    parts: list[str] = []
    end = 0
    for start, stop in sorted(_secrets(text)):
        if start > end or not parts:
            parts += [text[end:start], "?…" if text[start] in "?#" else "…"]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of secrets in a text; they may overlap."""
    for secret in _environment_secrets():
        start = text.find(secret)
        while start >= 0:
            yield start, start + len(secret)
            start = text.find(secret, start + len(secret))
    for pattern in (_USER, _QUERY, _BEARER, _ELEMENT):
        yield from (found.span(1) for found in pattern.finditer(text) if found[1])
    ends = {_NAMED_VALUE: 0, _HEADER_VALUE: 0}
    for name in _NAME.finditer(text):
        value = _value_pattern(name)
        # Skip a secret inside another one of the same kind: both have the same end.
        if value and name.end() >= ends[value] and (found := value.match(text, name.end())):
            ends[value] = found.end()
            yield found.span()


def _environment_secrets() -> set[str]:
    """Return the secrets in environment variables, both plain and escaped as in a URL."""
    values = {
        value for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and _SECRET_VARIABLE.fullmatch(name)
    }  # fmt: skip
    return values | {quote(value, safe="", errors="surrogateescape") for value in values}


def _value_pattern(found: re.Match[str]) -> re.Pattern[str] | None:
    """Return the pattern of the value after a name, if the value is a secret."""
    name = found[1][-_LONGEST_SECRET_NAME:]
    signing = _SIGNING_NAME.search(found[1])
    if _SECRET_HEADER.search(name) or (signing and ":" in found[0]):
        return _HEADER_VALUE
    return _NAMED_VALUE if found["named"] and (signing or _SECRET_NAME.search(name)) else None


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    kept = longest - _LONGEST_MARK
    head = kept * 3 // 4
    # Remove a ? or # at the cut, because it has no meaning without its query.
    start, end = text[:head].rstrip("?# "), text[head - kept :]
    return f"{start} … {len(text) - kept} characters left out … {end}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def install_remedy(extra: str) -> str:
    """Return the instruction to install the packages of an extra of s2cube."""
    return f"Run in your clone of s2cube: pip install -e '.[{extra}]'"


@dataclass(eq=False)
class S2CubeError(Exception):
    """Base class of all errors of s2cube.

    Parameters
    ----------
    subject
        Subject of the error: a setting, a file, a URL or a scene.
    problem
        Description of the problem.
    remedy
        Advice to the user.
    """

    subject: str
    problem: str
    remedy: str

    exit_status = 1

    def __post_init__(self) -> None:
        # Clear `args`: BaseException stores the unredacted texts there.
        self.args = ()
        for fact in fields(self):
            value = getattr(self, fact.name)
            if isinstance(value, str):
                setattr(self, fact.name, safe_text(value))

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}. {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, fact.name) for fact in fields(self))


class UsageError(S2CubeError):
    """Wrong usage or configuration. Nothing has been computed."""

    exit_status = 2


class ConfigError(UsageError):
    """A setting or argument is unknown or not valid; `subject` is the flag, variable, TOML key or argument."""


class AOIError(UsageError):
    """The area of interest cannot be used; `subject` is its file or object, and the feature if only one is wrong."""


class OutputError(UsageError):
    """The output folder or bucket cannot be written, or it was not written by s2cube."""


class SearchError(S2CubeError):
    """The catalogue does not answer, is not STAC, or lacks the collection; `subject` is its address."""


class ClusterError(S2CubeError):
    """No Dask cluster can be reached or started; `subject` is its address."""


class BusyError(S2CubeError):
    """Another run writes to the output folder; `subject` is its address."""


class WriteError(S2CubeError):
    """No slice can be written: a disk is full, or a store refuses the request; `subject` is the file."""


@dataclass(eq=False)
class SliceError(S2CubeError):
    """One time slice cannot be computed; `subject` is the scene that causes it.

    Parameters
    ----------
    asset
        Key of the asset that causes the error; empty if the complete scene causes it.
    may_pass
        Whether a later attempt may succeed.
    scene
        Id of the scene whose file cannot be read, if it is known.
    is_absent
        Whether the file does not exist, or is empty. A catalogue may list a scene before its files exist.
    """

    asset: str = ""
    may_pass: bool = False
    scene: str = ""
    is_absent: bool = False

    exit_status = 3


class AssetMissingError(SliceError):
    """A scene has no asset for a requested band or layer."""


class AssetReadError(SliceError):
    """An asset cannot be opened or read."""


class SceneError(SliceError):
    """The item of a scene has no position, or two positions that contradict each other."""


class HarmonisationError(SliceError):
    """The item of a scene does not contain the offset of its pixels, or contradicts itself."""
