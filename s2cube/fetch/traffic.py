"""Count what reading takes: requests and bytes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """What reading files takes: requests for parts of them, and the bytes that come."""

    requests: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.requests + other.requests, self.bytes + other.bytes)
