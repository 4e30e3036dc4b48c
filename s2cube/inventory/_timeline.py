"""Draw the pictures of all slices of an area, with their dates, as one picture."""

import io
import json
import logging
import math
import struct
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pystac
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pystac.extensions.file import FileExtension
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from s2cube.errors import OutputError
from s2cube.output.png import SIGNATURE, encode_png, lines_from_above
from s2cube.storage.image_item import PICTURE, SHA2_256, SUFFIXES, ImageItem, checksum
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

# A picture has no position, and needs none here.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.")

TIMELINE = "timeline"
"""Key of the asset of a collection."""

_SHEET = 2048, 4096
"""Maximum width and height, pixels. All viewers open such a picture, and it needs 25 MB of memory."""

_CELL_SIDES = (256, 192, 128, 96, 72)
"""Lengths of the longer side of a slice's cell, pixels. The first one is used with which all slices fit on the sheet.
If not even the last one is small enough, the sheet shows the newest slices: 900 or more."""

_GAP, _LABEL_HEIGHT, _LABEL_WIDTH, _FONT_SIZE = 12, 18, 76, 13
_RATIO = 1.5
"""Width of a sheet by its height, if it has many slices."""

_EMPTY_GRAY = np.float32(236)
_PAPER, _EMPTY, _INK = (255, 255, 255), (236, 236, 236), (40, 40, 40)
_LEVEL = 6
"""Deflate level of the PNG. Lower levels are not faster, because pictures have large even areas (libdeflate)."""

_MADE_OF = "s2cube"
"""Key of the text in the PNG that names the pictures on the sheet."""


class _Slice(NamedTuple):
    """A slice on a sheet: its label, the digest of its picture, and the name of its picture in the output."""

    label: str
    digest: str
    name: str


@dataclass(frozen=True)
class _Layout:
    """The positions of the cells of a sheet.

    Parameters
    ----------
    cell
        Width and height of a cell, pixels.
    """

    cell: tuple[int, int]
    columns: int

    @property
    def pitch(self) -> tuple[int, int]:
        """Distance from a cell to the next, pixels."""
        width, height = self.cell
        return max(width, _LABEL_WIDTH) + _GAP, height + _LABEL_HEIGHT + _GAP

    def size(self, count: int) -> tuple[int, int]:
        """Width and height of a sheet of so many slices, pixels."""
        across, down = self.pitch
        return _GAP + self.columns * across, _GAP + math.ceil(count / self.columns) * down

    def box(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a cell, pixels."""
        row, column = divmod(number, self.columns)
        left, top = _GAP + column * self.pitch[0], _GAP + row * self.pitch[1] + _LABEL_HEIGHT
        return left, top, left + self.cell[0], top + self.cell[1]


def draw_timeline(
    output: Output, aoi_id: str, images: Mapping[str, ImageItem], existing: bytes | None, threads: Executor
) -> bytes | None:
    """Return a PNG with the pictures of slices, the oldest first; None if there is no picture.

    Parameters
    ----------
    images
        Items of the slices, by id.
    existing
        The existing timeline, if any. Its cells are used again, so that only other pictures are read. The result is the
        same without it.
    threads
        Threads that read the pictures.

    Raises
    ------
    WriteError
        If the output cannot be read.
    """
    slices = _slices(aoi_id, images)
    shape = next(filter(None, (_shape(output, each) for each in reversed(slices))), None)
    if shape is None:
        return None
    layout, most = _layout(len(slices), shape)
    cells = _existing_cells(existing, layout.cell)
    slices = slices[-most:]
    missing = [each for each in slices if each.digest not in cells]
    drawn = threads.map(partial(_draw_cell, output, cell=layout.cell), missing)
    cells |= {each.digest: cell for each, cell in zip(missing, drawn, strict=True) if cell is not None}
    shown = [each for each in slices if each.digest in cells]
    return _as_png(shown, cells, layout) if shown else None


def add_timeline(collection: pystac.Collection, sheet: bytes) -> None:
    """Add a timeline to its collection, with its size and checksum."""
    asset = pystac.Asset(f"./{TIMELINE}.png", "All slices", None, pystac.MediaType.PNG, ["overview"])
    collection.add_asset(TIMELINE, asset)
    FileExtension.ext(asset, add_if_missing=True).apply(size=len(sheet), checksum=checksum(sheet))


def listed_timeline(collection: bytes | None) -> "Listed | None":
    """Return what a collection says about its timeline; None if it names no timeline, or cannot be read."""
    try:
        return _Listing.model_validate_json(collection or b"").assets.timeline
    except ValidationError:
        return None


def _slices(aoi_id: str, images: Mapping[str, ImageItem]) -> list[_Slice]:
    """Return the slices that have a picture, in the order of time."""
    found = []
    for slice_id, image in sorted(images.items(), key=lambda each: (each[1].time, each[0])):
        name = slice_file(aoi_id, slice_id, SUFFIXES[PICTURE])
        if name in image.files:
            found.append(_Slice(_label(slice_id.removeprefix(f"{aoi_id}_")), image.checksums.get(name, name), name))
    return found


def _label(text: str) -> str:
    """Return the date of a slice of a solar day; of any other slice, its name."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else text


def _layout(count: int, shape: tuple[int, int]) -> tuple[_Layout, int]:
    """Return the layout for a number of pictures of a width and height, and how many of them fit."""
    for side in _CELL_SIDES:
        cell = _fit(shape, (side, side))
        across, down = _Layout(cell, 1).pitch
        most_columns, most_rows = (_SHEET[0] - _GAP) // across, (_SHEET[1] - _GAP) // down
        if count <= most_columns * most_rows:
            break
    count = min(count, most_columns * most_rows)
    wanted = math.ceil(math.sqrt(_RATIO * count * down / across))
    columns = min(max(wanted, math.ceil(count / most_rows)), most_columns, count)
    return _Layout(cell, columns), count


def _fit(shape: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height in a cell that have the ratio of a picture."""
    scale = min(room / side for side, room in zip(shape, cell, strict=True))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _shape(output: Output, each: _Slice) -> tuple[int, int] | None:
    """Return the width and height in the header of a picture; None if it cannot be read."""
    with suppress(OutputError):
        header = (output.destination.read(each.name) or b"")[:24]
        if header.startswith(SIGNATURE) and len(header) == 24:
            width, height = struct.unpack(">II", header[16:])
            return (width, height) if width and height else None
    return None


def _draw_cell(output: Output, each: _Slice, cell: tuple[int, int]) -> Image.Image | None:
    """Return a cell with a picture in its middle; None, with a warning, if the picture cannot be read.

    GDAL reads the picture, because it does not need memory for all its pixels.
    """
    try:
        content = output.destination.read(each.name)
        if content is None:
            problem = "it is missing"
        elif each.digest.startswith(SHA2_256) and each.digest != checksum(content):
            problem = "it differs from its checksum"
        else:
            with MemoryFile(content) as file, file.open(driver="PNG") as picture:
                return _paint(picture, cell)
    except OutputError as error:
        problem = error.problem
    except (RasterioError, ValueError) as error:
        problem = str(error)
    path = f"{output.destination.address}/{each.name}"
    log.warning("%s cannot be shown in the timeline (%s); to recompute it, run: s2cube verify --repair", path, problem)
    return None


def _paint(picture: DatasetReader, cell: tuple[int, int]) -> Image.Image:
    if picture.count != 4:
        raise ValueError(f"it has {picture.count} bands, not red, green, blue and opacity")
    width, height = _fit((picture.width, picture.height), cell)
    raw = picture.read(out_shape=(4, height, width), resampling=Resampling.average)
    opacity = raw[3:] / np.float32(255)
    pixels = raw[:3] * opacity
    pixels += _EMPTY_GRAY * (1 - opacity)
    pixels = np.rint(pixels, out=pixels).astype("uint8")
    drawn = Image.new("RGB", cell, _EMPTY)
    drawn.paste(Image.fromarray(np.moveaxis(pixels, 0, -1)), ((cell[0] - width) // 2, (cell[1] - height) // 2))
    return drawn


def _existing_cells(sheet: bytes | None, cell: tuple[int, int]) -> dict[str, Image.Image]:
    """Return the cells of an existing sheet by the digests of their pictures, if it is intact and has such cells."""
    try:
        Image.open(io.BytesIO(sheet or b""), formats=["PNG"]).verify()
        image: Any = Image.open(io.BytesIO(sheet or b""), formats=["PNG"])
        made_of = _MadeOf.model_validate_json(image.text[_MADE_OF])
        layout = _Layout(made_of.cell, made_of.columns)
        if made_of.cell != cell or image.size != layout.size(len(made_of.pictures)):
            return {}
        return {digest: image.crop(layout.box(number)) for number, digest in enumerate(made_of.pictures)}
    except (OSError, SyntaxError, ValueError, KeyError, struct.error):  # Pillow raises SyntaxError for a broken PNG
        return {}


def _as_png(shown: list[_Slice], cells: Mapping[str, Image.Image], layout: _Layout) -> bytes:
    sheet = Image.new("RGB", layout.size(len(shown)), _PAPER)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, each in enumerate(shown):
        left, top, *_ = layout.box(number)
        label = Image.new("RGB", (layout.pitch[0] - _GAP, _LABEL_HEIGHT), _PAPER)
        ImageDraw.Draw(label).text((0, 0), each.label, _INK, font)
        sheet.paste(label, (left, top - _LABEL_HEIGHT))
        sheet.paste(cells[each.digest], (left, top))
    made_of = _MadeOf(cell=layout.cell, columns=layout.columns, pictures=[each.digest for each in shown])
    text = json.dumps(made_of.model_dump(), separators=(",", ":"))
    return encode_png(lines_from_above(np.asarray(sheet)), 3, _LEVEL, {_MADE_OF: text})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _MadeOf(_Part):
    """The layout of a sheet, and the digests of its pictures."""

    cell: tuple[int, int]
    columns: int = Field(ge=1)
    pictures: list[str]


class Listed(_Part):
    """Size (bytes) and checksum of a timeline in its collection."""

    size: int = Field(alias="file:size")
    checksum: str = Field(alias="file:checksum")


class _Timeline(_Part):
    timeline: Listed


class _Listing(_Part):
    assets: _Timeline
