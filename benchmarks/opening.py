"""Measure the processor time of `open_output` for many images, with and without the table of all Items.

    python benchmarks/opening.py [IMAGES]

Each image is a link to the files of one image, and has its own Item. The values are medians of five rounds, in a
process that has opened an output before.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import s2cube
from s2cube.demo.archive import write_archive
from s2cube.output._items_table import ItemRows
from s2cube.storage.output import Output

ROUNDS = 5


def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, out = write_archive(folder / "archive"), folder / "out"
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-05")
        (path,) = s2cube.write_cogs(s2cube.open_cube(items, aoi, dtype="int16"), folder / "one")
        documents = [_copy(Path(path), out, date(2015, 7, 1) + timedelta(day)) for day in range(images)]
        s2cube.open_output(folder / "one")
        print(f"{images} images, their Items one by one: {_seconds(out):.2f} s")
        rows = ItemRows(Output.at(out))
        rows.replace("farm", documents)
        rows.write(["farm"])
        print(f"{images} images, from items.parquet: {_seconds(out):.2f} s")


def _copy(image: Path, out: Path, day: date) -> dict[str, object]:
    name = f"farm_{day:%Y%m%d}"
    folder = out / "farm" / name
    folder.mkdir(parents=True)
    for file in image.parent.glob("*.*"):
        if file.suffix != ".json":
            os.link(file, folder / file.name.replace(image.stem, name))
    text = image.with_suffix(".json").read_text().replace(image.stem, name)
    document: dict[str, object] = json.loads(text)
    document["properties"] = {**json.loads(text)["properties"], "datetime": f"{day}T17:00:00Z"}
    (folder / f"{name}.json").write_text(json.dumps(document))
    return document


def _seconds(out: Path) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        s2cube.open_output(out)
        times.append(time.process_time() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
