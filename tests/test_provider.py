"""Harmonisation decided for real items, each decision written down here with its reason."""

import json
from pathlib import Path

import pystac
import pytest

from s2cube.errors import AssetMissingError, ConfigError, HarmonisationError
from s2cube.provider import BAND_ASSETS, band_key, canonical_bands, layer_key, offset_dn
from s2cube.scene import granule

DECISIONS = {
    # Earth Search v1, sentinel-2-l2a: earthsearch:boa_offset_applied says what the pixels are.
    "earth-search-v1_sentinel-2-l2a/S2A_29RKH_20200219_0_L2A": 0,  # baseline 02.14: there was no offset
    "earth-search-v1_sentinel-2-l2a/S2A_28QCH_20200714_0_L2A": 0,  # baseline 02.14
    "earth-search-v1_sentinel-2-l2a/S2B_31QGB_20200831_0_L2A": 0,  # baseline 02.14
    "earth-search-v1_sentinel-2-l2a/S2A_13TDE_20231008_0_L2A": 0,  # 05.09, applied, though raster:bands says -0.1
    "earth-search-v1_sentinel-2-l2a/S2A_12RWT_20240106_0_L2A": 0,  # 05.10, applied
    "earth-search-v1_sentinel-2-l2a/S2B_20EPT_20250731_0_L2A": 0,  # 05.11, applied
    # Earth Search v1, sentinel-2-c1-l2a: no flag, not applied.
    "earth-search-v1_sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A": -1000,  # 05.10
    "earth-search-v1_sentinel-2-c1-l2a/S2B_T20EPT_20250731T131905_L2A": -1000,  # 05.11
    # Planetary Computer: nothing but the baseline.
    "planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531": 0,  # 02.12
    "planetary-computer/S2A_MSIL2A_20240823T174901_R141_T13TDE_20240824T013055": -1000,  # 05.11
    # Copernicus Data Space: processing:version is the baseline.
    "cdse/S2A_MSIL2A_20200703T103031_N0500_R108_T32TMT_20230613T212700": -1000,  # of 2020, reprocessed as 05.00
    "cdse/S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948": -1000,  # 05.11
    # Digital Earth Africa: not applied.
    "deafrica/S2B_T37MGP_20240710T073012_L2A": -1000,  # 05.10
}


def item(path: Path) -> pystac.Item:
    return pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)


@pytest.mark.parametrize("name", DECISIONS)
def test_offset_of_real_items(real: Path, name: str) -> None:
    assert offset_dn(item(real / "items" / f"{name}.json")) == DECISIONS[name]


@pytest.mark.parametrize("name", DECISIONS)
def test_every_catalogue_has_the_bands(real: Path, name: str) -> None:
    scene = item(real / "items" / f"{name}.json")
    for band in BAND_ASSETS:
        band_key(scene, band)
    layer_key(scene, "scl")
    assert granule(scene) is not None


def made(**properties: object) -> pystac.Item:
    return pystac.Item("x", None, None, None, {"datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
                                               "end_datetime": "2020-01-01T00:00:00Z", **properties})  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "offset"),
    [
        ({"s2:processing_baseline": "03.01"}, 0),
        ({"s2:processing_baseline": "04.00"}, -1000),
        ({"s2:processing_baseline": "04.00", "earthsearch:boa_offset_applied": False}, -1000),
        ({"s2:processing_baseline": "04.00", "earthsearch:boa_offset_applied": True}, 0),
        ({"s2:processing_baseline": "10.00"}, -1000),
        ({"processing:version": "02.09"}, 0),
    ],
)
def test_offset(properties: dict[str, object], offset: int) -> None:
    assert offset_dn(made(**properties)) == offset


@pytest.mark.parametrize("properties", [{}, {"s2:processing_baseline": "new"}, {"s2:processing_baseline": None}])
def test_unknown_baseline_is_an_error(properties: dict[str, object]) -> None:
    with pytest.raises(HarmonisationError, match="x: does not say its processing baseline"):
        offset_dn(made(**properties))


def test_bands_by_any_catalogues_name() -> None:
    assert canonical_bands(("blue", "B02", "B02_10m", "B8A")) == ("blue", "blue", "blue", "nir08")
    with pytest.raises(ConfigError, match="band 'scl': no such band. Known: coastal, blue"):
        canonical_bands(("blue", "scl"))


def test_missing_assets_name_the_way_out() -> None:
    with pytest.raises(AssetMissingError, match="x: has no asset 'scl' .* Ask for --mask none"):
        layer_key(made(), "scl")
    with pytest.raises(AssetMissingError, match="has no asset 'red' .*B04.* Ask for other bands"):
        band_key(made(), "red")
