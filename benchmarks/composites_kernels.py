"""The geometric median of s2cube and of geomad on the same spectra: CPU time and error. Called by ``composites.py``."""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta

import numpy as np

from s2cube.config.composites import Method
from s2cube.config.sections import CubeSection
from s2cube.products.composer import Composer

BANDS = ("red", "nir", "swir16")
SCALE, NODATA = 1e-4, -9999
CLOUDY = 0.1
STRIP_CELLS = 60_000
"""Cells that a job composes at a time, with 24 days of 3 bands."""

CHECKED_CELLS, ORACLE_STEPS = 10_000, 5_000
EPS = (1e-4, 1e-5, 1e-6, 1e-7)
"""geomad stops when a step is shorter, in reflectance."""

Compute = Callable[[np.ndarray], np.ndarray]
"""Function from spectra, dims (day, band, cell), to their geometric median, dims (band, cell)."""


def table(days: int, cells: int) -> Iterator[str]:
    """Yield a Markdown table. Errors are in reflectance, without the rounding of s2cube's int16 to whole numbers."""
    spectra = noise(days, cells)
    checked = spectra[:, :, :CHECKED_CELLS]
    exact = weiszfeld(checked) * SCALE
    computed = {"s2cube": s2cube, **{f"geomad, eps {eps:g}": geomad(eps) for eps in EPS}}
    yield "| contender | wall s | CPU s | ÷ s2cube | greatest error |"
    yield "| --- " * 5 + "|"
    base_s = 0.0
    for name, compute in computed.items():
        began, cpu = time.perf_counter(), time.process_time()
        made = compute(spectra)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        base_s = base_s or cpu_s
        found = s2cube(reflectance(checked)) if compute is s2cube else made[:, :CHECKED_CELLS] * SCALE
        error = np.abs(found - exact).max()
        yield f"| {name} | {wall_s:.2f} | {cpu_s:.2f} | {cpu_s / base_s:.2f} | {error:.1e} |"


def noise(days: int, cells: int) -> np.ndarray:
    """Return spectra as those of the archive, int16, of which some are cloudy."""
    random = np.random.default_rng(7)
    spectra = (1500 + random.normal(0, 65, (days, len(BANDS), cells))).astype("int16")
    is_cloudy = random.random((days, cells)) < CLOUDY
    return np.where(is_cloudy[:, np.newaxis], np.int16(NODATA), spectra)


def reflectance(spectra: np.ndarray) -> np.ndarray:
    """Return spectra as float32, NaN where they are cloudy."""
    return np.where(spectra == NODATA, np.float32(np.nan), spectra.astype("float32") * np.float32(SCALE))


def s2cube(spectra: np.ndarray) -> np.ndarray:
    composer = Composer(CubeSection(bands=BANDS, dtype=spectra.dtype.name), Method("geomedian"))
    days = [date(2024, 1, 1) + timedelta(number) for number in range(len(spectra))]
    starts = range(0, spectra.shape[2], STRIP_CELLS)
    strips = [composer.compose(spectra[:, :, at : at + STRIP_CELLS], days).values[:, 0] for at in starts]
    return np.concatenate(strips, axis=1)


def geomad(eps: float) -> Compute:
    def compute(spectra: np.ndarray) -> np.ndarray:
        import geomad as library

        by_cell = np.ascontiguousarray(spectra.transpose(2, 1, 0))[np.newaxis]
        settings = {"maxiters": 1000, "num_threads": 1, "nodata": NODATA, "scale": SCALE, "offset": 0}
        made: np.ndarray = library.nangeomedian_pcm(by_cell, eps=eps, **settings)
        return made[0].T

    return compute


def weiszfeld(spectra: np.ndarray) -> np.ndarray:
    """Return the geometric median by many steps of Weiszfeld's method in float64."""
    clear = (spectra != NODATA).all(axis=1, keepdims=True)
    x = np.where(clear, spectra, 0.0)
    found = x.sum(0) / clear.sum(0)
    for _ in range(ORACLE_STEPS):
        distance = np.sqrt(((x - found) ** 2).sum(1, keepdims=True))
        weight = clear / np.maximum(distance, 1e-9)
        following = (x * weight).sum(0) / weight.sum(0)
        if np.abs(following - found).max() < 1e-7:
            break
        found = following
    return found
