"""A table as CSV."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from s2cube.storage.output import Output
from s2cube.tables.csv_file import equals_csv, write_csv
from s2cube.tables.rows import Key, schema
from s2cube.tables.table import Table

KEY = Key(("red_mean",), "0" * 16, ("0" * 8,))
FIELDS = 500


def add(table: Table, month: int) -> None:
    """Add a file of the table: some 800 bytes of CSV a field."""
    names, day = [f"f{number:03}" for number in range(FIELDS)], datetime(2024, month, 1, tzinfo=UTC)
    one = {"date": day.date(), "time": day, "cells": 1, "clear_percent": 1, "cloud_percent": 1, "red_mean": 0.1,
           "scenes": ["S2A_14TPM_L2A" * 50], "recipe": KEY.id}  # fmt: skip
    rows = [{"aoi": name, "slice": f"{name}_{month}", **one} for name in names]
    table.put(("n475e0120", f"2024{month:02}"), pa.Table.from_pylist(rows, schema(KEY.columns)), [KEY])


def test_comparison_keeps_neither_the_file_nor_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, parts, allocated = Table(Output.at(tmp_path)), Table.parts, list[int]()

    def measured(table: Table) -> Iterator[pa.Table]:
        for rows in parts(table):
            allocated.append(pa.total_allocated_bytes())
            yield rows

    def peaks() -> tuple[int, int]:
        write_csv(table)
        allocated.clear()
        tracemalloc.start()
        assert equals_csv(table)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced, max(allocated)

    monkeypatch.setattr(Table, "parts", measured)
    add(table, 1)
    add(table, 2)
    before = peaks()
    size = (tmp_path / "statistics.csv").stat().st_size
    for month in range(3, 13):
        add(table, month)
    after = peaks()
    more = (tmp_path / "statistics.csv").stat().st_size - size
    assert more > 3_000_000
    assert max(late - early for early, late in zip(before, after, strict=True)) < more / 10
