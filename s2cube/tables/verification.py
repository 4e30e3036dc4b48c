"""Verify an output with its table of statistics, and repair it."""

import logging
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from s2cube.errors import OutputError
from s2cube.inventory import verification
from s2cube.inventory.verification import Findings, Flaw, Watch
from s2cube.storage.layout import AREAS, STATISTICS_CSV
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.tables._files import keys_of, read_rows
from s2cube.tables._merge import statistics_in
from s2cube.tables.areas_file import open_areas, read_areas
from s2cube.tables.csv_file import equals_csv, has_csv, write_csv
from s2cube.tables.rows import ORDER, Key, schema
from s2cube.tables.table import Table, square_and_month

log = logging.getLogger(__name__)

_PLACE = re.compile(r"[ns]\d{3}[ew]\d{4} \d{6}")
"""Square and month of a file of the table."""

_RECIPE = r"^[0-9a-f]{16}-([0-9a-f]{8})*-[0-9a-f]+-[0-9a-f]{8}$"


def verify(output: Output, watch: Watch | None = None) -> Findings:
    """Do the same as `inventory.verification.verify`, and verify the table of statistics and its areas.

    Each page of their files has a checksum. The rows must be sorted, and each slice must be there once. Their recipes
    must be those that a run can compare. ``statistics.csv`` must have the same rows, unless a run writes them now.

    Raises
    ------
    OutputError
        If there is no output of s2cube.
    WriteError
        If the output cannot be read.
    """
    found = verification.verify(output, watch)
    return _together(found, *_verify_table(output))


def repair(output: Output, watch: Watch | None = None) -> Findings:
    """Do the same as `inventory.verification.repair`, and remove broken files of the table and of the areas.

    The next run computes the rows again that it would write there. ``statistics.csv`` is written again.

    Raises
    ------
    BusyError
        If a run writes there.
    OutputError
        If there is no output of s2cube.
    WriteError
        If the output cannot be read or written.
    """
    found = verification.repair(output, watch)
    checked, flaws = _verify_table(output)
    if any(flaw.kind == "broken" for flaw in flaws):
        with held(output, ends_as=None) as lease:
            # A run may have replaced the files meanwhile.
            checked, flaws = _verify_table(lease.output)
            broken = [flaw.name for flaw in flaws if flaw.kind == "broken"]
            for name in (each for each in broken if each != STATISTICS_CSV):
                lease.check()
                lease.output.destination.remove(name)
                again = "writes its areas" if name == AREAS else "computes its rows again"
                log.warning("%s was deleted; the next run %s", name, again)
            if has_csv(lease.output) and broken:
                write_csv(Table(lease.output))
                log.warning("%s was written again, from the table", STATISTICS_CSV)
    return _together(found, checked, flaws)


def _together(found: Findings, checked: int, flaws: Sequence[Flaw]) -> Findings:
    return Findings(found.checked + checked, tuple(sorted([*found.flaws, *flaws], key=lambda flaw: flaw.name)))


def _verify_table(output: Output) -> tuple[int, list[Flaw]]:
    """Count the files of the table and of the areas, and describe their flaws."""
    table, flaws = Table(output), list[Flaw]()
    names, columns = table.files(), table.columns or []
    for name in names:
        if not _PLACE.fullmatch(" ".join(square_and_month(name))):
            flaws.append(Flaw("unverified", name, "is no file of the table"))
        elif why := next(_problems_of_rows(table, name, columns), None):
            flaws.append(Flaw("broken", name, why))
    has_areas = AREAS in output.destination.sizes(1)
    if has_areas and (why := _problem_of_areas(output)):
        flaws.append(Flaw("broken", AREAS, why))
    elif names and not has_areas:
        flaws.append(Flaw("missing", AREAS, "is missing"))
    if (names or has_areas) and has_csv(output):
        names = [*names, STATISTICS_CSV]
        # It cannot be compared with a table that cannot be read.
        flaws += [] if any(flaw.kind == "broken" for flaw in flaws) else _flaws_of_csv(table)
    return len(names) + bool(names or has_areas), flaws


def _flaws_of_csv(table: Table) -> Iterator[Flaw]:
    record = None if table.output.run else read_record(table.output)
    if record and record.is_open and record.is_alive:
        return  # a run writes it after the table
    if not equals_csv(table):
        yield Flaw("broken", STATISTICS_CSV, "has other content than the table")


def _problems_of_rows(table: Table, name: str, columns: Sequence[str]) -> Iterator[str]:
    try:
        rows = read_rows(table.output, name)
    except OutputError as error:
        yield error.problem
        return
    if rows is None:
        return  # a run has removed it
    found = statistics_in(rows)
    # A run may have added columns meanwhile.
    is_other = found != columns and table.columns not in (None, found)
    if is_other or rows.schema.remove_metadata() != schema(found):
        yield "has other columns than the table"
    keys = rows.select([column for column, _ in ORDER])
    if any(column.null_count for column in keys.columns) or not keys.equals(keys.sort_by(ORDER)):
        yield "is not sorted by area and day"
    if pc.count_distinct(rows["slice"]).as_py() != rows.num_rows:
        yield "has a slice twice"
    if pc.unique(pc.strftime(rows["date"], "%Y%m")).to_pylist() not in ([], [square_and_month(name)[1]]):
        yield "has rows of another month"
    if not _has_recipes(rows):
        yield "has rows whose recipe is damaged"


def _has_recipes(rows: pa.Table) -> bool:
    keys = keys_of(rows)
    used = pc.unique(pc.utf8_slice_codeunits(rows["recipe"], -Key.LENGTH)).to_pylist()
    known = all(keys[each].id == each for each in used if each in keys) and {*used} <= {*keys}
    return known and bool(pc.all(pc.match_substring_regex(rows["recipe"], _RECIPE), min_count=0).as_py())


def _problem_of_areas(output: Output) -> str:
    """Describe the first problem of the file of areas; return an empty text if it has none."""
    try:
        file = open_areas(output)
        ids = [rows["aoi"] for rows in read_areas(output, file)] if file else []
    except OutputError as error:
        return error.problem
    names = pa.chunked_array([chunk for each in ids for chunk in each.chunks], pa.string())
    return "has an area twice" if pc.count_distinct(names, "all").as_py() != len(names) else ""
