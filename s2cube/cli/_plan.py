"""The command plan: show what run, stats or composite would do."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from s2cube.cli._console import add_row, megabytes, print_notice, table_console
from s2cube.cli._flags import ConfigFile, Console, ConsoleFlags, PlanFlags, load_settings, set_up_console
from s2cube.cli._reports import (
    no_scene_message,
    report_areas_without_scenes,
    report_changes,
    report_cost,
    report_older_items,
    report_rows,
    report_unusable,
)
from s2cube.config.sections import JobConfig
from s2cube.errors import ConfigError

if TYPE_CHECKING:
    from s2cube.composites.forecast_composites import CompositeForecast
    from s2cube.jobs.forecasts import Forecasts
    from s2cube.jobs.job import Job
    from s2cube.jobs.results import Cost
    from s2cube.zonal.forecast_rows import RowForecast

HeadersFlag = Annotated[
    bool, Parameter(negative="", help="Read the headers of all files, so that requests and bytes are exact.")
]


_IMAGES, _STATISTICS, _COMPOSITES = "images", "statistics", "composites"

ProductsFlag = Annotated[
    str,
    Parameter(
        metavar="NAMES",
        help="images, statistics (as stats computes them), or both, comma-separated; or composites. "
        "Default: images; if --statistics is set, both, as run does.",
    ),
]


def plan(
    *,
    flags: PlanFlags = None,
    config: ConfigFile = None,
    console: ConsoleFlags = None,
    headers: HeadersFlag = False,
    products: ProductsFlag = "",
) -> int:
    """Show what run, stats or composite would do, and the requests, bytes and memory that they need."""
    console = set_up_console(console)
    wanted = _products(products)
    settings = load_settings(flags, config)
    if wanted == {_STATISTICS}:
        return _plan_rows(settings, console, headers)
    if wanted == {_COMPOSITES}:
        return _plan_composites(settings, console, headers)
    has_rows = _STATISTICS in wanted if wanted else bool(settings.table.statistics)
    return _plan_images(settings, console, headers, has_rows)


def _products(text: str) -> set[str]:
    known, names = (_IMAGES, _STATISTICS, _COMPOSITES), {each.strip() for each in text.split(",") if each.strip()}
    for name in sorted(names):
        if name not in known:
            raise ConfigError("--products", f"'{name}' is unknown", f"Choose from {', '.join(known)}")
    if _COMPOSITES in names and len(names) > 1:
        raise ConfigError("--products", "composites are planned alone", "Plan the other products by a second command")
    return names


def _plan_rows(settings: JobConfig, console: Console, headers: bool) -> int:
    from s2cube.zonal.forecast_rows import forecast_rows

    found = forecast_rows(settings, headers)
    if not (found.rows or found.skipped or found.failures):
        print_notice(no_scene_message(settings))
    if not console.json:
        table_console().print(_table_of_days(found))
    report_rows(found)
    total = _total(found.cost, headers)
    del total["shared_with"]
    report_cost(total, "rows")
    console.print_json(found.facts() | total)
    return 0


def _plan_composites(settings: JobConfig, console: Console, headers: bool) -> int:
    from s2cube.composites.forecast_composites import forecast_composites

    found = forecast_composites(settings, headers)
    report_areas_without_scenes(found.job)
    report_unusable(found.job)
    report_changes(found.job)
    if not console.json:
        table_console().print(_table_of_composites(found))
    print_notice(f"{len(found.job.todo)} composites to do, {len(found.job.skipped)} done.")
    total = _total(found.cost, headers and not found.is_most)
    del total["shared_with"]
    report_cost(total, "composites")
    if found.is_most:
        print_notice("The method first needs at most this: it stops reading when all pixels are filled.")
    if found.stack_bytes:
        print_notice(
            f"The days of a block take up to {megabytes(found.stack_bytes)} MB at the same time. If this is more than "
            "a quarter of the memory of a worker, they are in a temporary file. No tile is read twice."
        )
    console.print_json(found.facts() | total)
    return 0


def _plan_images(settings: JobConfig, console: Console, headers: bool, has_rows: bool) -> int:
    from s2cube.jobs.forecasts import forecast
    from s2cube.jobs.job import plan_job
    from s2cube.storage.output import Output

    job, rows = plan_job(settings, Output.at(settings.job.out)), None
    report_areas_without_scenes(job)
    if has_rows:
        from s2cube.zonal.forecast_rows import forecast_both

        job, rows = forecast_both(job, headers)
    forecasts = rows.cost if rows else forecast(job, headers)
    job = job if rows else job.without(forecasts.unusable)
    report_unusable(job)
    report_changes(job)
    report_older_items(job)
    if not console.json:
        table_console().print(_table(job, forecasts.costs))
    unusable = f", {len(job.unusable)} that cannot be computed" if job.unusable else ""
    rejected = f", {len(job.rejected)} rejected by an earlier run" if job.rejected else ""
    print_notice(f"{len(job.todo)} slices to do, {len(job.skipped)} done{unusable}{rejected}.")
    if rows:
        report_rows(rows)
    total = _total(forecasts, headers)
    report_cost(total, "slices and rows" if rows else "slices")
    console.print_json(
        {"todo": [task.id for task in job.todo], "skipped": list(job.skipped)}
        | {"failed": [{"slice": each.id, "error": str(each.error)} for each in job.unusable]}
        | {"scenes": {each.id: [scene.id for scene in each.scenes] for plan in job.plans for each in plan.slices}}
        | (rows.facts() if rows else {})
        | total
    )
    return 0


def _table(job: "Job", costs: Mapping[str, "Cost"]) -> Table:
    shares = any(cost.shared_with for cost in costs.values())
    heads = ["slice", "time (UTC)", "state", "requests", "MB", *(["shares files with"] if shares else []), "scenes"]
    table = Table(*heads, box=None, pad_edge=False)
    rejected = {each.slice for each in job.rejected}
    for each in job.plans:
        for time_slice in each.slices:
            cost = costs.get(time_slice.id)
            facts = [str(cost.traffic.requests), megabytes(cost.traffic.bytes)] if cost else ["", ""]
            facts += [_others(cost.shared_with if cost else ())] if shares else []
            state = "rejected" if time_slice.id in rejected else "done" if time_slice.id in job.skipped else "to do"
            scenes = " ".join(scene.id for scene in time_slice.scenes)
            add_row(table, time_slice.id, f"{time_slice.time:%Y-%m-%d %H:%M}", state, *facts, scenes)
    for unusable in job.unusable:
        time = f"{unusable.time:%Y-%m-%d %H:%M}" if unusable.time else ""
        facts = [""] * (len(heads) - 4)
        add_row(table, unusable.id, time, "cannot be computed", *facts, " ".join(unusable.scenes))
    return table


def _table_of_days(found: "RowForecast") -> Table:
    table = Table("day", "rows", "requests", "MB", box=None, pad_edge=False)
    for day, each in sorted(found.days.items()):
        add_row(table, day, each.rows, each.traffic.requests, megabytes(each.traffic.bytes))
    return table


def _table_of_composites(found: "CompositeForecast") -> Table:
    table = Table("composite", "days", "from images", "requests", "MB", box=None, pad_edge=False)
    for task in found.job.todo:
        traffic = found.cost.costs[task.id].traffic
        days = found.days[task.id], found.stored[task.id]
        add_row(table, task.id, *days, traffic.requests, megabytes(traffic.bytes))
    return table


def _others(ids: tuple[str, ...]) -> str:
    return f"{ids[0]} and {len(ids) - 1} more" if ids[1:] else "".join(ids)


def _total(forecasts: "Forecasts", exact: bool) -> dict[str, Any]:
    costs = forecasts.costs
    return {
        **asdict(forecasts.total),
        "exact": exact,
        "tiles": forecasts.tiles,
        "peak_bytes": max((cost.peak_bytes for cost in costs.values()), default=0),
        "output_bytes": sum(cost.output_bytes for cost in costs.values()),
        "by_gdal": sum(cost.by_gdal for cost in costs.values()),
        "processes": forecasts.processes,
        "requests_at_most": forecasts.at_most.requests,
        "bytes_at_most": forecasts.at_most.bytes,
        "shared_with": {slice_id: list(cost.shared_with) for slice_id, cost in costs.items() if cost.shared_with},
    }
