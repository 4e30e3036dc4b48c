"""Measure the way of very many areas to the plan: read, gather, join to footprints, group by scenes.

    python benchmarks/areas.py [--areas 100000 1000000] [--rounds 1] [--order random|granule] [--folder FOLDER]
                               [--contenders NAME ...]

The script writes small polygons (8 corners, 200 to 800 m wide) in 100 granules as GeoParquet 1.1 with boxes of the
rows. The 300 footprints are those of the granules on 3 days; the edges of two days are oblique. Each contender computes
each case in a new process. The steps of s2cube are:

- read: `read_fields`, and a spool with a key per square degree.
- gather: `gather_boxes` of all areas.
- join: `join` of the fields of each key to the footprints.
- group: `same_scenes` of all pairs.

The contenders are:

- s2cube: all steps, joined by shapely.
- sedona: all steps, joined by SedonaDB with a memory limit of 1 GB for each key.
- sedona file: only read and join: SedonaDB reads the file and joins it in one query, with a memory limit of 1 GB.
- geopandas: only read and join: `read_parquet` and `sjoin`.

The script prints wall and CPU seconds of each step and the peak memory of the process, imports included, and checks
that all contenders find the same number of pairs. Ratios are to s2cube, read and join.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

SIDE_DEG, GRANULES, WEST, SOUTH = 1.0, 10, 5.0, 43.0
STEP_DEG = 0.9
"""Granules overlap by a tenth."""

CORNERS, ROWS = 8, 1 << 16
CONTENDERS = ("s2cube", "sedona", "sedona file", "geopandas")
SEDONA_QUERY = """
SELECT areas.id, scenes.position FROM areas JOIN scenes ON ST_Intersects(areas.geometry, scenes.geometry)
WHERE NOT ST_Touches(areas.geometry, scenes.geometry)
"""


def footprints() -> list[shapely.Polygon]:
    found = []
    for number in range(GRANULES**2):
        west, south = WEST + STEP_DEG * (number % GRANULES), SOUTH + STEP_DEG * (number // GRANULES)
        east, north = west + SIDE_DEG, south + SIDE_DEG
        found += [
            shapely.box(west, south, east, north),
            shapely.Polygon([(west, south), (east - 0.3, south), (east - 0.1, north), (west, north)]),
            shapely.Polygon([(west + 0.2, south), (east, south), (east, north), (west + 0.4, north)]),
        ]
    return found


def write_areas(path: Path, count: int, order: str) -> None:
    chosen = np.random.default_rng(1)
    side = STEP_DEG * GRANULES
    schema, writer = None, None
    for first in range(0, count, ROWS):
        rows = min(ROWS, count - first)
        centres = np.column_stack([chosen.uniform(WEST, WEST + side, rows), chosen.uniform(SOUTH, SOUTH + side, rows)])
        if order == "granule":
            centres[:, 1] = SOUTH + side * (first + np.arange(rows)) / count
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False) + chosen.uniform(0, 1, (rows, 1))
        radii = chosen.uniform(0.001, 0.004, (rows, 1)) * chosen.uniform(0.8, 1.2, (rows, CORNERS))
        points = centres[:, np.newaxis] + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)
        shapes = shapely.polygons(points)
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(shapes).T, strict=True))
        table = pa.table(
            {
                "id": [f"field_{number:07}" for number in range(first, first + rows)],
                "crop": chosen.choice(["wheat", "maize", "rye"], rows),
                "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
                "bbox": pa.StructArray.from_arrays(list(map(pa.array, sides.values())), list(sides)),
            }
        )
        if writer is None:
            covering = {"bbox": {each: ["bbox", each] for each in sides}}
            column = {"encoding": "WKB", "geometry_types": ["Polygon"], "covering": covering}
            geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
            schema = table.schema.with_metadata({"geo": json.dumps(geo)})
            writer = pq.ParquetWriter(path, schema)
        writer.write_table(table.cast(schema))
    assert writer is not None
    writer.close()


class Steps(dict[str, tuple[float, float]]):
    """Wall and CPU seconds by step."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self[name] = time.perf_counter() - wall, time.process_time() - cpu


def by_s2cube(path: Path, engine: Any, steps: Steps) -> int:
    from s2cube.area.gathering import gather_boxes
    from s2cube.fields.join import join, same_scenes
    from s2cube.fields.reading import read_fields
    from s2cube.fields.spool import FieldSpool

    outlines = footprints()
    bounds, found, met, count = [], [], [], 0
    with FieldSpool() as spool:
        with steps.step("read"):
            for batch in read_fields(str(path)):
                lon, lat = np.floor(batch.fields.centres_lonlat).astype(np.int64).T
                spool.add(batch.fields, lat * 1000 + lon)
                bounds.append(batch.fields.bounds_lonlat)
        with steps.step("gather"):
            gather_boxes(np.concatenate(bounds))
        with steps.step("join"):
            for key in spool.keys().tolist():
                fields = spool.fields(key)
                of_key, scenes = join(fields, outlines, engine)
                found.append(of_key + np.int32(count))
                met.append(scenes)
                count += len(fields)
        with steps.step("group"):
            groups, _ = same_scenes(np.concatenate(found), np.concatenate(met), count)
    assert len(groups) == count
    return sum(map(len, found))


def by_sedona_file(path: Path, steps: Steps) -> int:
    import geopandas
    import sedonadb

    with steps.step("read and join"):
        context = sedonadb.connect()
        context.options.memory_limit = "1gb"
        context.read_parquet(str(path)).to_view("areas")
        scenes = geopandas.GeoDataFrame({"position": range(len(footprints()))}, geometry=footprints(), crs="OGC:CRS84")
        context.create_data_frame(scenes).to_view("scenes")
        pairs = pa.table(context.sql(SEDONA_QUERY))
    return pairs.num_rows


def by_geopandas(path: Path, steps: Steps) -> int:
    import geopandas

    with steps.step("read and join"):
        scenes = geopandas.GeoDataFrame(geometry=footprints(), crs="OGC:CRS84")
        pairs = geopandas.read_parquet(path).sjoin(scenes)
    return len(pairs)


def child(contender: str, path: Path) -> None:
    steps = Steps()
    match contender:
        case "sedona file":
            pairs = by_sedona_file(path, steps)
        case "geopandas":
            pairs = by_geopandas(path, steps)
        case _:
            pairs = by_s2cube(path, "sedona" if contender == "sedona" else "shapely", steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"steps": steps, "pairs": pairs, "peak_gb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--areas", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--order", choices=["random", "granule"], default="random")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child[0], Path(options.child[1]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for count in options.areas:
            path = folder / f"areas-{count}-{options.order}.parquet"
            if not path.exists():
                write_areas(path, count, options.order)
            for _ in range(options.rounds):
                compare(count, path, options.contenders)
    return None


def compare(count: int, path: Path, contenders: list[str]) -> None:
    base, pairs = None, set()
    for contender in contenders:
        command = [sys.executable, __file__, "--child", contender, str(path)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        steps = found["steps"]
        pairs.add(found["pairs"])
        wall, cpu = (sum(steps[name][side] for name in steps if "read" in name or "join" in name) for side in (0, 1))
        base = base or (wall, cpu)
        print(f"{count} areas, {contender}: {found['pairs']} pairs, peak {found['peak_gb']:.2f} GB", flush=True)
        for name, (of_wall, of_cpu) in steps.items():
            print(f"    {name:14} {of_wall:7.2f} s wall {of_cpu:7.2f} s CPU")
        print(f"    read and join to {contenders[0]}: wall {wall / base[0]:.2f}, CPU {cpu / base[1]:.2f}", flush=True)
    print("the same number of pairs" if len(pairs) == 1 else f"DIFFERENT numbers of pairs: {pairs}")


if __name__ == "__main__":
    main()
