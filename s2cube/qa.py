"""Why a pixel is, or is not, there: the classes of a slice's QA image."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


NO_DATA_CLASS = 0
CLOUD_CLASSES = (8, 9, 10)
"""Of the scene classification (Sentinel-2 Products Specification Document): cloud of medium and high probability, thin
cirrus."""


class QA(IntEnum):
    """Values of the QA image, uint8.

    Of several reasons the lowest value stands: what a cloud hides is not looked at for shadow.
    """

    CLEAR = 0
    CLOUD = 1
    SHADOW = 2
    OTHER = 3
    NO_DATA = 4
    OUTSIDE = 255


@dataclass(frozen=True)
class QAClass:
    """How a value is called, explained and drawn (red, green, blue)."""

    name: str
    description: str
    colour: tuple[int, int, int]


QA_CLASSES = {
    QA.CLEAR: QAClass("clear", "Valid in every band", (120, 200, 120)),
    QA.CLOUD: QAClass("cloud", "Cloud or cirrus, or within the dilation of one", (235, 235, 235)),
    QA.SHADOW: QAClass("shadow", "Cloud shadow, or within the dilation of one", (70, 70, 110)),
    QA.OTHER: QAClass("other_mask", "Masked for another reason: defective, snow, another class chosen", (230, 150, 60)),
    QA.NO_DATA: QAClass("no_data", "No source data: not seen whole, or no value in some band", (30, 30, 30)),
    QA.OUTSIDE: QAClass("outside", "Outside the area of interest", (0, 0, 0)),
}


def count_classes(qa: "np.ndarray") -> "np.ndarray":
    """Count the pixels of each class, in the order of `QA`."""
    import numpy as np

    return np.array([np.count_nonzero(qa == value) for value in QA])


def clear_percent(counts: "np.ndarray") -> float:
    """Give the share of the area of interest that is clear, of what `count_classes` gives."""
    of = _by_class(counts)
    return round(100 * of[QA.CLEAR] / max(1, sum(of.values()) - of[QA.OUTSIDE]), 2)


def cloud_percent(counts: "np.ndarray") -> float | None:
    """Give the share of cloud (without shadow) in what was seen of the area of interest; None where nothing was."""
    of = _by_class(counts)
    seen = sum(of.values()) - of[QA.OUTSIDE] - of[QA.NO_DATA]
    return round(100 * of[QA.CLOUD] / seen, 2) if seen else None


def _by_class(counts: "np.ndarray") -> dict[QA, int]:
    return dict(zip(QA, counts.tolist(), strict=True))
