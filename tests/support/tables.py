"""Fields on the demo's farm, and the table of statistics in an output."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyarrow.parquet as pq
import rasterio
import shapely

from s2cube.demo.archive import Archive
from support.runs import FARM, CommandLine, Outcome

Stats = Callable[..., Outcome]


def write_fields(path: Path, count: int = 9, left_m: float = FARM[0], **columns: Any) -> Path:
    """Write fields of 280 m side by side, three in a row."""
    bottom = FARM[1]
    places = [(left_m + 300 * (number % 3), bottom + 300 * (number // 3)) for number in range(count)]
    shapes = [shapely.box(x + 10, y + 10, x + 290, y + 285) for x, y in places]
    frame = geopandas.GeoDataFrame(
        {"name": [f"f{number}" for number in range(count)]} | columns, geometry=shapes, crs="EPSG:32614"
    )
    frame.to_parquet(path)
    return path


def stats_of(s2cube_command: CommandLine, archive: Archive, folder: Path, bands: str) -> Stats:
    """Return a function that calls `stats` for fields of `write_fields`, with other flags if they are given."""
    usual = {"--aoi": write_fields(folder / "fields.parquet"), "--aoi-id": "name", "--stac": archive.items,
             "--bands": bands, "--statistics": "mean", "--out": "out"}  # fmt: skip

    def call(*more: object, command: str = "stats") -> Outcome:
        rest = (word for flag in usual.items() if flag[0] not in more for word in flag)
        return s2cube_command(command, "--json", *more, *rest)

    return call


def rows_of(out: Path | str) -> pd.DataFrame:
    """Read the table of an output, in the order of its files. A slice may have one row only."""
    parts = [pq.read_table(path).to_pandas() for path in sorted(Path(out, "statistics").glob("*.parquet"))]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"slice": []})
    assert rows["slice"].is_unique
    return rows


def files_of(out: Path | str) -> dict[str, bytes]:
    """Read the files of the table, and those of the areas."""
    found = [path for path in Path(out).rglob("*.*") if path.is_file() and ".s2cube" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def with_damaged_tile(path: Path, copy: Path, x: float, y: float) -> tuple[float, float, float, float]:
    """Copy a file with a tile that cannot be decoded; return the bounds of the tile."""
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        row, column = file.index(x, y)
        height, width = file.block_shapes[0]
        row, column = row // height, column // width
        tags = [file.get_tag_item(f"BLOCK_{key}_{column}_{row}", "TIFF", bidx=1) for key in ("OFFSET", "SIZE")]
        left, top = file.transform @ (column * width, row * height)
        right, bottom = file.transform @ ((column + 1) * width, (row + 1) * height)
    offset, size = map(int, tags)
    content[offset : offset + size] = bytes(size)
    copy.write_bytes(content)
    return left, bottom, right, top
