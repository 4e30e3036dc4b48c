"""Read the properties of an Item that are needed to open its image."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from s2cube.storage.image_item import (
    DATA_VERSION,
    DROPPED,
    GROUND,
    OFFSETS,
    SEARCH,
    SETTINGS,
    ImageItem,
    validated,
)


@dataclass(frozen=True)
class StoredItem(ImageItem):
    """The Item of an image that can be opened.

    Parameters
    ----------
    facts
        Its grid and its sources.
    """

    facts: "ImageFacts" = field(kw_only=True)

    @classmethod
    def of(cls, item: ImageItem) -> Self:
        """Read the properties of an Item.

        Raises
        ------
        ValueError
            If a property is missing or not valid. The message explains the problem.
        """
        return cls(**vars(item), facts=validated(ImageFacts, item.properties))


def _check_transform(transform: list[float]) -> list[float]:
    if len(transform) not in (6, 9) or transform[1] or transform[3] or not 0 < transform[0] == -transform[4]:
        raise ValueError("is not that of square cells, with north up")
    return transform[:6]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class _Dropped(_Part):
    scene: str
    kept: str
    reason: str


_Cells = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]


class ImageFacts(_Part):
    """The grid of an image, and its sources: see `Provenance`.

    Parameters
    ----------
    transform
        The first six coefficients of the affine transformation from column and row to x and y, in metres.
    shape
        Rows and columns.
    """

    crs: str = Field(alias="proj:code", pattern=r"^EPSG:\d{4,6}$")
    shape: tuple[_Cells, _Cells] = Field(alias="proj:shape", strict=False)
    transform: Annotated[list[float], AfterValidator(_check_transform)] = Field(alias="proj:transform")
    settings: dict[str, Any] = Field(default_factory=dict, alias=SETTINGS)
    search: dict[str, Any] = Field(default_factory=dict, alias=SEARCH)
    ground: str = Field("", alias=GROUND)
    data_version: int = Field(1, alias=DATA_VERSION)
    offset_dn: dict[str, int] = Field(default_factory=dict, alias=OFFSETS)
    dropped: list[_Dropped] = Field(default_factory=list, alias=DROPPED)
