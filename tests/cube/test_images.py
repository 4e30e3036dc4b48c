"""Indices in cubes, chunk by chunk, against spyndex on the bands of the same cube."""

import logging
from pathlib import Path

import numpy as np
import pystac
import pytest
import spyndex
import xarray as xr
from dask.callbacks import Callback

import s2cube
from s2cube.cube import chunks, images
from s2cube.errors import ConfigError
from s2cube.sentinel2 import QA
from support.scenes import CLEAR, rectangle, scene

AOI = rectangle(1500, -3000, 4500, -1500)
BANDS = ["red", "nir", "blue"]


def noise(seed: int, side: int = 600) -> np.ndarray:
    """Reflectance of 0.01 to 0.6, with pixels without data."""
    found = np.random.default_rng(seed).integers(100, 6000, (side, side)).astype("uint16")
    found[::7, ::5] = 0
    return found


@pytest.fixture
def items(tmp_path: Path) -> list[pystac.Item]:
    classes = CLEAR.copy()
    classes[100:120, 90:180] = 9
    layers = {name: noise(at) for at, name in enumerate(BANDS)}
    return [
        scene(tmp_path, "a", 0, scl=classes, **layers),
        scene(tmp_path, "b", 1, scl=np.roll(classes, 10, axis=0), **{key: each[::-1] for key, each in layers.items()}),
    ]


def by_spyndex(cube: xr.DataArray, name: str) -> np.ndarray:
    constants = {key: each.default for key, each in spyndex.constants.items()}
    symbols = {key: cube.sel(band=band).values for key, band in (("R", "red"), ("N", "nir"), ("B", "blue"))}
    with np.errstate(all="ignore"):
        found = np.asarray(spyndex.computeIndex(name, constants | symbols))
    return np.where(np.isfinite(found), found, np.float32(np.nan))


@pytest.mark.parametrize("chunk_cells", [2048, 32])
@pytest.mark.parametrize("resolution_m", [10, 30])
def test_floats_are_those_of_spyndex(
    items: list[pystac.Item], monkeypatch: pytest.MonkeyPatch, chunk_cells: int, resolution_m: int
) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_CELLS", chunk_cells)
    cube = s2cube.open_cube(items, AOI, bands=BANDS, indices=["NDVI", "EVI", "SEVI"], resolution=resolution_m).compute()
    assert cube.band.values.tolist() == [*BANDS, "NDVI", "EVI", "SEVI"]
    for name in ("NDVI", "EVI", "SEVI"):
        np.testing.assert_array_equal(cube.sel(band=name).values, by_spyndex(cube, name))
    ndvi = cube.sel(band="NDVI")
    assert np.isnan(ndvi.values[cube.qa.values != QA.CLEAR]).all()
    assert 0.5 < float(ndvi.notnull().mean()) < 1


def test_bands_are_what_they_are_without_indices(items: list[pystac.Item]) -> None:
    for dtype in ("int16", "float32"):
        alone = s2cube.open_cube(items, AOI, bands=[*BANDS, "scl"], dtype=dtype).compute()
        for bands in ([*BANDS, "scl"], ["scl", "blue", "red"], ["qa", "red"]):
            cube = s2cube.open_cube(items, AOI, bands=bands, indices="NDVI", dtype=dtype).compute()
            assert cube.band.values.tolist() == [*bands, "NDVI"]
            for band in {*bands} - {"qa"}:
                np.testing.assert_array_equal(cube.sel(band=band), alone.sel(band=band))
            np.testing.assert_array_equal(cube.qa, alone.qa)


@pytest.mark.parametrize("bands", ["none", None, [], ["none"]])
def test_only_indices(items: list[pystac.Item], bands: str | list[str] | None) -> None:
    cube = s2cube.open_cube(items, AOI, bands=bands, indices=["ndvi"])
    assert cube.band.values.tolist() == ["NDVI"]
    with_bands = s2cube.open_cube(items, AOI, bands=BANDS, indices=["NDVI"])
    np.testing.assert_array_equal(cube.sel(band="NDVI"), with_bands.sel(band="NDVI"))


def test_int16_is_rounded_from_floats(items: list[pystac.Item], caplog: pytest.LogCaptureFixture) -> None:
    names = ["NDVI", "SEVI"]
    floats = s2cube.open_cube(items, AOI, bands="none", indices=names).compute()
    packed = s2cube.open_cube(items, AOI, bands="none", indices=names, dtype="int16")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        packed = packed.compute()
    beyond = np.abs(floats.values) > np.float32(3.2767)
    np.testing.assert_array_equal(packed == -9999, np.isnan(floats.values) | beyond)
    kept = ~(np.isnan(floats.values) | beyond)
    assert np.abs(packed.values[kept] / 1e4 - floats.values[kept].astype(float)).max() < 1.01e-4
    counts = beyond.sum(axis=(0, 2, 3))
    assert counts[0] == 0 < counts[1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{counts[1]} cells with SEVI beyond ±3.2767 become nodata"
    ]


def test_an_index_reads_only_its_bands(items: list[pystac.Item], tmp_path: Path) -> None:
    for item in items:
        Path(item.assets["blue"].href).unlink()
    cube = s2cube.open_cube(items, AOI, bands=["red", "blue"], indices=["NDVI", "EVI"])
    assert cube.sel(band="NDVI").notnull().any()


def test_the_bands_of_an_index_are_combined_once(items: list[pystac.Item]) -> None:
    """Two indices and two bands of the image need the same three means of one slice."""
    cube = s2cube.open_cube(items, AOI, bands=["red", "nir"], indices=["NDVI", "EVI"])
    calls: list[int] = []
    combine = images.means
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "means", lambda dn, *others: calls.append(dn.shape[1]) or combine(dn, *others))
        cube.compute(scheduler="sync")
    assert calls == [1, 1, 1]


def test_opening_computes_nothing(items: list[pystac.Item]) -> None:
    computed: list[object] = []
    with Callback(pretask=lambda key, *_: computed.append(key)):
        s2cube.open_cube(items, AOI, bands="red", indices=["NDVI"])
    assert computed == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": "NDVX"}, "indices: index 'NDVX' is unknown"),
        ({"indices": ["NDVI", "ndvi"]}, "an index is named twice"),
        ({"indices": "NDVI,"}, "the name of an index is empty"),
        ({"bands": [], "indices": []}, "neither bands nor indices"),
        ({"bands": "", "indices": "NDVI"}, "a band name is empty"),
    ],
)
def test_refuses(items: list[pystac.Item], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        s2cube.open_cube(items, AOI, **arguments)  # type: ignore[arg-type]
