"""The error tree.

::

    S2CubeError                 the job could not be done                exit status 1
    ├── UsageError              wrong usage or configuration             exit status 2
    │   ├── ConfigError         a setting: flag, variable or TOML key
    │   ├── AOIError            the file with the area of interest
    │   └── OutputError         the output folder or bucket
    ├── SearchError             the catalogue did not give its scenes
    ├── ClusterError            no Dask cluster to compute on
    ├── BusyError               another run writes there
    ├── WriteError              what was made cannot be written
    └── SliceError              one time slice failed; the others go on  exit status 3
        ├── AssetMissingError   a scene lacks an asset
        ├── AssetReadError      an asset could not be read
        ├── SceneError          a scene's item cannot be used: no place, or two
        └── HarmonisationError  nobody knows how a scene's pixels are scaled

Every error names what it is about, what is wrong and what to do; it survives
pickling, so it comes home whole from a Dask worker; it holds no credential.
"""

import os
import re
from dataclasses import dataclass, fields
from typing import Any

_URL_USER = re.compile(r"(\w+://)[^/\s'\"]+@")
_QUERY = re.compile(r"((?:\w+:/)?/[^\s'\"?#]*)[?#][^\s'\"()]*")
_NAMED = re.compile(
    r"(?i)\b((?:sig|signature|credential|password|secret|token|googleaccessid|awsaccesskeyid|x-(?:amz|goog)-[\w-]+"
    r"|[\w-]{0,30}(?:api|access|account|subscription)[_-]?key(?:[_-]id)?|[\w-]{1,30}[_-]token)"
    r"(?:=|[\"']: ?[\"']))[^\s&,;\"'<>)]+"
)
_HEADER = re.compile(
    r"(?i)\b((?:(?:proxy-)?authorization|ocp-apim-subscription-key|x-(?:amz|goog)-[\w-]+)[\"']?: ?[\"']?|bearer )"
    r"[^\n\"']+"
)
_ELEMENT = re.compile(r"(<(?:AWSAccessKeyId|SignatureProvided|StringToSign\w*|CanonicalRequest\w*)>)[^<]+")
"""Of what stores answer who sign: it holds what was signed."""

_SECRET_VARIABLE = re.compile(
    r"(AWS|AZURE|GOOGLE|GS|PC_SDK)_\w*?(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|SAS|CONNECTION_STRING)"
    r"|\w+_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
_SHORTEST_SECRET = 6


def redact(text: str) -> str:
    """Take secrets out of a text.

    User names, passwords and queries (signatures, tokens) of URLs and paths; what stands behind the name of a secret;
    keys that stand in the environment.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_VARIABLE.fullmatch(name):
            text = text.replace(value, "…")
    text = _QUERY.sub(r"\1?…", _URL_USER.sub(r"\1…@", text))
    for secret in (_HEADER, _NAMED, _ELEMENT):
        text = secret.sub(r"\1…", text)
    return text


@dataclass(eq=False)
class S2CubeError(Exception):
    """What every error of s2cube is.

    Parameters
    ----------
    subject
        What the error is about: a setting, a file, a URL, a scene.
    problem
        What is wrong with it.
    remedy
        What the reader can do.
    """

    subject: str
    problem: str
    remedy: str

    exit_status = 1

    def __post_init__(self) -> None:
        # Python keeps here what it was made of.
        self.args = ()
        for fact in fields(self):
            value = getattr(self, fact.name)
            if isinstance(value, str):
                setattr(self, fact.name, redact(value))

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}. {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, fact.name) for fact in fields(self))


class UsageError(S2CubeError):
    """Wrong usage or configuration: nothing was tried."""

    exit_status = 2


class ConfigError(UsageError):
    """A setting is unknown or its value cannot be; `subject` is the flag, variable or TOML key."""


class AOIError(UsageError):
    """The area of interest cannot be used; `subject` is its file, with the feature if it is one's."""


class OutputError(UsageError):
    """The output folder or bucket cannot be written or is not one of s2cube's."""


class SearchError(S2CubeError):
    """The catalogue does not answer, is no STAC, or lacks the collection; `subject` is its address."""


class ClusterError(S2CubeError):
    """No Dask cluster can be reached or started; `subject` is its address."""


class BusyError(S2CubeError):
    """Another run writes to the output folder; `subject` is its address."""


class WriteError(S2CubeError):
    """A disk is full, a store refuses: no slice can be written any more; `subject` is the file."""


@dataclass(eq=False)
class SliceError(S2CubeError):
    """One time slice cannot be made; `subject` is the scene to blame.

    Parameters
    ----------
    asset
        Key of the asset to blame in the scene, empty where the whole scene is.
    may_pass
        Whether it may be well if it is tried again later.
    """

    asset: str = ""
    may_pass: bool = False

    exit_status = 3


class AssetMissingError(SliceError):
    """A scene has no asset for a band that was asked for."""


class AssetReadError(SliceError):
    """An asset could not be opened or read."""


class SceneError(SliceError):
    """A scene does not say where it lies, or says it in two ways."""


class HarmonisationError(SliceError):
    """A scene says nothing about the offset of its pixels, or contradicts itself."""
