"""Write the files of an image: COG, QA image, picture, styles and Item."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from itertools import compress
from pathlib import Path

import numpy as np
import xarray as xr

from s2cube.config.sections import OutputSection
from s2cube.cube.cut import ComputedImage
from s2cube.cube.facts import SliceFacts
from s2cube.cube.offset_check import OffsetCheck
from s2cube.errors import WriteError
from s2cube.kernels.mask import final_qa
from s2cube.kernels.packing import Packing
from s2cube.output._chunks import Rule, read_whole, spooled
from s2cube.output._cog import small_cog, small_qa, write_cog, write_qa
from s2cube.output._item import FileFacts, Found, item_text
from s2cube.output._picture import image_style, qa_style, small_picture, write_picture
from s2cube.output._raster import Layout, Spool, layout_of, open_spool
from s2cube.output._statistics import BandStatistics, Tally
from s2cube.sentinel2 import QA, aoi_cells, count_classes
from s2cube.storage.image_item import DATA, PICTURE, QA_IMAGE, QA_STYLE, SHA2_256, STYLE, SUFFIXES, checksum

_QA_PROFILE = {"count": 1, "dtype": "uint8", "nodata": int(QA.OUTSIDE)}


def write_files(
    image: xr.DataArray, facts: SliceFacts, folder: Path, settings: OutputSection, readers: int,
    check: OffsetCheck | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Compute an image, one chunk of its grid at a time, and write its files to a folder.

    Parameters
    ----------
    image
        From `cut`, lazy or computed, dims (band, y, x).
    facts
        Facts about the slice of the image.
    settings
        Compression.
    readers
        Number of threads that compute.
    check
        Check of the offsets of the scenes.

    Returns
    -------
    tuple of str
        Ids of scenes whose offset is in doubt.

    Raises
    ------
    OutputError
        If the image has values outside its area of interest.
    WriteError
        If the files cannot be written completely.
    SliceError
        If a source file cannot be read.
    """
    layout = layout_of(image)
    time = image.time.values.astype("datetime64[us]").item() if "time" in image.coords else None
    tallies = check.tallies() if check else None
    if layout.is_small:
        values, reasons, sums = read_whole(image, tallies, readers)
        doubted = _doubted(facts, check, sums)
        computed = ComputedImage(values, reasons, layout.bands, layout.geobox, time, layout.packing)
        write_computed(computed, facts, folder, settings, doubted)
        return doubted
    writing = _Writing(layout, time, facts, folder, settings)
    with naming_errors(folder, facts.slice), writing.spools() as spools:
        with spools[0].filling(), spools[1].filling():
            counts, sums = spooled(image, writing.rule, spools, (writing.tally, tallies), readers)
        doubted = _doubted(facts, check, sums)
        writing.copy(spools, counts, doubted)
    return doubted


def write_computed(
    image: ComputedImage, facts: SliceFacts, folder: Path, settings: OutputSection, doubtful: tuple[str, ...] = ()
) -> None:
    """Write the files of an image in memory to a folder. They are those that `write_files` writes.

    Parameters
    ----------
    facts
        Facts about the slice of the image.
    settings
        Compression.
    doubtful
        Ids of scenes whose offset is in doubt.

    Raises
    ------
    OutputError
        If the image has values outside its area of interest.
    WriteError
        If the files cannot be written completely.
    """
    layout = Layout(image.bands, image.values.dtype.name, image.geobox, image.packing)
    writing = _Writing(layout, image.time, facts, folder, settings)
    is_nodata = writing.rule.nodata_in(image.values, image.reasons)
    reasons = final_qa(writing.rule.holes(is_nodata, image.reasons), image.reasons)
    writing.tally.add(image.values, ~is_nodata, 0, 0, 0)
    counts = count_classes(reasons)
    with naming_errors(folder, facts.slice):
        if layout.is_small:
            writing.write(image.values, reasons, counts, doubtful)
            return
        with writing.spools() as spools:
            for spool, cells in zip(spools, (image.values, reasons[np.newaxis]), strict=True):
                with spool.filling():
                    spool.put(cells, 0, 0, 0)
            writing.copy(spools, counts, doubtful)


def _doubted(facts: SliceFacts, check: OffsetCheck | None, sums: np.ndarray | None) -> tuple[str, ...]:
    return () if check is None or sums is None else tuple(compress(facts.scenes, check.doubtful(sums)))


class _Writing:
    """Writes the files of one image.

    Parameters
    ----------
    time
        Time of the image, UTC, if it has one.
    """

    def __init__(
        self, layout: Layout, time: datetime | None, facts: SliceFacts, folder: Path, settings: OutputSection
    ) -> None:
        self._layout, self._time, self._facts, self._folder, self._settings = layout, time, facts, folder, settings
        # Images that were computed from a cube may have values outside the area.
        self.rule = Rule.of(layout, "" if facts.name else facts.aoi)
        self.tally = Tally(len(layout.bands))

    @contextmanager
    def spools(self) -> Iterator[tuple[Spool, Spool]]:
        """Create spools for the pixels and for the QA values."""
        profile = self._layout.profile
        with (
            open_spool(self._folder, **profile) as pixels,
            open_spool(self._folder, **profile | _QA_PROFILE) as reasons,
        ):
            yield pixels, reasons

    def write(self, values: np.ndarray, reasons: np.ndarray, counts: np.ndarray, doubted: tuple[str, ...]) -> None:
        """Write all files of a small image from memory."""
        layout, settings = self._layout, self._settings
        contents = {
            DATA: small_cog(values, layout, self._time, self.tally, settings),
            QA_IMAGE: small_qa(reasons, layout, settings),
            PICTURE: small_picture(layout.bands, values, layout.packing),
            **_styles(layout.bands, layout.packing),
        }
        files = write_contents(contents, self._path)
        self._write_item(files, Found(counts, doubted, self._statistics(counts)))

    def copy(self, spools: tuple[Spool, Spool], counts: np.ndarray, doubted: tuple[str, ...]) -> None:
        """Write all files of an image from its spools."""
        pixels, reasons = spools
        layout, settings = self._layout, self._settings
        write_cog(layout, self._time, pixels, self.tally, self._path(DATA), settings)
        write_qa(reasons, self._path(QA_IMAGE), settings)
        write_picture(layout.bands, pixels, self._path(PICTURE), layout.packing)
        styles = _styles(layout.bands, layout.packing)
        files = {key: file_facts(self._path(key)) for key in (DATA, QA_IMAGE, PICTURE)}
        files |= write_contents(styles, self._path)
        self._write_item(files, Found(counts, doubted, self._statistics(counts)))

    def _write_item(self, files: dict[str, FileFacts], found: Found) -> None:
        content = item_text(self._layout, self._facts, found, files)
        (self._folder / f"{self._facts.slice}.json").write_bytes(content)

    def _statistics(self, counts: np.ndarray) -> tuple[BandStatistics, ...]:
        return self.tally.statistics(int(counts.sum()) if self._facts.name else aoi_cells(counts))

    def _path(self, key: str) -> Path:
        return self._folder / f"{self._facts.slice}{SUFFIXES[key]}"


@contextmanager
def naming_errors(folder: Path, name: str) -> Iterator[None]:
    """Convert errors of the disk, while files of this name are written to a folder.

    Raises
    ------
    WriteError
        In place of such an error.
    """
    try:
        yield
    except OSError as error:
        # GDAL does not report the reason, so the message contains the free space.
        free = shutil.disk_usage(folder).free
        problem = f"cannot be written ({error.strerror or error}); {free / 1e6:.1f} MB are free there"
        raise WriteError(f"{folder}/{name}", problem, "Free disk space there, then run again") from None


@lru_cache(16)
def _styles(bands: tuple[str, ...], packing: Packing) -> dict[str, bytes]:
    style = image_style(bands, packing)
    return ({STYLE: style} if style else {}) | {QA_STYLE: qa_style()}


def write_contents(contents: Mapping[str, bytes], path_of: Callable[[str], Path]) -> dict[str, FileFacts]:
    """Write files, and return their sizes and checksums.

    Parameters
    ----------
    contents
        Contents of the files, by the keys of `SUFFIXES`.
    path_of
        Returns the path of a file from its key.
    """
    for key, content in contents.items():
        path_of(key).write_bytes(content)
    return {key: FileFacts(len(content), checksum(content)) for key, content in contents.items()}


def file_facts(path: Path) -> FileFacts:
    """Return the size and the checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFacts(path.stat().st_size, f"{SHA2_256}{digest}")
