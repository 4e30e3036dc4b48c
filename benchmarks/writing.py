"""Compare the time to write an image, for each compression, with the time to read it.

    python benchmarks/writing.py [--folder FOLDER] [--rounds 3]

The script reads a complete granule of the archive of ``readers.py`` from disk, five bands on a grid of 30 m. In every
round it writes the image with each compression. It prints the medians of wall and CPU time, divided by those of
reading, and the size of the file.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pystac
from archive import EPSG, GRANULE_M, LEFT_M, TOP_M, write_archive
from odc.geo.geom import box

from s2cube import open_cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import OutputSection
from s2cube.output._cog import write_cog
from s2cube.output._raster import layout_of, open_spool
from s2cube.output._statistics import Tally

COMPRESSIONS = [
    ("deflate", 1),
    ("deflate", 4),
    ("deflate", 6),
    ("deflate", 9),
    ("zstd", 3),
    ("zstd", 9),
    ("lzw", None),
    ("none", None),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        write_archive(folder, 1)
        (item,) = pystac.ItemCollection.from_file(str(folder / "items.json"))
        for asset in item.assets.values():
            asset.href = str(folder / Path(asset.href).name)
        for band in ("green", "red", "nir"):
            item.assets[band] = pystac.Asset(item.assets["blue"].href)
        aoi = AOI("aoi", box(LEFT_M, TOP_M - GRANULE_M, LEFT_M + GRANULE_M, TOP_M, f"EPSG:{EPSG}"))
        cube = open_cube([item], aoi, crs=EPSG, offset="none", dtype="int16")
        began, cpu = time.perf_counter(), time.process_time()
        (image,) = cube.compute()
        layout, tally = layout_of(image), Tally(image.sizes["band"])
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        print(f"five bands of a granule, 30 m; reading took {wall_s:.1f} s, {cpu_s:.1f} s of CPU; ratios to that\n")
        print("| compression | wall | CPU | MB |\n| --- | --- | --- | --- |")
        measured: dict[tuple[str, int | None], list[tuple[float, float]]] = {
            compression: [] for compression in COMPRESSIONS
        }
        sizes = {}
        path = Path(scratch) / "image.tif"
        for _ in range(arguments.rounds):
            for compression in COMPRESSIONS:
                began, cpu = time.perf_counter(), time.process_time()
                settings = OutputSection(compress=compression[0], compress_level=compression[1])
                with open_spool(Path(scratch), **layout.profile) as pixels:
                    with pixels.filling():
                        pixels.put(image.values, 0, 0, 0)
                    tally.add(image.values, ~layout.packing.holes(image.values), 0, 0, 0)
                    write_cog(layout, None, pixels, tally, path, settings)
                measured[compression].append((time.perf_counter() - began, time.process_time() - cpu))
                sizes[compression] = path.stat().st_size
        for compression, times in measured.items():
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            name = f"{compression[0]} {compression[1]}" if compression[1] else compression[0]
            print(f"| {name} | {wall / wall_s:.2f} | {cpu / cpu_s:.2f} | {sizes[compression] / 1e6:.1f} |")


if __name__ == "__main__":
    main()
