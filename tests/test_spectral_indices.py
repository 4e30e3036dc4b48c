"""The catalogue of spectral indices: names, bands and messages."""

import doctest
import subprocess
import sys

import pytest
import spyndex

from s2cube import spectral_indices
from s2cube.errors import ConfigError
from s2cube.sentinel2 import BAND_ASSETS, band_of, class_band_of
from s2cube.spectral_indices import bands_of_indices, canonical_indices, index_of, known_indices


def test_examples() -> None:
    assert doctest.testmod(spectral_indices).failed == 0
    assert doctest.testmod(spectral_indices).attempted > 0


def test_symbols_are_the_bands_of_sentinel_2() -> None:
    """spyndex names the band of each satellite; our asset keys have these names with two digits."""
    of_spyndex = {key: each.sentinel2a.band for key, each in spyndex.bands.items() if hasattr(each, "sentinel2a")}
    with_zero = {key: name if len(name) > 2 else f"B0{name[1]}" for key, name in of_spyndex.items()}
    assert {key: band_of(name) for key, name in with_zero.items()} == spectral_indices._BANDS
    assert set(spectral_indices._BANDS.values()) == set(BAND_ASSETS)


def test_has_all_that_the_bands_allow_and_no_other() -> None:
    """The catalogue names the platforms of each index. Those of Sentinel-2 are here, but for what needs more."""
    constants = {key for key, each in spyndex.constants.items() if each.default is not None}
    of_platform = {name for name, each in spyndex.indices.items() if "Sentinel-2" in each.platforms}
    needs_more = {name for name in of_platform if not {*spyndex.indices[name].bands} <= {*spyndex.bands, *constants}}
    assert of_platform - needs_more == set(known_indices())
    assert {"kNDVI", "NIRvP", "FAI"} <= needs_more


def test_no_index_has_the_name_of_a_band() -> None:
    assert [name for name in spyndex.indices if band_of(name) or class_band_of(name)] == []


def test_describes_an_index() -> None:
    evi = index_of("EVI")
    assert evi is not None
    assert evi.formula_of_bands == "2.5*(nir-red)/(nir+6*red-7.5*blue+1)"
    assert evi.description.startswith("Enhanced Vegetation Index: 2.5*(nir")
    assert evi.description.endswith(f"({spyndex.indices.EVI.reference})")
    assert index_of("evi") is None


@pytest.mark.parametrize(
    ("name", "found"), [("NDVI", "NDVI"), ("ndvi", "NDVI"), ("oCvI", "OCVI"), ("BAI", "BAI"), ("BaI", "BaI")]
)
def test_capitals_do_not_matter(name: str, found: str) -> None:
    assert canonical_indices((name,)) == (found,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NDVX", "index 'NDVX': is unknown. Did you mean NDVI"),
        ("", "index '': is unknown. The command `s2cube indices` lists all"),
        ("bai", "index 'bai': has several meanings. Write BAI or BaI"),
        ("NDBaI", "index 'NDBaI': needs a thermal band; s2cube computes indices only from bands of Sentinel-2 L2A"),
        ("kndvi", "index 'kNDVI': needs a kernel (kNN), a kernel (kNR); "),
        ("NIRvP", "index 'NIRvP': needs radiation (PAR); "),
        ("FAI", "index 'FAI': needs a wavelength (lambdaN), "),
        ("DpRVIVV", "index 'DpRVIVV': needs radar; "),
    ],
)
def test_refuses_what_it_cannot_compute(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        canonical_indices((name,))
    assert message in str(caught.value)


def test_bands_are_listed_once() -> None:
    assert bands_of_indices(["NDVI", "EVI"]) == ("nir", "red", "blue")
    assert bands_of_indices([]) == ()


def test_is_loaded_only_for_indices() -> None:
    code = "import sys, s2cube; s2cube.load_config({'bands': 'red'}, {}); print('spyndex' in sys.modules); "
    code += "print(s2cube.load_config({'indices': 'ndvi'}, {}).cube.indices, 'spyndex' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "('NDVI',) True"]
