"""The site of the documentation is built without a network, and its reference is what the code says."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import s2cube
from s2cube.cli._mistakes import commands_of
from s2cube.cli.commands import app
from s2cube.config.loading import settings

ROOT = Path(__file__).resolve().parents[2]
BUILD = ["-m", "mkdocs", "build", "--strict"]
ROW = re.compile(
    r"<tr>\s*<td><code>(--[\w-]+)</code></td>\s*<td><code>(\w+)</code></td>\s*<td>(.+?)</td>\s*"
    r"<td>(?:<code>(.*?)</code>)?</td>\s*</tr>"
)
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(\w+:)?//|<link\b[^>]*\bhref=\"?(\w+:)?//")
"""What a browser fetches from a host when it shows a page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    nowhere = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")}
    done = subprocess.run(
        [sys.executable, *BUILD, "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def text(fragment: str) -> str:
    return html.unescape(re.sub(r"<.+?>", "", fragment))


def test_make_docs_builds_it_as_strictly() -> None:
    assert f"\t$(VENV)/bin/python {' '.join(BUILD)}\n" in (ROOT / "Makefile").read_text()


def test_the_reference_lists_every_setting(site: Path) -> None:
    page = (site / "reference" / "settings.html").read_text()
    rows = [(flag, key, text(what), html.unescape(default)) for flag, key, what, default in ROW.findall(page)]
    wanted = []
    for _, key, field in settings():
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = "" if default is None or default is False else str(default)
        wanted.append((f"--{key.replace('_', '-')}", key, str(field.description), shown))
    # A description is followed by the choices, if there are any.
    assert [(flag, key, what.partition(" Choices: ")[0], default) for flag, key, what, default in rows] == wanted


def test_the_reference_lists_every_command(site: Path) -> None:
    page = (site / "reference" / "command-line.html").read_text()
    commands = [name.replace(" ", "-") for name in commands_of(app)]
    assert "submit-sync" in commands
    assert re.findall(r'<h2 id="s2cube-([\w-]+)">', page) == commands


def test_the_reference_describes_every_public_name(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text()
    parts = re.split(r'<h2 id="s2cube\w+">', page)[1:]
    for name, part in zip(s2cube.__all__, parts, strict=True):
        assert text(part).startswith(f"s2cube.{name}")
        assert getattr(s2cube, name).__doc__.split("\n")[0].rstrip(".").split(" `")[0][:30] in text(part)


def test_pages_load_nothing_from_a_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for path in pages:
        assert not LOADED.search(path.read_text()), path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()), path


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    assert len(readme.split()) <= 2000


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_files_that_a_page_links_to_are_there(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target
