"""TIFFs of every kind, made byte by byte: what s2cube reads of them is what GDAL reads, or it says why not."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from rasterio.windows import Window

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access
from s2cube.raster import gdal_file
from s2cube.raster._geotiff import Unsupported
from s2cube.raster._tiles import TiledRaster
from s2cube.raster.lattice import rectangles
from s2cube.raster.tiff import read_header

NONE, LZW, DEFLATE, OLD_DEFLATE, LERC, ZSTD = 1, 5, 8, 32946, 34887, 50000
WITH_PREDICTOR = (LZW, DEFLATE, OLD_DEFLATE, ZSTD)
"""The compressions for which libtiff has a predictor (TIFFPredictorInit)."""

PACK: dict[int, Callable[[bytes], bytes]] = {
    NONE: bytes,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    ZSTD: imagecodecs.zstd_encode,
}
OURS = tuple(each for each in PACK if each != LZW)
"""GDAL decodes LZW."""

SHORT, LONG, ASCII, DOUBLE = 3, 4, 2, 12
CODES = {SHORT: "H", LONG: "I", DOUBLE: "d"}


@dataclass(frozen=True)
class Kind:
    """How a file is written; `damage` changes what one tile is packed to."""

    dtype: str = "uint16"
    order: str = "<"
    tile: tuple[int, int] | None = (16, 16)
    rows_per_strip: int = 7
    compression: int = DEFLATE
    predictor: int | None = None
    nodata: str | None = "0"
    sparse: bool = False
    big: bool = False
    damage: Callable[[bytes], bytes] = bytes


def packed(kind: Kind, pixels: np.ndarray) -> bytes:
    if kind.compression == LERC:
        # As libtiff writes it: in the byte order of the file, though LERC has one of its own.
        return bytes(imagecodecs.lerc_encode(pixels.byteswap() if kind.order == ">" else pixels, level=0))
    if kind.predictor == 2 and kind.compression in WITH_PREDICTOR:
        pixels = np.diff(pixels, axis=1, prepend=pixels[:, :1] - pixels[:, :1])
    return PACK[kind.compression](pixels.astype(pixels.dtype.newbyteorder(kind.order)).tobytes())


def blocks(kind: Kind, pixels: np.ndarray) -> list[np.ndarray]:
    if kind.tile is None:
        return [pixels[top : top + kind.rows_per_strip] for top in range(0, len(pixels), kind.rows_per_strip)]
    rows, columns = kind.tile
    down, across = -(-pixels.shape[0] // rows), -(-pixels.shape[1] // columns)
    padded = np.zeros((down * rows, across * columns), pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [
        padded[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        for row in range(down)
        for column in range(across)
    ]


def made(kind: Kind, pixels: np.ndarray) -> bytes:
    """Write a file: its header, its one directory, the values of tags, then tiles."""
    parts = [packed(kind, each) for each in blocks(kind, pixels)]
    parts[0] = kind.damage(parts[0])
    if kind.sparse:
        parts[-1] = b""
    tags: dict[int, tuple[int, Any]] = {
        256: (LONG, [pixels.shape[1]]), 257: (LONG, [pixels.shape[0]]), 258: (SHORT, [pixels.dtype.itemsize * 8]),
        259: (SHORT, [kind.compression]), 262: (SHORT, [1]), 277: (SHORT, [1]), 284: (SHORT, [1]),
        339: (SHORT, [2 if pixels.dtype.kind == "i" else 1]),
        33550: (DOUBLE, [10.0, 10.0, 0.0]), 33922: (DOUBLE, [0.0, 0.0, 0.0, 600000.0, 4500000.0, 0.0]),
        34735: (SHORT, [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32614]),
    }  # fmt: skip
    if kind.predictor is not None:
        tags[317] = (SHORT, [kind.predictor])
    if kind.compression == LERC:
        tags[50674] = (LONG, [4, 0])
    if kind.nodata is not None:
        tags[42113] = (ASCII, kind.nodata.encode() + b"\0")
    place, size = (273, 279) if kind.tile is None else (324, 325)
    if kind.tile is None:
        tags[278] = (LONG, [kind.rows_per_strip])
    else:
        tags |= {322: (LONG, [kind.tile[1]]), 323: (LONG, [kind.tile[0]])}
    tags[place], tags[size] = (LONG, [0] * len(parts)), (LONG, [len(each) for each in parts])
    values = {
        tag: content if code == ASCII else struct.pack(f"{kind.order}{len(content)}{CODES[code]}", *content)
        for tag, (code, content) in tags.items()
    }
    first, wide, number, place_code = (16, 8, "Q", "Q") if kind.big else (8, 4, "H", "I")
    ends = first + struct.calcsize(f"={number}") + (4 + 2 * wide) * len(tags) + wide
    behind = ends
    ends += sum(len(each) for each in values.values() if len(each) > wide)
    starts = [ends + sum(map(len, parts[:position])) if each else 0 for position, each in enumerate(parts)]
    values[place] = struct.pack(f"{kind.order}{len(starts)}I", *starts)
    out, beyond = io.BytesIO(), io.BytesIO()
    out.write((b"II" if kind.order == "<" else b"MM") + struct.pack(f"{kind.order}H", 43 if kind.big else 42))
    out.write(struct.pack(f"{kind.order}HH", 8, 0) if kind.big else b"")
    out.write(struct.pack(f"{kind.order}{place_code}{number}", first, len(tags)))
    for tag in sorted(tags):
        code, value = tags[tag][0], values[tag]
        out.write(struct.pack(f"{kind.order}HH{place_code}", tag, code, len(tags[tag][1])))
        if len(value) <= wide:
            out.write(value.ljust(wide, b"\0"))
        else:
            out.write(struct.pack(f"{kind.order}{place_code}", behind + beyond.tell()))
            beyond.write(value)
    return out.getvalue() + bytes(wide) + beyond.getvalue() + b"".join(parts)


def by_gdal(path: Path) -> tuple[Any, ...]:
    """Digital numbers as GDAL reads them, 0 where there are none, and where they lie."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, driver="GTiff", sharing=False) as file:
            pixels = file.read(1)
            valid = (file.read_masks(1) != 0) & (pixels != 0)
            return np.where(valid, pixels, 0), file.transform, file.crs


def by_us(path: Path) -> tuple[Any, ...]:
    """What `resample` gets of a file."""
    raster: Any
    try:
        tiff = read_header(str(path), Access(retries=0))
        raster = TiledRaster(tiff, tiff.levels[0], Access(retries=0))
    except Unsupported as kind:
        raster = gdal_file.rasters(str(path), Access(retries=0), kind.driver)[0]
    lattice = raster.lattice
    if lattice.height * lattice.width > 1 << 20:
        raise MemoryError("more than such a test has room for")
    pixels = np.zeros((lattice.height, lattice.width), "int64")
    for block in raster.blocks(rectangles([Window(0, 0, lattice.width, lattice.height)])):
        valid = np.ones(block.pixels.shape, bool) if raster.nodata is None else block.pixels != raster.nodata
        valid = valid if block.mask is None else valid & block.mask
        place = np.s_[block.row : block.row + valid.shape[0], block.column : block.column + valid.shape[1]]
        pixels[place] = np.where(valid, block.pixels, 0)
    return pixels, lattice.transform, lattice.crs


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return bool(np.array_equal(one[0], other[0]) and one[1].almost_equals(other[1]) and one[2] == other[2])


def noise(seed: int, dtype: str, height: int = 20, width: int = 37) -> np.ndarray:
    """Some flat, some rough."""
    random = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    pixels = random.integers(max(limits.min, -3), min(limits.max, random.choice([5, 300, 60_000])), (height, width))
    return pixels.astype(dtype)


KINDS = st.builds(
    Kind,
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32"]),
    order=st.sampled_from("<>"),
    tile=st.sampled_from([None, (16, 16), (32, 16), (64, 64)]),
    rows_per_strip=st.sampled_from([1, 7, 20, 64]),
    compression=st.sampled_from([NONE, LZW, DEFLATE, OLD_DEFLATE, LERC, ZSTD]),
    predictor=st.sampled_from([None, 1, 2]),
    nodata=st.sampled_from([None, "0", "5", " 7 ", "-1", "-9999", "65535", "65535.0", "1e2", "nan", ""]),
    sparse=st.booleans(),
    big=st.booleans(),
)


@given(KINDS, st.integers(0, 10_000))
def test_every_kind_is_read_as_gdal_reads_it(tmp_path_factory: pytest.TempPathFactory, kind: Kind, seed: int) -> None:
    limits = np.iinfo(kind.dtype)
    number = float(kind.nodata or "nan")
    # GDAL fills a tile that is not there with its nodata, and when that is beyond the type, with what is nearest to it.
    assume(not kind.sparse or np.isnan(number) or limits.min <= number <= limits.max)
    path = tmp_path_factory.mktemp("kind") / "k.tif"
    pixels = noise(seed, kind.dtype)
    path.write_bytes(made(kind, pixels))
    got, want = by_us(path), by_gdal(path)
    assert same(got, want)
    if kind.nodata in (None, "0", "-9999") and not kind.sparse:
        # What was written: the writer above, and GDAL, are understood.
        np.testing.assert_array_equal(want[0], pixels)


PLACES = st.one_of(st.integers(4, 450), st.integers(0, 5000))
"""Half of them in the header."""


@pytest.mark.slow
@settings(max_examples=400)
@given(KINDS, st.integers(0, 100), st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=3))
def test_bytes_that_are_changed(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, seed: int, changes: list[tuple[int, int]]
) -> None:
    """Whatever they are: what GDAL reads, or an error."""
    path = tmp_path_factory.mktemp("bytes") / "b.tif"
    kind, pixels = replace(kind, sparse=False), noise(seed, kind.dtype)
    whole = made(kind, pixels)
    header_bytes = len(whole) - sum(len(packed(kind, each)) for each in blocks(kind, pixels))
    data = bytearray(whole)
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    # Without PhotometricInterpretation, which every file must have, GDAL 3.10 gives rows that are in no file.
    assume(262 in tags_of(data, kind))
    try:
        got = by_us(path)
    except (AssetReadError, RasterioError, MemoryError):
        return
    try:
        want = by_gdal(path)
    except RasterioError:
        # Over tags that do not matter here, as how planes lie of which there is one: as if the header were sound. Its
        # place may have been changed, too, and is not that of the sound one.
        path.write_bytes(whole[:header_bytes] + data[header_bytes:])
        want = (by_gdal(path)[0], *got[1:])
    assert same(got, want)


def tags_of(data: bytes, kind: Kind) -> set[int]:
    number, size, first = ("Q", 20, 24) if kind.big else ("H", 12, 10)
    (count,) = struct.unpack_from(f"{kind.order}{number}", data, first - struct.calcsize(f"={number}"))
    starts = range(first, min(first + size * count, len(data) - 2), size)
    return {struct.unpack_from(f"{kind.order}H", data, at)[0] for at in starts}


class TestPredictor:
    """Of horizontal differences where libtiff knows none: such files exist, and GDAL reads them as they are."""

    @pytest.mark.parametrize("compression", [NONE, LERC])
    @pytest.mark.parametrize("tile", [None, (16, 16)])
    def test_is_left_alone_where_the_compression_has_none(
        self, tmp_path: Path, compression: int, tile: tuple[int, int] | None
    ) -> None:
        pixels = np.arange(1, 741, dtype="uint16").reshape(20, 37)
        path = tmp_path / "p.tif"
        path.write_bytes(made(Kind(compression=compression, predictor=2, tile=tile), pixels))
        np.testing.assert_array_equal(by_us(path)[0], pixels)
        np.testing.assert_array_equal(by_gdal(path)[0], pixels)

    @pytest.mark.parametrize("compression", WITH_PREDICTOR)
    def test_is_undone_where_it_has(self, tmp_path: Path, compression: int) -> None:
        pixels = np.arange(1, 741, dtype="uint16").reshape(20, 37)
        path = tmp_path / "p.tif"
        path.write_bytes(made(Kind(compression=compression, predictor=2), pixels))
        np.testing.assert_array_equal(by_us(path)[0], pixels)


class TestStreams:
    """A tile that unpacks to anything but its pixels is damaged; a decoder that fills up hides it."""

    def refused(self, path: Path, kind: Kind, seed: int = 1) -> None:
        path.write_bytes(made(kind, noise(seed, kind.dtype)))
        with pytest.raises(AssetReadError, match=r"s\.tif: is damaged: its tile \(0, 0\) of \d+ bytes"):
            by_us(path)

    @pytest.mark.parametrize("tile", [None, (16, 16)])
    @pytest.mark.parametrize("compression", OURS)
    @pytest.mark.parametrize("more_bytes", [-2, -1, 1, 2, 1000])
    def test_that_unpack_to_another_length(
        self, tmp_path: Path, compression: int, more_bytes: int, tile: tuple[int, int] | None
    ) -> None:
        raw = np.random.default_rng(3).integers(0, 255, 7 * 37 * 2 if tile is None else 16 * 16 * 2, "uint8").tobytes()
        wrong = raw[:more_bytes] if more_bytes < 0 else raw + bytes(more_bytes)
        kind = Kind(compression=compression, tile=tile, damage=lambda _: PACK[compression](wrong))
        self.refused(tmp_path / "s.tif", kind)
        whole = replace(kind, damage=lambda _: PACK[compression](raw))
        (tmp_path / "w.tif").write_bytes(made(whole, noise(1, "uint16")))
        assert same(by_us(tmp_path / "w.tif"), by_gdal(tmp_path / "w.tif"))

    @pytest.mark.slow
    @pytest.mark.parametrize("compression", [DEFLATE, OLD_DEFLATE, ZSTD])
    @pytest.mark.parametrize("cut_bytes", [1, 2, 3, 9])
    def test_that_end_too_early(self, tmp_path: Path, compression: int, cut_bytes: int) -> None:
        """Also by the byte that holds no more than the mark of the end: a decoder may guess what is before it."""
        for seed in range(40):
            kind = Kind(compression=compression, damage=lambda data: data[:-cut_bytes])
            self.refused(tmp_path / "s.tif", kind, seed)

    def test_lzw_is_decoded_by_gdal(self, tmp_path: Path) -> None:
        """The decoder of imagecodecs crashed on damaged streams."""
        (tmp_path / "s.tif").write_bytes(made(Kind(compression=LZW), noise(1, "uint16")))
        with pytest.raises(Unsupported):
            read_header(str(tmp_path / "s.tif"), Access(retries=0))

    @pytest.mark.slow
    @pytest.mark.parametrize(("cut_bytes", "least_refused"), [(1, 0), (2, 1), (3, 40), (9, 40)])
    def test_lzw_that_ends_too_early(self, tmp_path: Path, cut_bytes: int, least_refused: int) -> None:
        """The last byte may contain only the mark of the end. Then no pixel is missing."""
        refused = 0
        for seed in range(40):
            pixels = noise(seed, "uint16")
            kind = Kind(compression=LZW, damage=lambda data: data[:-cut_bytes])
            (tmp_path / "s.tif").write_bytes(made(kind, pixels))
            try:
                np.testing.assert_array_equal(by_us(tmp_path / "s.tif")[0], pixels)
            except RasterioError:
                refused += 1
        assert refused >= least_refused

    def test_with_bytes_behind_their_end_are_whole(self, tmp_path: Path) -> None:
        for compression in (LZW, DEFLATE):
            pixels = noise(1, "uint16")
            kind = Kind(compression=compression, damage=lambda data: data + b"padding")
            (tmp_path / "w.tif").write_bytes(made(kind, pixels))
            np.testing.assert_array_equal(by_us(tmp_path / "w.tif")[0], pixels)

    @pytest.mark.parametrize("tag", [324, 325])
    def test_a_tile_that_is_half_there(self, tmp_path: Path, tag: int) -> None:
        """Neither sparse, which 0 of both says, nor anything else."""
        data = bytearray(made(Kind(tile=(64, 64)), noise(1, "uint16")))
        at = next(at for at in range(10, 400, 12) if struct.unpack_from("<H", data, at)[0] == tag)
        struct.pack_into("<I", data, at + 8, 0)
        (tmp_path / "h.tif").write_bytes(data)
        with pytest.raises(AssetReadError, match="only the offset or only the size is 0"):
            by_us(tmp_path / "h.tif")


def with_entry(kind: Kind, tag: int, *, becomes: tuple[int, int, int, int] | None = None, more: bytes = b"") -> bytes:
    """Write a file, replace the entry of a tag (its tag, type, count and value), and append bytes."""
    data = bytearray(made(kind, noise(1, kind.dtype)))
    number, entry, first, size = ("Q", "HHQQ", 24, 20) if kind.big else ("H", "HHII", 10, 12)
    (count,) = struct.unpack_from(f"{kind.order}{number}", data, first - struct.calcsize(f"={number}"))
    at = next(
        at
        for at in range(first, first + size * count, size)
        if struct.unpack_from(f"{kind.order}H", data, at)[0] == tag
    )
    struct.pack_into(
        f"{kind.order}{entry}", data, at, *(becomes or struct.unpack_from(f"{kind.order}{entry}", data, at))
    )
    return bytes(data + more)


class TestDirectories:
    """What would change the meaning of a file if it were passed over is refused."""

    KINDS = (Kind(), Kind(big=True), Kind(order=">", big=True))

    def refused(self, path: Path, data: bytes, told: str) -> None:
        path.write_bytes(data)
        with pytest.raises(AssetReadError, match=rf"d\.tif: has a damaged header .*{told}"):
            by_us(path)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_tag_twice(self, tmp_path: Path, kind: Kind) -> None:
        data = with_entry(kind, 284, becomes=(277, SHORT, 1, 1))
        self.refused(tmp_path / "d.tif", data, "its tag 277 occurs twice")

    @pytest.mark.parametrize("kind", KINDS)
    def test_unknown_tags_do_not_matter(self, tmp_path: Path, kind: Kind) -> None:
        data = with_entry(replace(kind, nodata=None), 284, becomes=(0, 99, 1 << 31, 1))
        (tmp_path / "d.tif").write_bytes(data)
        np.testing.assert_array_equal(by_us(tmp_path / "d.tif")[0], noise(1, "uint16"))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("tag", "type_code"), [(256, 1), (257, DOUBLE), (322, ASCII), (324, 5), (42113, SHORT), (277, 99)]
    )
    def test_a_type_that_the_tag_does_not_have(self, tmp_path: Path, kind: Kind, tag: int, type_code: int) -> None:
        data = with_entry(kind, tag, becomes=(tag, type_code, 1, 1))
        self.refused(tmp_path / "d.tif", data, f"its tag {tag} has values of type {type_code}")

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("tag", [324, 325, 33550, 34735])
    def test_values_beyond_the_end(self, tmp_path: Path, kind: Kind, tag: int) -> None:
        whole = made(kind, noise(1, kind.dtype))
        data = with_entry(kind, tag, becomes=(tag, LONG, 100, len(whole) - 399))
        self.refused(tmp_path / "d.tif", data, "beyond the end of the file")

    @pytest.mark.parametrize("kind", KINDS)
    def test_values_that_are_the_first_bytes(self, tmp_path: Path, kind: Kind) -> None:
        self.refused(tmp_path / "d.tif", with_entry(kind, 33550, becomes=(33550, DOUBLE, 3, 0)), "in the first bytes")

    @pytest.mark.parametrize("place", [2**63 - 100, 2**63, 2**64 - 1])
    def test_places_of_tiles_that_no_file_has(self, tmp_path: Path, place: int) -> None:
        data = with_entry(Kind(big=True, tile=(64, 64)), 324, becomes=(324, 16, 1, place))
        self.refused(tmp_path / "d.tif", data, "impossible sizes or offsets|beyond the end")

    @pytest.mark.parametrize("kind", KINDS)
    def test_as_many_directories_as_may_be(self, tmp_path: Path, kind: Kind) -> None:
        """Each is the same as the first, and no overview: it says nothing of the image."""
        whole = made(kind, noise(1, kind.dtype))
        number, size, first, wide = ("Q", 20, 16, "Q") if kind.big else ("H", 12, 8, "I")
        (count,) = struct.unpack_from(f"{kind.order}{number}", whole, first)
        length = struct.calcsize(f"={number}") + size * count
        directory = whole[first : first + length]
        for directories in (32, 33):
            data, at = bytearray(whole), first + length
            for _ in range(directories - 1):
                struct.pack_into(f"{kind.order}{wide}", data, at, len(data))
                data += directory + bytes(struct.calcsize(f"={wide}"))
                at = len(data) - struct.calcsize(f"={wide}")
            (tmp_path / "d.tif").write_bytes(data)
            if directories == 32:
                np.testing.assert_array_equal(by_us(tmp_path / "d.tif")[0], by_gdal(tmp_path / "d.tif")[0])
        self.refused(tmp_path / "d.tif", bytes(data), "more than 32 directories")

    def test_a_directory_that_is_cut_off(self, tmp_path: Path) -> None:
        whole = made(Kind(), noise(1, "uint16"))
        (count,) = struct.unpack_from("<H", whole, 8)
        for start in (len(whole) - 1, len(whole), 2**31):
            data = bytearray(whole)
            struct.pack_into("<I", data, 10 + 12 * count, start)
            self.refused(tmp_path / "d.tif", bytes(data), "beyond the end of the file")

    @pytest.mark.parametrize(("at", "value"), [(4, 4), (6, 1)])
    def test_a_bigtiff_of_other_offsets(self, tmp_path: Path, at: int, value: int) -> None:
        data = bytearray(made(Kind(big=True), noise(1, "uint16")))
        data[at] = value
        self.refused(tmp_path / "d.tif", bytes(data), "offsets do not have 8 bytes")

    def test_more_entries_than_any_file_has(self, tmp_path: Path) -> None:
        data = bytearray(made(Kind(), noise(1, "uint16")))
        struct.pack_into("<H", data, 8, 4097)
        self.refused(tmp_path / "d.tif", bytes(data) + bytes(100_000), "a directory of 4097 entries")


class TestNodataTag:
    PIXELS = np.array([[0, 1, 5, 7, 8, 10, 15, 16, 255, 1000, 32767, 65535]], "uint16")

    @pytest.mark.parametrize(
        ("text", "out"),
        [
            ("0", 0), ("-0", 0), ("0.0", 0), (" 0", 0), ("0 ", 0), ("+0", 0), ("00", 0), ("1e-400", 0), ("7", 7),
            ("7.", 7), (".5e1", 5), ("1e3", 1000), ("1E3", 1000), ("65535.0", 65535), ("65535", 65535),
            # No pixel of this type can be that.
            ("65536", None), ("-1", None), ("-9999", None), ("4294967296", None), ("18446744073709551615", None),
            ("nan", None), ("NaN", None), ("inf", None), ("-inf", None), ("", None), ("  ", None),
        ],
    )  # fmt: skip
    def test_is_read_as_gdal_reads_it(self, tmp_path: Path, text: str, out: int | None) -> None:
        path = tmp_path / "n.tif"
        path.write_bytes(made(Kind(nodata=text), self.PIXELS))
        np.testing.assert_array_equal(by_us(path)[0], np.where(out == self.PIXELS, 0, self.PIXELS))
        np.testing.assert_array_equal(by_gdal(path)[0], by_us(path)[0])

    @pytest.mark.parametrize(
        "text",
        ["1_000", "1,000", "1,5", "0x10", "1d3", "7abc", "7 8", "--7", "7.6", "0.5", "none", "n/a", "nan(1)", "７"],
    )
    @pytest.mark.parametrize("predictor", [1, 3])
    def test_that_is_no_number_is_refused(self, tmp_path: Path, text: str, predictor: int) -> None:
        """GDAL reads the digits that come first, cuts off decimals, and takes 0 for a word; also of what it reads."""
        path = tmp_path / "n.tif"
        path.write_bytes(made(Kind(nodata=text, predictor=predictor), self.PIXELS))
        with pytest.raises(AssetReadError, match=r"n\.tif: .*its nodata tag '.*' is not a whole number"):
            by_us(path)


@pytest.mark.slow
@pytest.mark.parametrize("position", range(16))
@pytest.mark.parametrize("value", [0, 1, 2, 3, 256, 1024, 2048, 3072, 4326, 32613, 32767, 9002, 2163, 32662])
def test_geokeys_give_the_place_that_gdal_finds(tmp_path: Path, position: int, value: int) -> None:
    keys = struct.pack("<16H", 1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32614)
    data = bytearray(made(Kind(), noise(1, "uint16")))
    struct.pack_into("<H", data, data.index(keys) + 2 * position, value)
    (tmp_path / "g.tif").write_bytes(data)
    try:
        got = by_us(tmp_path / "g.tif")
    except AssetReadError:
        return
    assert same(got, by_gdal(tmp_path / "g.tif"))
