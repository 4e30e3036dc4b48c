"""Write the content of a PNG from the pixels. Pillow takes longer."""

import struct
import zlib
from collections.abc import Mapping

import imagecodecs
import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"

FROM_LEFT, FROM_ABOVE = 1, 2
"""Filters of lines: differences from the pixel on the left, or above (https://www.w3.org/TR/png-3/#9Filters)."""

_COLOUR_TYPES = {3: 2, 4: 6}
"""Colour type by number of bands: red, green, blue; and opacity."""


def encode_png(lines: np.ndarray, bands: int, level: int, text: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG of filtered lines.

    Parameters
    ----------
    lines
        Dims (y, 1 + x * bands), uint8. The first column is the filter of each line.
    bands
        3 (red, green, blue) or 4 (and opacity).
    level
        Deflate level of libdeflate.
    text
        Latin-1 texts that the PNG contains, compressed, by keyword.
    """
    height, width = lines.shape[0], (lines.shape[1] - 1) // bands
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[bands], 0, 0, 0)
    texts = b"".join(
        _chunk(b"zTXt", key.encode("latin-1") + b"\0\0" + zlib.compress(value.encode("latin-1")))
        for key, value in (text or {}).items()
    )
    content = bytes(imagecodecs.deflate_encode(lines.tobytes(), level))
    return SIGNATURE + _chunk(b"IHDR", header) + texts + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def lines_from_above(pixels: np.ndarray) -> np.ndarray:
    """Return the lines of an image as differences from the line above, for `encode_png`.

    Parameters
    ----------
    pixels
        Dims (y, x, band), uint8.
    """
    rows = pixels.reshape(pixels.shape[0], -1)
    lines = np.empty((rows.shape[0], 1 + rows.shape[1]), "uint8")
    lines[:, 0], lines[0, 1:] = FROM_ABOVE, rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    return lines


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
