"""Harmonisation decided for real items, each decision written down here with its reason."""

import json
from collections import Counter
from pathlib import Path

import pystac
import pytest

from s2cube.errors import AssetMissingError, ConfigError, HarmonisationError, SceneError
from s2cube.scenes.assets import band_key, layer_key
from s2cube.scenes.provider import offset_dn, provider
from s2cube.scenes.scene import crs_code, granule
from s2cube.sentinel2 import BAND_ASSETS, canonical_bands

DECISIONS = {
    # Earth Search v1, sentinel-2-l2a: earthsearch:boa_offset_applied says what the pixels are.
    "items/earth-search-v1_sentinel-2-l2a/S2A_29RKH_20200219_0_L2A.json": ("Earth Search v1", 0),  # 02.14: it had none
    "items/earth-search-v1_sentinel-2-l2a/S2A_28QCH_20200714_0_L2A.json": ("Earth Search v1", 0),  # 02.14
    "items/earth-search-v1_sentinel-2-l2a/S2B_31QGB_20200831_0_L2A.json": ("Earth Search v1", 0),  # 02.14
    # 05.09 and later, applied, though raster:bands says -0.1.
    "items/earth-search-v1_sentinel-2-l2a/S2A_13TDE_20231008_0_L2A.json": ("Earth Search v1", 0),
    "items/earth-search-v1_sentinel-2-l2a/S2A_12RWT_20240106_0_L2A.json": ("Earth Search v1", 0),
    "items/earth-search-v1_sentinel-2-l2a/S2B_20EPT_20250731_0_L2A.json": ("Earth Search v1", 0),
    # Earth Search v1, sentinel-2-c1-l2a: 05.10 and 05.11, raster:bands says -0.1, no flag: not applied.
    **{
        f"items/earth-search-v1_sentinel-2-c1-l2a/{name}_L2A.json": ("Earth Search v1", -1000)
        for name in (
            "S2A_T13TDE_20240402T174230", "S2A_T13TDE_20240405T175934", "S2A_T13TDE_20240412T175055",
            "S2A_T13TDE_20240415T180048", "S2A_T13TDE_20240422T174753", "S2B_T13TDE_20240331T175111",
            "S2B_T13TDE_20240407T174209", "S2B_T13TDE_20240410T175332", "S2B_T13TDE_20240417T174407",
            "S2B_T13TDE_20240420T175329", "S2B_T20EPT_20250731T131905",
        )
    },
    # Planetary Computer: nothing but the baseline: 02.12, then 05.11 twice.
    "items/planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json": ("Planetary Computer", 0),
    "items/planetary-computer/S2A_MSIL2A_20240823T174901_R141_T13TDE_20240824T013055.json": (
        "Planetary Computer", -1000,
    ),
    "items/planetary-computer/S2B_MSIL2A_20240825T173909_R098_T13TDE_20240825T215747.json": (
        "Planetary Computer", -1000,
    ),
    # Copernicus Data Space: raster:offset -0.1 and processing:version, the first of 2020 reprocessed as 05.00.
    "items/cdse/S2A_MSIL2A_20200703T103031_N0500_R108_T32TMT_20230613T212700.json": ("Copernicus Data Space", -1000),
    "items/cdse/S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948.json": ("Copernicus Data Space", -1000),
    # Digital Earth Africa: 05.10, raster:bands says -0.1.
    "items/deafrica/S2B_T37MGP_20240710T073012_L2A.json": ("Digital Earth Africa", -1000),
}  # fmt: skip

PAGES = {
    # Collection items, 05.10, as above.
    "es1_c1_rustac_item-collection.json": {("Earth Search v1", -1000): 10},
    # 02.12 of 2020, ESA's first processing, which Planetary Computer made anew: no offset.
    "pc_odc-stac_site2-2020_jun_jul-35MNM.geojson": {("Planetary Computer", 0): 13},
    # Of 2020, reprocessed as 05.00.
    "cdse_issue1043_proj-code.json": {("Copernicus Data Space", -1000): 1},
    "cdse_202007.json": {("Copernicus Data Space", -1000): 4},
    # A page of both collections of the same day, 05.11: in one the flag is true, in the other there is none.
    "earthsearch_v1_filter_202507.json": {("Earth Search v1", 0): 6, ("Earth Search v1", -1000): 6},
}


def item(path: Path) -> pystac.Item:
    return pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)


def named(scene: pystac.Item) -> str | None:
    known = provider(scene)
    return known.name if known else None


@pytest.mark.parametrize("name", DECISIONS)
def test_catalogue_and_offset_of_real_items(real: Path, name: str) -> None:
    scene = item(real / name)
    assert (named(scene), offset_dn(scene)) == DECISIONS[name]


def test_every_real_item_is_decided(real: Path) -> None:
    assert {str(path.relative_to(real)) for path in (real / "items").glob("*/*.json")} == set(DECISIONS)
    assert {path.name for path in (real / "pages").iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_offset_of_real_pages(real: Path, name: str) -> None:
    content = json.loads((real / "pages" / name).read_text())
    bodies = [each["body"] for each in content.get("interactions", [{"body": content}])]
    features = {
        each["id"]: each
        for body in bodies
        if isinstance(body, dict)
        for each in body.get("features", [])
        if each["collection"] in {"sentinel-2-l2a", "sentinel-2-c1-l2a"}
    }
    scenes = [pystac.Item.from_dict(each, migrate=False) for each in features.values()]
    assert Counter((named(scene), offset_dn(scene)) for scene in scenes) == PAGES[name]


NATIVE_M = {"coastal": 60, "nir09": 60, "blue": 10, "green": 10, "red": 10, "nir": 10}


@pytest.mark.parametrize("name", DECISIONS)
def test_every_catalogue_has_the_bands(real: Path, name: str) -> None:
    """By the wavelengths and sizes that the items themselves tell: the same band everywhere, in its native size."""
    scene = item(real / name)
    for band in BAND_ASSETS:
        asset = scene.assets[band_key(scene, band)].extra_fields
        said = (asset.get("eo:bands") or asset["bands"])[0]
        centre_um = said.get("center_wavelength", said.get("eo:center_wavelength"))
        assert abs(centre_um - WAVELENGTH_UM[band]) < 0.02, band
        size_m = asset.get("gsd") or (asset.get("raster:bands") or [{}])[0].get("spatial_resolution")
        assert size_m in (None, NATIVE_M.get(band, 20)), band
    assert layer_key(scene, "scl") in {"scl", "SCL", "SCL_20m"}
    assert granule(scene) is not None
    assert crs_code(scene) is not None
    known = provider(scene)
    assert known is not None
    blue = scene.assets[known.blue_key].extra_fields
    declares_in_assets = known.name == "Copernicus Data Space"
    assert ("proj:epsg" in scene.properties, "proj:code" in blue) == (not declares_in_assets, declares_in_assets)
    assert {"proj:shape", "proj:transform"} <= set(blue)


WAVELENGTH_UM = {  # Sentinel-2 Products Specification Document
    "coastal": 0.443, "blue": 0.490, "green": 0.560, "red": 0.665, "rededge1": 0.705, "rededge2": 0.740,
    "rededge3": 0.783, "nir": 0.842, "nir08": 0.865, "nir09": 0.945, "swir16": 1.610, "swir22": 2.190,
}  # fmt: skip


def test_a_catalogue_that_is_not_in_the_table(real: Path) -> None:
    """A real item under another roof: its bands by what the eo extension calls them, whatever their keys."""
    scene = item(real / "items/cdse/S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948.json")
    scene.collection_id = "my-own"
    for key, name in (("B02_10m", "first"), ("B05_20m", "edge"), ("B8A_20m", "narrow")):
        scene.assets[name] = scene.assets.pop(key)
    for key in [key for key in scene.assets if key[:3] in ("B02", "B05", "B8A")]:
        del scene.assets[key]
    assert provider(scene) is None
    assert [band_key(scene, band) for band in ("blue", "rededge1", "nir08", "green")] == [
        "first", "edge", "narrow", "B03_10m",
    ]  # fmt: skip
    assert offset_dn(scene) == -1000
    del scene.assets["edge"]
    with pytest.raises(AssetMissingError):
        band_key(scene, "rededge1")


def made(**properties: object) -> pystac.Item:
    return pystac.Item("x", None, None, None, {"datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
                                               "end_datetime": "2020-01-01T00:00:00Z", **properties})  # fmt: skip


def scene_of(
    catalogue: str, version: str | None, flag: bool | None = None, told: float | None = None, scale: float = 0.0001
) -> pystac.Item:
    """A scene as a catalogue writes it, with what it tells of the offset."""
    collection, key = {
        "es": ("sentinel-2-l2a", "blue"), "c1": ("sentinel-2-c1-l2a", "blue"), "pc": ("sentinel-2-l2a", "B02"),
        "cdse": ("sentinel-2-l2a", "B02_10m"), "other": ("own", "blue"), "dea": ("s2_l2a_c1", "blue"),
        "v0": ("sentinel-s2-l2a-cogs", "B02"),
    }[catalogue]  # fmt: skip
    scene = made(**{} if version is None else {"s2:processing_baseline": version})
    scene.collection_id = collection
    if flag is not None:
        scene.properties[f"{'sentinel' if catalogue == 'v0' else 'earthsearch'}:boa_offset_applied"] = flag
    if catalogue == "v0":
        scene.properties["sentinel:processing_baseline"] = scene.properties.pop("s2:processing_baseline", None)
    fields: dict[str, object] = {}
    if told is not None and catalogue == "cdse":
        fields = {"raster:scale": scale, "raster:offset": told}
    elif told is not None:
        fields = {"raster:bands": [{"scale": scale, "offset": told}]}
    scene.add_asset(key, pystac.Asset("x.tif", extra_fields=fields))
    return scene


@pytest.mark.parametrize(
    ("scene", "offset"),
    [
        # By the baseline, where nothing else is told: ESA adds 1000 from 04.00 on.
        (scene_of("pc", "03.01"), 0),
        (scene_of("pc", "04.00"), -1000),
        (scene_of("pc", "10.00"), -1000),
        # Earth Search's flag is the truth; -0.1 stands beside it in any case.
        (scene_of("es", "02.09", flag=False, told=0), 0),
        (scene_of("es", "04.00", flag=False, told=-0.1), -1000),
        (scene_of("es", "05.10", flag=True, told=-0.1), 0),
        (scene_of("es", "05.10", flag=True, told=0), 0),
        (scene_of("es", None, flag=True, told=-0.1), 0),
        (scene_of("es", "03.01", flag=False, told=-0.1), 0),
        (scene_of("es", "05.10", flag=False, told=0), -1000),
        # Before 04.00 there was nothing to apply, with or without a flag.
        (scene_of("es", "03.01"), 0),
        # The raster extension, of old and new make.
        (scene_of("c1", "05.10", told=-0.1), -1000),
        (scene_of("cdse", "05.11", told=-0.1), -1000),
        (scene_of("cdse", "02.14", told=0), 0),
        (scene_of("c1", "05.10"), -1000),
        # Baselines 99.xx tell nothing: the flag that is true, or the raster extension.
        (scene_of("es", "99.99", flag=True, told=-0.1), 0),
        (scene_of("es", "99.99", flag=True), 0),
        (scene_of("c1", "99.99", told=-0.1), -1000),
        (scene_of("c1", "99.99", told=0), 0),
        (scene_of("cdse", "99.33", told=-0.1), -1000),
        (scene_of("dea", "99.33", told=0), 0),
        (scene_of("other", "99.99", told=-0.1), -1000),
        (scene_of("v0", "99.99", flag=True), 0),
        # Earth Search v0 has a flag and a baseline of its own.
        (scene_of("v0", "02.14"), 0),
        (scene_of("v0", "04.00", flag=True), 0),
        (scene_of("v0", "05.09", flag=False), -1000),
        # Numbers may be written as text.
        (scene_of("c1", "05.10", told="-0.1"), -1000),  # type: ignore[arg-type]
        # A catalogue that nobody knows: what it tells, or else as ESA delivers.
        (scene_of("other", None, told=-0.1), -1000),
        (scene_of("other", None, told=0), 0),
        (scene_of("other", "05.10"), -1000),
        (scene_of("other", "05.10", flag=True), 0),
    ],
)
def test_offset(scene: pystac.Item, offset: int) -> None:
    assert offset_dn(scene) == offset


@pytest.mark.parametrize(
    ("scene", "problem"),
    [
        (scene_of("pc", None), "does not say its processing baseline"),
        (scene_of("pc", "99.99"), 'has processing baseline "99.99", which does not determine the offset of its pixels'),
        (scene_of("es", "99.99", flag=False, told=-0.1), 'has processing baseline "99.99", which does not determine'),
        (scene_of("es", "99.33", told=-0.1), 'has processing baseline "99.33", which does not determine'),
        (scene_of("c1", "99.99"), 'has processing baseline "99.99", which does not determine'),
        (scene_of("other", "99.00"), 'has processing baseline "99.00", which does not determine'),
        (scene_of("v0", "05.09"), "does not say whether the offset of processing baseline 05.09 is applied"),
        (scene_of("v0", None), "does not say its processing baseline"),
        (scene_of("es", None, flag=False, told=-0.1), "does not say its processing baseline"),
        (scene_of("es", "05.10", flag="true"), 'says earthsearch:boa_offset_applied "true", which is neither'),  # type: ignore[arg-type]
        (scene_of("pc", "new"), 'has processing baseline "new", which does not determine the offset'),
        (scene_of("es", "02.14", flag=True), "says that its offset is applied, but processing baseline 02.14 has none"),
        (
            scene_of("other", None, flag=True, told=0),
            "says that its offset is applied, but also that there is no offset",
        ),
        (scene_of("es", "05.10", told=-0.1), "does not say whether the offset of processing baseline 05.10 is applied"),
        (scene_of("c1", "05.10", told=-0.7), "declares an offset of -0.7, which Sentinel-2 does not have"),
        (scene_of("cdse", "05.10", told=-0.7), "declares an offset of -0.7, which Sentinel-2 does not have"),
        (scene_of("es", "05.10", flag=True, told=-0.7), "declares an offset of -0.7, which Sentinel-2 does not have"),
        (scene_of("c1", "02.14", told=-0.1), "declares an offset of -1000 DN, but processing baseline 02.14 has 0"),
        (scene_of("c1", "05.10", told=0), "declares an offset of 0 DN, but processing baseline 05.10 has -1000"),
        (scene_of("c1", "05.10", told=-0.1, scale=2.75e-05), "declares a scale of 2.75e-05, which Sentinel-2 does not"),
    ],
)
def test_offset_that_is_unclear(scene: pystac.Item, problem: str) -> None:
    with pytest.raises(HarmonisationError, match=f"x: {problem}.*--offset none or --offset -1000"):
        offset_dn(scene)
    assert offset_dn(scene, "none") == 0
    assert offset_dn(scene, "-1000") == -1000


def test_bands_that_differ_in_their_offset() -> None:
    scene = scene_of("c1", "05.10", told=-0.1)
    scene.add_asset("red", pystac.Asset("r.tif", extra_fields={"raster:bands": [{"scale": 0.0001, "offset": 0}]}))
    with pytest.raises(HarmonisationError, match=r"different offsets for its bands: -0.1, 0.0"):
        offset_dn(scene)


def test_offset_of_a_band_by_stac_1_1() -> None:
    scene = scene_of("other", "05.10")
    scene.assets["blue"].extra_fields["bands"] = [{"name": "B02", "raster:scale": 0.0001, "raster:offset": 0}]
    with pytest.raises(HarmonisationError, match="declares an offset of 0 DN, but processing baseline 05.10 has -1000"):
        offset_dn(scene)


def test_spellings_of_a_projection() -> None:
    scene = scene_of("c1", "05.10")
    scene.properties |= {"proj:epsg": 32614.0, "proj:code": "epsg:32614"}
    assert crs_code(scene) == "EPSG:32614"


def test_two_projections() -> None:
    scene = scene_of("c1", "05.10")
    assert crs_code(scene) is None
    scene.properties["proj:epsg"] = 32614
    assert crs_code(scene) == "EPSG:32614"
    scene.properties["proj:code"] = "EPSG:32614"
    assert crs_code(scene) == "EPSG:32614"
    for extra in ({"proj:code": "EPSG:32615"}, {"proj:epsg": 32615}):
        scene.assets["blue"].extra_fields = extra
        with pytest.raises(SceneError, match="x: declares two projections: EPSG:32614 and EPSG:32615"):
            crs_code(scene)


def test_bands_by_any_catalogues_name() -> None:
    assert canonical_bands(("blue", "B02", "B02_10m", "B8A")) == ("blue", "blue", "blue", "nir08")
    assert canonical_bands(("scl", "SCL", "SCL_20m", "qa", "QA")) == ("scl", "scl", "scl", "qa", "qa")
    for unknown in ("teal", "cloud", "qa60", "Scl"):
        with pytest.raises(ConfigError, match=f"band '{unknown}': no such band. Known: coastal, blue.*, scl, qa"):
            canonical_bands(("blue", unknown))


def test_missing_assets_name_the_way_out() -> None:
    with pytest.raises(AssetMissingError, match="x: has no asset 'scl' .* Ask for --mask none"):
        layer_key(made(), "scl")
    with pytest.raises(AssetMissingError, match="has no asset 'red' .*B04.* Ask for other bands"):
        band_key(made(), "red")
