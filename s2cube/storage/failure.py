"""Why a time slice could not be written."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SliceFailure:
    """Why a time slice could not be written; a line of ``failures.jsonl``.

    Parameters
    ----------
    asset
        Key of the asset to blame; empty where it is none's.
    time
        When it failed, RFC 3339, UTC.
    may_pass
        Whether another try may succeed; not in the file.
    """

    slice: str
    scenes: tuple[str, ...]
    asset: str
    error: str
    time: str
    may_pass: bool = False

    def line(self) -> dict[str, Any]:
        """Give what the file says of it."""
        return {name: value for name, value in asdict(self).items() if name != "may_pass"}
