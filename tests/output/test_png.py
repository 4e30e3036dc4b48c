"""PNGs as Pillow and GDAL read them."""

import io

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s2cube.output.png import encode_png, lines_from_above

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([3, 4]), st.integers(0, 9), st.text("aZ{}é", max_size=9))
def test_others_read_the_same_pixels_and_text(height: int, width: int, bands: int, level: int, text: str) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, bands), dtype="uint8")
    content = encode_png(lines_from_above(pixels), bands, level, {"made of": text})
    image = Image.open(io.BytesIO(content), formats=["PNG"])
    assert image.mode == ("RGB" if bands == 3 else "RGBA")
    assert np.array_equal(np.asarray(image), pixels)
    assert image.text == {"made of": text}  # type: ignore[attr-defined]
    with rasterio.MemoryFile(content) as memory, memory.open(driver="PNG") as file:
        assert np.array_equal(np.moveaxis(file.read(), 0, -1), pixels)
