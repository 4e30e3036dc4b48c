"""Small images are written from memory; GDAL and pystac, which write the files of others, are the oracles."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
import tifffile
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from PIL import Image
from pystac.extensions.file import FileExtension
from rasterio import Affine
from rio_cogeo import cog_validate

from s2cube import __version__
from s2cube.config.sections import OutputSection
from s2cube.cube.cut import ComputedImage
from s2cube.cube.facts import Provenance, SliceFacts
from s2cube.errors import OutputError
from s2cube.kernels.packing import PACKINGS, Packing, packing_of, set_packing
from s2cube.output._cog import small_qa, write_qa
from s2cube.output._item import Found
from s2cube.output._picture import small_picture, write_picture
from s2cube.output._raster import layout_of, open_spool
from s2cube.output._statistics import Tally
from s2cube.output.files import write_computed, write_files
from s2cube.output.item_form import Raster, data_bands, extensions, qa_members, raster_properties
from s2cube.scenes.time_slice import Dropped
from s2cube.sentinel2 import QA, count_classes
from support.images import image_by_gdal, image_to_cog, spooled

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
            "tags": file.tags(), "structure": file.tags(ns="IMAGE_STRUCTURE"),
            "of bands": [file.tags(n) for n in bands],
            "structure of bands": [file.tags(n, ns="IMAGE_STRUCTURE") for n in bands],
            "namespaces": set(file.tag_namespaces()) | {each for n in bands for each in file.tag_namespaces(n)},
            "names": file.descriptions, "scales": file.scales, "offsets": file.offsets, "units": file.units,
            "colours": file.colorinterp, "photometric": file.photometric, "palette": palette,
            "overviews": [file.overviews(n) for n in bands], "mask flags": file.mask_flag_enums,
            "epsg": file.crs.to_epsg(), "crs": file.crs.to_wkt(), "pixels": file.read().tobytes(),
            "files": len(file.files),
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
        # GDAL writes one tile for each band. Before 3.12 the file does not say that it is a COG.
        assert ours["structure"].pop("LAYOUT") == gdals["structure"].pop("LAYOUT", "COG") == "COG"
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


def reasons_for(source: xr.DataArray) -> np.ndarray:
    """QA values before the bands are looked at: a part is outside the area, a part is cloudy."""
    packing, reasons = packing_of(source), np.zeros(source.shape[1:], "uint8")
    reasons[packing.holes(source.values).any(axis=0)] = QA.CLOUD
    reasons[packing.holes(source.values).all(axis=0)] = QA.OUTSIDE
    return reasons


def facts_for(source: xr.DataArray, **changed: Any) -> SliceFacts:
    outline = shapely.Point(-97.5, 40.1).buffer(0.01)
    settings = {"mask": ["scl"], "mask_classes": [3, 8, 9, 10], "dtype": source.dtype.name}
    scenes = ("S2A_14TNL_20220709_0_L2A", "S2A_14TNK_20220709_0_L2A")
    provenance = Provenance(
        recipe="0123abcd", data_version=7, settings=settings, search={"max_cloud": 20.0}, ground="4567",
        offset_dn=dict.fromkeys(scenes, -1000), dropped=(Dropped("S2A_14TNL_20220709_1_L2A", scenes[0], "older"),),
        derived_from=("https://host/items/a", "https://host/items/ü"),
    )  # fmt: skip
    time = datetime(2022, 7, 9, 17, 19, 31, 24000, tzinfo=UTC)
    return replace(SliceFacts("farm", outline, "farm_20220709", time, scenes, provenance), **changed)


PERIOD = (datetime(2022, 7, 1, 17, tzinfo=UTC), datetime(2022, 7, 31, 17, 30, 1, 5, tzinfo=UTC))
WIDE = shapely.MultiPolygon([shapely.box(-97.6, 40, -97.5, 40.1), shapely.Point(-97, 41).buffer(0.1)])


def described(what: str) -> tuple[xr.DataArray, SliceFacts]:
    """An image and its facts."""
    name = {"natural colours": "natural colours", "classes": "classes only", "floats": "floats"}.get(
        what, "reflectance"
    )
    source = IMAGES["degrees" if what == "degrees" else "bytes" if what == "bytes" else name]
    facts = facts_for(source)
    bare = replace(facts.provenance, settings={}, search={}, dropped=(), derived_from=(), data_version=0, ground="")
    changed: dict[str, dict[str, Any]] = {
        "two missions": {"scenes": (facts.scenes[0], "S2B_14TNL_20220709_0_L2A")},
        "parts": {"outline_lonlat": WIDE},
        "over the antimeridian": {"outline_lonlat": shapely.box(179.9, 10, 180.1, 10.2)},
        "a name": {"name": "ndvi", "provenance": bare, "is_explained": False},
        "a period": {"name": "median", "time": None, "interval": PERIOD},
        "bytes": {"name": "kinds", "provenance": bare},
        "no mask of clouds": {"provenance": replace(facts.provenance, settings={"mask": ["snow"]})},
    }
    return source, replace(facts, **changed.get(what, {}))


FACTS = ["reflectance", "natural colours", "classes", "floats", "degrees", "two missions", "parts", "bytes"]
FACTS += ["over the antimeridian", "a name", "a period", "no mask of clouds"]


def computed(source: xr.DataArray, facts: SliceFacts) -> tuple[ComputedImage, xr.DataArray]:
    """The same image as a value, and as a cube's."""
    reasons = reasons_for(source)
    time = facts.time and facts.time.replace(tzinfo=None)
    names = tuple(map(str, source.band.values))
    value = ComputedImage(source.values, reasons, names, source.odc.geobox, time, packing_of(source))
    image = source.assign_coords(qa=(source.dims[1:], reasons))
    if time is None:
        return value, image.drop_vars("time")
    return value, image.assign_coords(time=np.datetime64(time, "ns"))


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize("side", [30, 600])
@pytest.mark.parametrize("chunk", [None, 17, 256])
def test_an_image_in_memory_has_the_files_of_a_lazy_one(side: int, chunk: int | None, tmp_path: Path) -> None:
    """Those of a large one are written by GDAL."""
    if chunk == 17 and side == 600:
        return
    source = made("int16", ("red", "scl", "green", "blue"), (side, side + 3))
    facts, folders = facts_for(source), [tmp_path / "value", tmp_path / "lazy"]
    value, image = computed(source, facts)
    if chunk:
        lazy = image.chunk({"band": 2, image.dims[1]: chunk, image.dims[2]: chunk})
        image = lazy.assign_coords(qa=lazy.qa.chunk(chunk))
    for folder in folders:
        folder.mkdir()
    write_computed(value, facts, folders[0], OutputSection(), ("a",))
    assert write_files(image, facts, folders[1], OutputSection(), 2) == ()
    written = [contents(folder) for folder in folders]
    item = f"{facts.slice}.json"
    documents = [json.loads(each.pop(item)) for each in written]
    assert written[0] == written[1]
    assert len(written[0]) == 5
    assert [each["properties"].pop("s2cube:offset_doubts") for each in documents] == [["a"], []]
    assert documents[0] == documents[1]


def test_values_outside_the_area_are_refused(tmp_path: Path) -> None:
    value, image = computed(IMAGES["reflectance"], facts_for(IMAGES["reflectance"]))
    value.reasons[-1, -1] = QA.OUTSIDE
    with pytest.raises(OutputError, match="the cube of farm: has values outside its area of interest"):
        write_computed(value, facts_for(image), tmp_path, OutputSection())
    write_computed(value, facts_for(image, name="filled"), tmp_path, OutputSection())


def with_pystac(source: xr.DataArray, facts: SliceFacts, found: Found, folder: Path) -> pystac.Item:
    """Make the Item by pystac. It has the members that `item_form` gives, and the properties of `slice_item`."""
    layout = layout_of(source)
    ours = json.loads((folder / f"{facts.slice}.json").read_text())
    given = {key: value for key, value in ours["properties"].items() if key.startswith(("s2cube:", "eo:cloud"))}
    raster = Raster(
        layout.bands, layout.dtype, layout.packing.scale, layout.nodata, layout.packing.unit,
        f"EPSG:{source.odc.geobox.crs.epsg}", tuple(source.odc.geobox.shape), list(source.odc.geobox.affine)[:6],
        None if source.odc.geobox.crs.geographic else source.odc.geobox.resolution.x, found.statistics,
    )  # fmt: skip
    constant = {"constellation": "sentinel-2", "instruments": ["msi"], "processing:software": {"s2cube": __version__}}
    begin, end = facts.interval or (None, None)
    outline = shapely.geometry.shape(ours["geometry"])
    bbox = list(outline.bounds) if outline.bounds[0] > -179 else ours["bbox"]
    item = pystac.Item(
        facts.slice, shapely.geometry.mapping(outline), bbox, facts.time, constant | given, begin, end,
        collection=facts.aoi,
    )  # fmt: skip
    item.properties |= raster_properties(raster, facts.scenes)
    title = ("Computed values", ["data"]) if facts.name else ("Reflectance", ["data", "reflectance"])
    forms = [
        ("data", ".tif", title[0], pystac.MediaType.COG, title[1]),
        ("qa", "_qa.tif", "Why each pixel is, or is not, there", pystac.MediaType.COG, ["data-mask"]),
        ("thumbnail", ".png", "Picture", pystac.MediaType.PNG, ["thumbnail"]),
        ("style", ".qml", "Style for QGIS", "text/xml", ["style"]),
        ("qa_style", "_qa.qml", "Style of the QA image for QGIS", "text/xml", ["style"]),
    ]
    forms = [form for form in forms if (folder / f"{facts.slice}{form[1]}").exists()]
    for key, suffix, name, kind, roles in forms:
        item.add_asset(key, pystac.Asset(f"./{facts.slice}{suffix}", name, None, kind, roles))
    item.assets["data"].extra_fields["bands"] = data_bands(raster)
    item.assets["qa"].extra_fields |= qa_members(found.counts.tolist())
    item.stac_extensions = extensions(item.properties, [each.extra_fields for each in item.assets.values()])
    for rel, href in (
        ("root", "../../catalog.json"),
        ("parent", "../collection.json"),
        ("collection", "../collection.json"),
    ):
        item.add_link(pystac.Link(rel, href, pystac.MediaType.JSON))
    for href in facts.provenance.derived_from:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, pystac.MediaType.GEOJSON))
    for key, suffix, *_ in forms:
        content = (folder / f"{facts.slice}{suffix}").read_bytes()
        of_file = FileExtension.ext(item.assets[key], add_if_missing=True)
        of_file.apply(size=len(content), checksum=f"1220{hashlib.sha256(content).hexdigest()}")
    item.stac_extensions.sort()
    return item


@pytest.mark.parametrize("what", FACTS)
def test_an_item_is_the_one_that_pystac_makes(what: str, tmp_path: Path) -> None:
    source, facts = described(what)
    value, image = computed(source, facts)
    write_computed(value, facts, tmp_path, OutputSection(), facts.scenes[:1])
    written = json.loads((tmp_path / f"{facts.slice}.json").read_text())
    tally = Tally(len(value.bands))
    tally.add(value.values, ~value.packing.holes(value.values), 0, 0, 0)
    inside = value.reasons.size if facts.name else np.count_nonzero(value.reasons != QA.OUTSIDE)
    found = Found(count_classes(value.reasons), (), tally.statistics(int(inside)))
    item = with_pystac(image, facts, found, tmp_path)
    plain = json.loads(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
    assert written == plain
    assert list(written) == list(plain)
    assert list(written["assets"]["data"]) == list(plain["assets"]["data"])
    assert pystac.Item.from_dict(written).to_dict(include_self_link=False, transform_hrefs=False) == plain


@pytest.mark.parametrize(
    "name",
    ["reflectance", "natural colours", "natural colours and classes", "classes only", "classes first", "float64",
     "bytes", "uint16", "one cell", "one row", "whole tile", "oblong", "odd names"],
)  # fmt: skip
def test_pictures_show_what_those_by_gdal_show(name: str, tmp_path: Path) -> None:
    source = IMAGES[name]
    names = tuple(map(str, source.band.values))
    (tmp_path / "ours.png").write_bytes(small_picture(names, source.values, packing_of(source)))
    with spooled(source, tmp_path) as pixels:
        write_picture(names, pixels, tmp_path / "gdals.png", packing_of(source))
    with Image.open(tmp_path / "ours.png") as ours, Image.open(tmp_path / "gdals.png") as gdals:
        assert ours.mode == gdals.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(gdals))


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    code = """
import hashlib, sys
from pathlib import Path
from output.test_small_images import IMAGES, computed, facts_for
from s2cube.config.sections import OutputSection
from s2cube.output.files import write_computed
source = IMAGES["floats"]
write_computed(computed(source, facts_for(source))[0], facts_for(source), Path(sys.argv[1]), OutputSection())
"""
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, env=environment)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
