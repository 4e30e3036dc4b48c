"""How far a run has come."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a run has come: time slices.

    Parameters
    ----------
    total
        To be made, of which the others below are a part.
    skipped
        There before, and not among these.
    began
        When the first one was handed out, RFC 3339, UTC; empty before that.
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
        """Slices of which it is known what became of them."""
        return self.written + self.failed + self.rejected

    @property
    def left(self) -> int:
        """Slices of which it is not known yet."""
        return self.total - self.over
