"""The command indices: the spectral indices that can be asked for."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Column, Table
from rich.text import Text

from s2cube.cli._console import print_notice, table_console
from s2cube.cli._flags import ConsoleFlags, set_up_console

if TYPE_CHECKING:
    from s2cube.spectral_indices import SpectralIndex


def indices(
    *,
    search: Annotated[
        str | None, Parameter(metavar="TEXT", help="List only indices whose name, domain or bands contain TEXT.")
    ] = None,
    console: ConsoleFlags = None,
) -> int:
    """List the spectral indices that a job can compute: name, formula, bands and reference."""
    console = set_up_console(console)
    from s2cube.spectral_indices import known_indices

    listed = [each for each in known_indices().values() if _contains(each, search or "")]
    if not console.json:
        table_console().print(_table(listed))
    print_notice(f"{len(listed)} indices.")
    console.print_json({"indices": list(map(_facts, listed)), "count": len(listed)})
    return 0


def _contains(index: "SpectralIndex", text: str) -> bool:
    found = " ".join((index.name, index.long_name, index.domain, *index.bands.values()))
    return text.lower() in found.lower()


def _facts(index: "SpectralIndex") -> dict[str, Any]:
    return {
        "name": index.name,
        "long_name": index.long_name,
        "formula": index.formula_of_bands,
        "bands": list(index.bands.values()),
        "domain": index.domain,
        "reference": index.reference,
    }


def _table(indices: "list[SpectralIndex]") -> Table:
    columns = (Column(name, overflow="fold") for name in ("name", "long name", "formula", "bands", "reference"))
    table = Table(*columns, box=None, pad_edge=False)
    for each in indices:
        bands = " ".join(each.bands.values())
        # A part of a reference may look like a signature, which `add_row` would remove.
        table.add_row(*map(Text, (each.name, each.long_name, each.formula_of_bands, bands, each.reference)))
    return table
