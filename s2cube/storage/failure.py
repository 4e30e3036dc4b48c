"""Why a time slice could not be written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SliceFailure:
    """Why a time slice could not be written; a line of ``failures.jsonl``.

    Parameters
    ----------
    asset
        Key of the asset to blame; empty where it is none's.
    time
        When it failed, RFC 3339, UTC.
    """

    slice: str
    scenes: tuple[str, ...]
    asset: str
    error: str
    time: str
