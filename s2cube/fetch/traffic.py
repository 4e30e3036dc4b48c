"""Count the requests and bytes of reading."""

import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Traffic:
    """Requests for parts of files, and the bytes received."""

    requests: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.requests + other.requests, self.bytes + other.bytes)


class Usage:
    """Counts the requests and bytes of reading, and keeps notes on files.

    Unpickling returns an empty object: each process counts its own requests.

    Attributes
    ----------
    notes
        Notes on unusual events while a file was read, by its address.
    """

    def __init__(self) -> None:
        self._traffic = Traffic()
        self.notes: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, requests: int, size: int) -> None:
        """Count requests, and the bytes received."""
        with self._lock:
            self._traffic += Traffic(requests, size)

    @property
    def traffic(self) -> Traffic:
        """Requests and bytes so far."""
        with self._lock:
            return self._traffic

    def note(self, href: str, text: str) -> None:
        """Add a note on a file to earlier notes on it."""
        with self._lock:
            before = self.notes.get(href, "")
            if text not in before:
                self.notes[href] = f"{before}; {text}" if before else text

    def __reduce__(self) -> tuple[Any, ...]:
        return Usage, ()
