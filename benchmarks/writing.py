"""What it costs to write an image, by compression, beside what it cost to read it.

    python benchmarks/writing.py [--folder FOLDER] [--rounds 3]

Reads one scene of the archive of ``readers.py`` as whole granule, five bands of 30 m, from disk; then writes it with
each compression, in turn. Prints the medians of wall and CPU time, as ratios to reading, and the size of the file.
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
from s2cube.output._spool import layout_of, open_spool

WAYS = [
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
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--folder", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
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
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        print(f"five bands of a granule, 30 m; reading took {wall_s:.1f} s, {cpu_s:.1f} s of CPU; ratios to that\n")
        print("| compression | wall | CPU | MB |\n| --- | --- | --- | --- |")
        taken: dict[tuple[str, int | None], list[tuple[float, float]]] = {way: [] for way in WAYS}
        sizes = {}
        path = Path(scratch) / "image.tif"
        for _ in range(given.rounds):
            for way in WAYS:
                began, cpu = time.perf_counter(), time.process_time()
                with open_spool(Path(scratch), **layout_of(image)) as pixels:
                    with pixels.filling():
                        pixels.put(image.values, 0, 0, 0)
                    write_cog(image, pixels, path, OutputSection(compress=way[0], compress_level=way[1]))
                taken[way].append((time.perf_counter() - began, time.process_time() - cpu))
                sizes[way] = path.stat().st_size
        for way, times in taken.items():
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            name = f"{way[0]} {way[1]}" if way[1] else way[0]
            print(f"| {name} | {wall / wall_s:.2f} | {cpu / cpu_s:.2f} | {sizes[way] / 1e6:.1f} |")


if __name__ == "__main__":
    main()
