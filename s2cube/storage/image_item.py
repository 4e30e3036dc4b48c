"""Read the Item of an image. If it cannot be read, the error explains why."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from s2cube.storage._item_parts import Band, Instant, Link, MultiPolygon, Part, Polygon, RasterBand
from s2cube.storage.layout import slice_file

DATA = "data"
"""Key of the asset of the COG."""

QA_IMAGE = "qa"
COUNT = "count"
"""Key of the asset of a composite: number of observations."""

DATE = "date"
"""Key of the asset of a composite: day of the observation."""

PICTURE = "thumbnail"
STYLE = "style"
QA_STYLE = "qa_style"

SUFFIXES = {
    DATA: ".tif", QA_IMAGE: "_qa.tif", COUNT: "_count.tif", DATE: "_date.tif", PICTURE: ".png", STYLE: ".qml",
    QA_STYLE: "_qa.qml",
}  # fmt: skip
"""End of the file name of each asset. The name of the slice comes before it. An Item need not have all assets."""

RECIPE = "s2cube:recipe"
"""Property of an Item: digest of everything that determines its pixels."""

NAME = "s2cube:name"
"""Property of an Item: name of an image that was computed from a cube. Such an image has no recipe."""

PERIOD = "s2cube:period"
"""Property of an Item: name of the period of a composite, such as ``202406``. Other images have none."""

METHOD = "s2cube:method"
"""Property of an Item: method of a composite."""

SCENES = "s2cube:scenes"
"""Property of an Item: ids of the scenes that were used for its image."""

OFFSETS = "s2cube:offset_dn"
"""Property of an Item: the offset that was added to the digital numbers of each scene, by id of the scene."""

DROPPED = "s2cube:dropped"
"""Property of an Item: unused scenes of the same granules."""

MISSING = "s2cube:missing"
"""Property of the Item of a composite: ids of the slices that were left out because they could not be read."""

SETTINGS = "s2cube:settings"
"""Property of an Item: the settings that determine its pixels, by the names of the flags."""

SEARCH = "s2cube:search"
"""Property of an Item: the settings of the search, by the names of the flags."""

GROUND = "s2cube:ground"
"""Property of an Item: digest of the ground of its area; see `AOI.ground`."""

DATA_VERSION = "s2cube:data_version"
"""Property of an Item: the value of `recipe.DATA_VERSION` when the Item was made."""

ITEM_VERSION = "s2cube:item_version"
"""Property of an Item: version of its form, see `output.item_form.VERSION`. The Items of the first form lack it."""

SHA2_256 = "1220"
"""Start of a multihash in hexadecimal: the code of SHA2-256, and its length of 32 bytes.
https://github.com/multiformats/multicodec/blob/master/table.csv"""


def checksum(content: bytes) -> str:
    """Return the checksum of a file as the file extension of STAC writes it."""
    return f"{SHA2_256}{hashlib.sha256(content).hexdigest()}"


_MULTIHASH = re.compile(f"{SHA2_256}[0-9a-f]{{64}}|(?!{SHA2_256})([0-9a-f]{{2}}){{3,}}")


@dataclass(frozen=True)
class ImageItem:
    """The content of the Item of an image.

    Parameters
    ----------
    aoi, slice
        Ids.
    recipe, bands
        See `TimeSlice`; names of bands in the order of the COG. An image that was computed from a cube has no recipe.
    name
        Name of an image that was computed from a cube. Empty for an image of a run.
    period
        Name of the period of a composite. Empty for any other image.
    scenes
        Ids of the scenes that were used for the image.
    properties
        All properties of the Item.
    files
        Size of each of its files, bytes, by file name relative to the output; None if the Item does not contain it.
    checksums
        Multihash of each file, hexadecimal, if the Item contains it.
    geometry
        GeoJSON, EPSG:4326.
    document
        The complete Item as JSON.
    dtype
        Data type of all bands of the COG; empty if the Item does not contain it.
    derived_from
        Addresses of the Items of its scenes.
    """

    aoi: str
    slice: str
    recipe: str
    bands: tuple[str, ...]
    scenes: tuple[str, ...]
    properties: Mapping[str, Any]
    files: Mapping[str, int | None]
    checksums: Mapping[str, str] = field(default_factory=dict)
    geometry: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = ""
    derived_from: tuple[str, ...] = ()
    name: str = ""
    period: str = ""

    @property
    def time(self) -> datetime:
        """Acquisition of the earliest scene, UTC."""
        return self.interval[0]

    @property
    def interval(self) -> tuple[datetime, datetime]:
        """First and last time of the image, UTC. They are equal if it is of one time."""
        first, last = (self.properties.get(f"{end}_datetime") for end in ("start", "end"))
        instant = self.properties["datetime"]
        return datetime.fromisoformat(first or instant), datetime.fromisoformat(last or instant)

    def flaw(self, sizes: Mapping[str, int], suffix: str = "") -> str:
        """Return a text about the first file that is missing or has another size; empty if there is none.

        Parameters
        ----------
        sizes
            Sizes of the files in the output, bytes, by name.
        suffix
            End of the names of the files to check; all by default.
        """
        for name, size in self.files.items():
            if not name.endswith(suffix):
                continue
            if name not in sizes:
                return f"{name} is missing"
            if size not in (None, sizes[name]):
                return f"{name} has {sizes[name]} bytes, not {size}"
        return ""


def read_item(content: bytes | Mapping[str, Any], aoi_id: str, slice_id: str) -> ImageItem:
    """Read the Item of a slice.

    It checks all members that s2cube reads, and all members that other programs need to read the Item.

    Parameters
    ----------
    content
        JSON, or the value of JSON.

    Raises
    ------
    ValueError
        If it is not an Item of this slice, written by s2cube. The message explains the problem.
    """
    raw = from_json(content, allow_inf_nan=False) if isinstance(content, bytes) else content
    item = validated(_Item, raw)
    if (item.collection, item.id) != (aoi_id, slice_id):
        raise ValueError("its id or collection belongs to another slice")
    files, checksums = {}, {}
    for key in SUFFIXES.keys() & item.assets.keys():
        asset = item.assets[key]
        name = slice_file(aoi_id, slice_id, SUFFIXES[key])
        files[name] = asset.size
        if asset.checksum:
            checksums[name] = asset.checksum
    if DATA not in item.assets:
        raise ValueError(f"assets: there is no {DATA}")
    facts, dtypes = item.properties, item.assets[DATA].dtypes
    return ImageItem(
        aoi=aoi_id,
        slice=slice_id,
        recipe=facts.recipe,
        name=facts.name,
        period=facts.period,
        bands=tuple(band.name for band in item.assets[DATA].bands),
        scenes=tuple(facts.scenes),
        properties=raw["properties"],
        files=dict(sorted(files.items())),
        checksums=checksums,
        geometry=raw["geometry"],
        document=raw,
        dtype=dtypes.pop() if len(dtypes) == 1 else "",
        derived_from=tuple(link.href for link in item.links if link.rel == "derived_from"),
    )


_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], content: object) -> _Model:
    """Read a part of an Item.

    Raises
    ------
    ValueError
        If it is not valid. The message names the member.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None


def _check_multihash(text: str) -> str:
    if not _MULTIHASH.fullmatch(text.lower()):
        raise ValueError("is not a multihash in hexadecimal")
    return text.lower()


class _Asset(Part):
    href: str
    # The second name is that of STAC 1.0.
    bands: list[Band] = Field(default_factory=list, validation_alias=AliasChoices("bands", "eo:bands"))
    data_type: str = ""
    rasters: list[RasterBand] = Field(default_factory=list, alias="raster:bands")
    size: Annotated[int, Field(ge=0)] | None = Field(None, alias="file:size")
    checksum: Annotated[str, AfterValidator(_check_multihash)] | None = Field(None, alias="file:checksum")

    @property
    def dtypes(self) -> set[str]:
        """Data types of the bands. STAC 1.1 has them in `bands` or in the asset, STAC 1.0 in `raster:bands`."""
        of_bands = [each.data_type for each in self.bands] + [each.data_type for each in self.rasters]
        return {self.data_type, *of_bands} - {""}


class _Properties(Part):
    datetime: Instant | None
    start: Instant | None = Field(None, alias="start_datetime")
    end: Instant | None = Field(None, alias="end_datetime")
    name: str = Field("", alias=NAME)
    period: str = Field("", alias=PERIOD)
    # Only an image with a name has no recipe.
    recipe: str = Field("", alias=RECIPE, validate_default=True)
    scenes: list[str] = Field(default_factory=list, alias=SCENES)

    @field_validator("recipe")
    @classmethod
    def _check_recipe(cls, recipe: str, others: ValidationInfo) -> str:
        if not recipe and not others.data.get("name"):
            raise ValueError("is missing")
        return recipe

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.datetime is None and not (self.start and self.end):
            raise ValueError("datetime is null, so start_datetime and end_datetime are needed")
        return self


class _Item(Part):
    type: Literal["Feature"]
    id: str
    collection: str
    stac_version: str
    stac_extensions: list[str] = Field(default_factory=list)
    geometry: Polygon | MultiPolygon = Field(discriminator="type")
    bbox: Annotated[list[float], Field(min_length=4, max_length=6)]
    properties: _Properties
    links: list[Link]
    assets: dict[str, _Asset]
