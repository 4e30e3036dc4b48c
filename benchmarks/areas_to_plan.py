"""Measure the plan of the statistics of very many areas: time and peak memory until every row is planned.

    python benchmarks/areas_to_plan.py [--areas 100000 1000000] [--order random|granule] [--folder FOLDER]

The areas and the 300 footprints (100 granules on 3 days) are those of areas.py. The catalogue is an ItemCollection. The
plan reads the areas, joins them to the footprints, divides them into patches and compares with the table, which is
empty. Each case runs in a new process. The script prints wall and CPU seconds, and the peak memory of the process.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shapely
from areas import footprints, write_areas


def write_catalogue(path: Path) -> None:
    items = []
    for number, outline in enumerate(footprints()):
        granule, day = divmod(number, 3)
        west, _, east, north = outline.bounds
        zone = int((west + east) / 2 + 180) // 6 + 1
        # The corner of a granule has the place in its UTM zone that a cylinder gives: exact enough for a plan.
        left_m, top_m = round((west + 183 - 6 * zone) * 80_000 + 500_000, -1), round(north * 111_000, -1)
        assets = {
            band: {
                "href": f"./{number}_{band}.tif",
                "proj:shape": [109_800 // pixel_m] * 2,
                "proj:transform": [pixel_m, 0, left_m, 0, -pixel_m, top_m],
            }
            for band, pixel_m in (("red", 10), ("nir", 10), ("blue", 10), ("scl", 20))
        }
        properties = {
            "datetime": f"2024-06-{1 + 5 * day:02}T10:00:{granule % 60:02}Z", "proj:epsg": 32600 + zone,
            "s2:processing_baseline": "05.10", "grid:code": f"MGRS-{zone}T{chr(65 + granule // 10)}{granule % 10}",
            "earthsearch:boa_offset_applied": True,
        }  # fmt: skip
        items.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": f"scene{number}", "collection": "sentinel-2-l2a",
                "bbox": outline.bounds, "geometry": shapely.geometry.mapping(outline), "links": [],
                "properties": properties, "assets": assets,
            }
        )  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))


def child(areas: str, catalogue: str, out: str) -> None:
    from s2cube.config.sections import CubeSection, JobConfig, JobSection, SearchSection
    from s2cube.fields.spool import FieldSpool
    from s2cube.storage.output import Output
    from s2cube.zonal._source import Source
    from s2cube.zonal.tabulate import StatisticsPlans

    config = JobConfig(
        job=JobSection(aoi=areas, out=out), search=SearchSection(stac=catalogue), cube=CubeSection(bands=("red", "nir"))
    )
    began, cpu_s, rows, tasks = time.perf_counter(), time.process_time(), 0, 0
    with FieldSpool() as spool:
        plans = StatisticsPlans.of(config, Output.at(out), Source(spool))
        print(f"    areas and scenes are there after {time.perf_counter() - began:.1f} s", file=sys.stderr)
        for job in plans.jobs():
            rows, tasks = rows + job.rows, tasks + len(job.todo)
    found = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_s, "rows": rows, "tasks": tasks}
    print(json.dumps(found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--areas", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--order", choices=["random", "granule"], default="random")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_catalogue(folder / "items.json")
        for count in options.areas:
            path = folder / f"areas-{count}-{options.order}.parquet"
            if not path.exists():
                write_areas(path, count, options.order)
            command = [sys.executable, __file__, "--child", str(path), str(folder / "items.json"), f"{temporary}/out"]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
            print(
                f"{count} areas: {found['rows']} rows in {found['tasks']} tasks; wall {found['wall_s']:.1f} s, CPU "
                f"{found['cpu_s']:.1f} s, peak {found['peak_gb']:.2f} GB",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()
