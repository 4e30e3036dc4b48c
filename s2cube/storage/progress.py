"""The progress of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of a run: numbers of time slices.

    Parameters
    ----------
    total
        Slices to compute. `written`, `failed`, `rejected` and `running` are parts of this number.
    skipped
        Slices that existed before the run. They are not part of the total.
    began
        Time at which the first slice was submitted, RFC 3339, UTC; empty before that.
    """

    total: int = 0
    written: int = 0
    failed: int = 0
    rejected: int = 0
    running: int = 0
    skipped: int = 0
    began: str = ""

    @property
    def over(self) -> int:
        """Slices that are written, failed or rejected."""
        return self.written + self.failed + self.rejected

    @property
    def left(self) -> int:
        """Slices that are not yet written, failed or rejected."""
        return self.total - self.over
