"""Decode the bytes of a TIFF tile to its pixels."""

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

NONE, DEFLATE, OLD_DEFLATE, LERC, ZSTD = 1, 8, 32946, 34887, 50000
"""Compression codes of TIFF 6.0 and its supplements. libtiff defines the codes of LERC and ZSTD.

GDAL decodes LZW: the decoder of imagecodecs 2026.3.6 may crash the process if the data are damaged."""

_DECODERS: dict[int, Any] = {
    DEFLATE: imagecodecs.deflate_decode,
    OLD_DEFLATE: imagecodecs.deflate_decode,
    ZSTD: imagecodecs.zstd_decode,
}
COMPRESSIONS = (NONE, LERC, *_DECODERS)
PREDICTORS = (1, 2)
"""1: no predictor. 2: horizontal differencing (TIFF 6.0, section 14)."""

_LERC_MAGIC, _LERC_TYPES = b"Lerc2 ", dict(enumerate(("i1", "u1", "i2", "u2", "i4", "u4")))
"""Start of a LERC 2 blob, and its pixel types (github.com/Esri/lerc, Lerc2.cpp, ReadHeader)."""


@dataclass(frozen=True)
class Codec:
    """How the tiles of a file are encoded.

    Parameters
    ----------
    dtype
        dtype of the pixels, in the byte order of the file.
    compression
        One of `COMPRESSIONS`.
    predictor
        One of `PREDICTORS`. Only deflate and zstd use it. libtiff ignores it for other compressions.
    """

    dtype: "np.dtype[Any]"
    compression: int = NONE
    predictor: int = 1

    def decode(self, data: memoryview, rows: int, tile_shape: tuple[int, int]) -> np.ndarray:
        """Decode a tile.

        Parameters
        ----------
        rows
            Number of rows of the tile that contain pixels.

        Returns
        -------
        numpy.ndarray
            (rows, columns), in the byte order of this machine.

        Raises
        ------
        ValueError, RuntimeError
            If the bytes do not decode to a tile of this size.
        """
        columns = tile_shape[1]
        if self.compression == LERC:
            return _decompress_lerc(data, np.empty((rows, columns), self.dtype))
        row_bytes = columns * self.dtype.itemsize
        decompressed = _decompress(self.compression, data, tile_shape[0] * row_bytes)
        # Some writers pad the last strip to the full number of rows, others do not.
        if len(decompressed) not in (rows * row_bytes, tile_shape[0] * row_bytes):
            raise ValueError(f"it does not decompress to {rows * row_bytes} bytes")
        pixels = decompressed[: rows * row_bytes].view(self.dtype).reshape(rows, columns)
        pixels = pixels.astype(self.dtype.newbyteorder("="), copy=False)
        if self.predictor == 1 or self.compression not in _DECODERS:
            return pixels
        return np.asarray(imagecodecs.delta_decode(pixels, axis=1, out=pixels))


def _decompress_lerc(data: memoryview, out: np.ndarray) -> np.ndarray:
    """Decompress LERC data. The decoder checks the shape of the tile, but not whether its pixels are signed."""
    version = int.from_bytes(data[6:10], "little")
    type_start = 6 + 4 * (6 + (version >= 3) + (version >= 4))
    pixel_type = int.from_bytes(data[type_start : type_start + 4], "little")
    if bytes(data[:6]) != _LERC_MAGIC or _LERC_TYPES.get(pixel_type) != out.dtype.str[1:]:
        raise ValueError("it is not LERC data, or its pixels have a different type")
    lerc: Any = imagecodecs.lerc_decode
    # libtiff swaps the bytes of the pixels before compression, so they have the byte order of the file.
    return np.asarray(lerc(data, out=out)).astype(out.dtype.newbyteorder("="), copy=False)


def _decompress(compression: int, data: memoryview, max_bytes: int) -> np.ndarray:
    """Decompress at most `max_bytes` + 1 bytes: this detects excess bytes and limits decompression bombs."""
    if compression == NONE:
        return np.frombuffer(data, "uint8").copy()
    out = np.empty(max_bytes + 1, "uint8")
    return out[: len(_DECODERS[compression](data, out=out))]
