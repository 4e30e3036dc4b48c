"""Small images are written from memory; GDAL and pystac, which write the files of others, are the oracles."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine
from rio_cogeo import cog_validate

from s2cube.config.sections import OutputSection
from s2cube.kernels.packing import PACKINGS, Packing, set_packing
from s2cube.output._cog import small_qa, write_qa
from s2cube.output._layout import layout_of
from s2cube.output._spool import open_spool
from s2cube.sentinel2 import QA
from support.images import image_by_gdal, image_to_cog

UTM = Affine(30, 0, 600000, 0, -30, 4500000)


def made(
    dtype: str, bands: tuple[str, ...] = ("red", "nir"), shape: tuple[int, int] = (24, 24), crs: str = "EPSG:32614",
    transform: Affine = UTM, packing: Packing | None = None,
) -> xr.DataArray:  # fmt: skip
    """An image of noise with holes."""
    random = np.random.default_rng(len(bands))
    if dtype.startswith("float"):
        values = random.normal(0.2, 5, (len(bands), *shape)).astype(dtype)
        values[:, : shape[0] // 3, : shape[1] // 2] = np.nan
    else:
        limits = np.iinfo(dtype)
        values = random.integers(limits.min, limits.max, (len(bands), *shape), dtype, endpoint=True)
        if packing is None and dtype == "int16":
            values[:, : shape[0] // 3, : shape[1] // 2] = -9999
    coords = {"band": np.array(bands, object), "time": np.datetime64("2022-07-09T17:19:31.024", "ns")}
    grid = xr_coords(GeoBox(shape, transform, crs))
    found = xr.DataArray(values, dims=("band", *list(grid)[:2]), coords=coords | grid)
    set_packing(found, packing or PACKINGS.get(dtype, Packing(1, math.nan, "values", None)))
    return found


IMAGES = {
    "reflectance": made("int16"),
    "natural colours": made("int16", ("red", "green", "blue")),
    "natural colours and classes": made("int16", ("B04", "B03", "B02", "scl")),
    "all bands": made(
        "int16",
        ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir16"),
    ),
    "classes first": made("int16", ("qa", "swir22", "scl")),
    "classes only": made("int16", ("scl",)),
    "floats": made("float32", ("red", "green", "blue", "nir")),
    "one float": made("float32", ("nir",)),
    "float64": made("float64", ("ndvi", "evi")),
    "bytes": made("uint8", ("a",)),
    "three bytes": made("uint8", ("a", "b", "c")),
    "four bytes": made("uint8", ("red", "green", "blue", "nir")),
    "five bytes": made("uint8", ("a", "b", "c", "d", "e")),
    "int8": made("int8", packing=Packing(1, -99, "values", None)),
    "uint16": made("uint16", packing=Packing(1, 65535, "values", None)),
    "int32": made("int32", packing=Packing(1, -9999, "values", None)),
    "uint32": made("uint32"),
    "int64": made("int64", packing=Packing(1, -9999, "values", None)),
    "uint64": made("uint64"),
    "odd names": made("float32", ("a<b>&\"c'", "grün", "ndvi 2")),
    "one cell": made("int16", shape=(1, 1)),
    "one row": made("int16", shape=(1, 300)),
    "whole tile": made("int16", shape=(512, 512)),
    "oblong": made("float32", shape=(17, 511)),
    "degrees": made("int16", crs="EPSG:4326", transform=Affine(1 / 3600, 0, -97.5, 0, -1 / 3600, 40.1)),
    "odd metres": made("int16", transform=Affine(10 / 3, 0, 600000 + 1 / 3, 0, -10 / 3, 4500000)),
    "polar": made("int16", crs="EPSG:5041"),
    "a national grid": made("int16", crs="EPSG:2154"),
    "feet": made("int16", crs="EPSG:2263"),
    "south up": made("int16", shape=(1, 5), transform=Affine(30, 0, 600000, 0, 30, 4500000)),
}


def view(path: Path) -> dict[str, Any]:
    """Everything that GDAL says of a file."""
    with rasterio.open(path) as file:
        bands = range(1, file.count + 1)
        palette = {number: file.colormap(number) for number in bands if file.colorinterp[0].name == "palette"}
        found = {
            "profile": file.profile | {"nodata": str(file.nodata)},
            "tags": file.tags(), "structure": file.tags(ns="IMAGE_STRUCTURE"), "of bands": [file.tags(n) for n in bands],
            "structure of bands": [file.tags(n, ns="IMAGE_STRUCTURE") for n in bands],
            "namespaces": set(file.tag_namespaces()) | {each for n in bands for each in file.tag_namespaces(n)},
            "names": file.descriptions, "scales": file.scales, "offsets": file.offsets, "units": file.units,
            "colours": file.colorinterp, "photometric": file.photometric, "palette": palette,
            "overviews": [file.overviews(n) for n in bands], "mask flags": file.mask_flag_enums, "epsg": file.crs.to_epsg(),
            "crs": file.crs.to_wkt(), "pixels": file.read().tobytes(), "files": len(file.files),
        }  # fmt: skip
    # The tile is not larger than the image needs.
    sides = [found["profile"].pop(f"block{side}size") for side in "xy"]
    assert all(side % 16 == 0 for side in sides)
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_gdal_reads_what_it_reads_from_its_own_file(name: str, tmp_path: Path) -> None:
    image_to_cog(IMAGES[name], tmp_path / "ours.tif")
    image_by_gdal(IMAGES[name], tmp_path / "gdals.tif")
    ours, gdals = view(tmp_path / "ours.tif"), view(tmp_path / "gdals.tif")
    assert ours == gdals
    assert ours["structure"]["LAYOUT"] == "COG"
    assert ours["pixels"] == IMAGES[name].values.tobytes()


def test_a_nodata_value_of_64_bits_is_exact(tmp_path: Path) -> None:
    """rasterio gives GDAL a text with a decimal exponent, of which GDAL reads the first digit."""
    image_to_cog(made("int64", packing=Packing(1, -(2**62), "values", None)), tmp_path / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.nodata == -(2**62)


WAYS = [
    {"compress": "deflate"}, {"compress": "deflate", "compress_level": 12}, {"compress": "zstd"},
    {"compress": "zstd", "compress_level": 19}, {"compress": "lzw"}, {"compress": "none"},
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("name", ["natural colours and classes", "float64", "uint8"])
def test_compressed_in_any_way(name: str, way: dict[str, Any], tmp_path: Path) -> None:
    source = made("uint8", ("a", "b")) if name == "uint8" else IMAGES[name]
    image_to_cog(source, tmp_path / "ours.tif", OutputSection.of(way))
    image_by_gdal(source, tmp_path / "gdals.tif", OutputSection.of(way))
    ours, gdals = view(tmp_path / "ours.tif"), view(tmp_path / "gdals.tif")
    if way["compress"] == "none":
        # If nothing is compressed, GDAL writes one tile for each band, and the file does not say that it is a COG.
        assert ours["structure"].pop("LAYOUT") == "COG"
        for each in (ours, gdals):
            each["profile"].pop("interleave")
            each["structure"].pop("INTERLEAVE")
    assert ours == gdals


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_qa_images(way: dict[str, Any], tmp_path: Path) -> None:
    layout, settings = layout_of(IMAGES["oblong"]), OutputSection.of(way)
    reasons = np.random.default_rng(1).choice(np.array(QA, "uint8"), layout.shape[1:])
    (tmp_path / "ours.tif").write_bytes(small_qa(reasons, layout, settings))
    profile = layout.profile | {"count": 1, "dtype": "uint8", "nodata": 255}
    with open_spool(tmp_path, **profile) as spool:
        with spool.filling():
            spool.put(reasons[np.newaxis], 0, 0, 0)
        write_qa(spool, tmp_path / "gdals.tif", settings)
    ours = view(tmp_path / "ours.tif")
    assert ours == view(tmp_path / "gdals.tif")
    assert ours["palette"]
    assert cog_validate(tmp_path / "ours.tif", strict=True)[0]


@pytest.mark.parametrize("name", ["reflectance", "float64", "one cell", "whole tile", "oblong", "uint64"])
def test_is_a_valid_cog(name: str, tmp_path: Path) -> None:
    image_to_cog(IMAGES[name], tmp_path / "x.tif")
    valid, errors, warnings = cog_validate(tmp_path / "x.tif", strict=True)
    assert valid, errors + warnings


@pytest.mark.parametrize("name", ["natural colours and classes", "floats", "float64", "int32", "uint64", "oblong"])
@pytest.mark.parametrize("compress", ["deflate", "lzw"])
def test_tifffile_reads_the_tags_and_the_pixels(name: str, compress: str, tmp_path: Path) -> None:
    """Its decoders are not those of GDAL, and it shows the tags as they are."""
    image_to_cog(IMAGES[name], tmp_path / "ours.tif", OutputSection.of({"compress": compress}))
    image_by_gdal(IMAGES[name], tmp_path / "gdals.tif", OutputSection.of({"compress": compress}))
    with tifffile.TiffFile(tmp_path / "ours.tif") as ours, tifffile.TiffFile(tmp_path / "gdals.tif") as gdals:
        np.testing.assert_array_equal(np.moveaxis(ours.asarray(), -1, 0), IMAGES[name].values)
        tags = [{tag.name: tag.value for tag in file.pages[0].tags} for file in (ours, gdals)]
    changed = {"TileWidth", "TileLength", "TileOffsets", "TileByteCounts"}
    assert tags[0].keys() == tags[1].keys() >= changed
    assert [{key: value for key, value in each.items() if key not in changed} for each in tags] == [
        {key: value for key, value in tags[1].items() if key not in changed}
    ] * 2
