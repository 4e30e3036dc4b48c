"""The code blocks of the README and the documentation run offline, on the demo's archive, or say why they do not.

A page is one session: its blocks run in their order, in one folder, and its Python blocks share their names. A comment
`<!-- not run: REASON -->` before a block is for what needs a network, a cluster or an installation. Commands of s2cube
in such a block are still parsed, with all their settings.
"""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import shapely
from markdown_it import MarkdownIt

import s2cube
from s2cube.cli._flags import load_settings
from s2cube.cli._mistakes import commands_of
from s2cube.cli.commands import app
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from support.runs import CommandLine

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*")
OF_S2CUBE = (["s2cube"], ["python", "-m", "s2cube"])


@dataclass(frozen=True)
class Block:
    """A block of code, the line it begins in, and why it does not run, if it does not."""

    language: str
    code: str
    line: int
    reason: str

    @property
    def commands(self) -> Iterator[list[str]]:
        """Words of every command of a shell."""
        for line in self.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(page: Path) -> list[Block]:
    found, reason = [], ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            found.append(Block(token.info, token.content, token.map[0] + 1 if token.map else 0, reason))
        marked = NOT_RUN.fullmatch(token.content) if token.type == "html_block" else None
        reason = marked[1] if marked else ""
    return found


def of_s2cube(words: list[str]) -> list[str] | None:
    """Give the words after `s2cube`; None for a command of another program."""
    return next((words[len(name) :] for name in OF_S2CUBE if words[: len(name)] == name), None)


@pytest.fixture
def session(archive: Archive, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that pages name; the demo's archive in place of the catalogue on the network."""
    mpl.use("Agg")
    plt.close("all")  # a page does not draw on the axes of another one
    shutil.copy(ROOT / "aoi.geojson", tmp_path)
    shutil.copy(archive.aoi, tmp_path / "farm.geojson")
    corners = [shapely.box(x, 4549000, x + 600, 4549600) for x in (564600, 565800, 569000)]
    fields = geopandas.GeoDataFrame({"parcel": ["a1", "a2", "b1"]}, geometry=corners, crs="EPSG:32614")
    fields.to_file(tmp_path / "fields.gpkg")
    monkeypatch.setenv("S2CUBE_SEARCH__STAC", str(archive.items))
    monkeypatch.setenv("S2CUBE_CLUSTER__SCHEDULER", scheduler)
    monkeypatch.setattr(s2cube, "search", partial(s2cube.search, stac=str(archive.items)))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
@pytest.mark.usefixtures("session")
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # xarray's median, outside the polygon
def test_blocks_run(page: Path, s2cube_command: CommandLine) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.reason:
            continue
        match block.language:
            case "python":
                exec(compile("\n" * block.line + block.code, page, "exec"), names)
            case "sh":
                for words in block.commands:
                    arguments = of_s2cube(words)
                    assert arguments is not None, f"{where}: {words[0]} does not run here: say why not"
                    done = s2cube_command(*arguments)
                    assert done.status == 0, f"{where}: {done.err}"
                    assert "No scene matched" not in done.err, where
            case "toml":
                Path("block.toml").write_text(block.code)
                load_config({}, {}, Path("block.toml"))
            case "json":
                json.loads(block.code)
            case "cron" | "ini" | "yaml":
                # `tests/updates/test_sync_page.py` runs these.
                assert name_of(page) == "docs/how-to/sync.md", where
            case language:
                assert language == "text", f"{where}: a block of '{language}'"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_that_do_not_run_are_right(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for block in blocks(page):
        if block.language == "python":
            compile("\n" * block.line + block.code, page, "exec")
        if block.language != "sh":
            continue
        for words in block.commands:
            arguments = of_s2cube(words)
            if words[0] == "make":
                assert words[1] in targets, f"{name_of(page)}:{block.line}"
            if arguments is None or arguments == ["--version"]:
                continue
            _, bound, *_ = app.parse_args(arguments, exit_on_error=False, print_error=False)
            load_settings(bound.arguments.get("flags"), None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_pages_install_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # That name belongs to another project on PyPI.
    assert not re.search(r"(pip|uv|conda|mamba) (install|add) [^\n]*\bs2cube\b", text)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(",".join(re.findall(r"'\.\[([\w,]+)\]'", text)).split(",")) - {""} <= set(extras)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_that_pages_name_are_there(page: Path) -> None:
    commands = commands_of(app).values()
    known = {name for each in commands for flag in each.assemble_argument_collection() for name in flag.names}
    text = page.read_text(encoding="utf-8")
    spans = [span for span in re.findall(r"`([^`\n]+)`", text) if not span.startswith(("mkdocs", "pip", "git", "ruff"))]
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert named <= known | {"--help", "--version"}
