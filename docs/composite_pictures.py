"""Draw the pictures of ``composites.md`` from the simulated archive.

python docs/composite_pictures.py
"""

import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

import s2cube
from s2cube.demo.archive import write_archive

IMAGES = Path(__file__).parent / "images"
SETTINGS: dict[str, dict[str, Any]] = {
    "median": {"method": "median"},
    "geomedian": {"method": "geomedian"},
    "medoid": {"method": "medoid"},
    "best, NDVI": {"method": "best", "score": "NDVI"},
    "first": {"method": "first"},
    "first, -time": {"method": "first", "score": "-time"},
}
"""Settings of the composites, by their titles."""

NATURAL = ["red", "green", "blue"]
BRIGHTEST = 0.18
DPI = 80


def draw(folder: Path) -> None:
    """Draw all pictures. The archive is in a folder."""
    archive = write_archive(folder)
    items = s2cube.search(archive.aoi, stac=str(archive.items), datetime="2022-05/2022-09")
    cube = s2cube.open_cube(items, archive.aoi, bands=[*NATURAL, "nir"], indices=["NDVI"]).compute()
    days = {str(image.time.values)[:10]: image for image in cube}
    save("composite-days.png", days)
    made = {}
    for title, settings in SETTINGS.items():
        source = cube.drop_sel(band="NDVI") if settings["method"] == "geomedian" else cube
        made[title] = s2cube.composite(source, period="all", **settings)[0].compute()
    save("composite-methods.png", made)
    draw_layers(made["best, NDVI"])


def save(name: str, images: dict[str, xr.DataArray]) -> None:
    """Draw images in natural colours, three in a row."""
    rows = -(-len(images) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(9, 1.95 * rows), layout="constrained")
    for each in axes.flat:
        each.axis("off")
    for each, (title, image) in zip(axes.flat, images.items(), strict=False):
        brightness = (image.sel(band=NATURAL) / BRIGHTEST).clip(0, 1).transpose("y", "x", "band").values
        is_clear = ~np.isnan(brightness).any(axis=-1, keepdims=True)
        each.imshow(np.concatenate([np.where(is_clear, brightness, 0), is_clear], axis=-1))
        each.set_title(title, fontsize=10)
    figure.savefig(IMAGES / name, dpi=DPI)


def draw_layers(best: xr.DataArray) -> None:
    """Draw the number of observations, and the month of the chosen day."""
    months = best["date"].values.astype("datetime64[D]").astype("datetime64[M]").astype(int) % 12 + 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
    draw_layer(left, best["count"].values, "Number of observations", range(1, 6))
    draw_layer(right, np.where(best["date"] > 0, months, 0), "Month of the greatest NDVI", range(5, 10))
    figure.savefig(IMAGES / "composite-layers.png", dpi=DPI)


def draw_layer(axes: Axes, values: np.ndarray, title: str, numbers: range) -> None:
    """Draw whole numbers; 0 is transparent."""
    colours = plt.get_cmap("viridis", len(numbers))
    shown = np.where(values > 0, values, np.nan)
    drawn = axes.imshow(shown, cmap=colours, vmin=numbers[0] - 0.5, vmax=numbers[-1] + 0.5)
    axes.figure.colorbar(drawn, ax=axes, ticks=list(numbers))
    axes.set_title(title, fontsize=10)
    axes.axis("off")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        draw(Path(name))
