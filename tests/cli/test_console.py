"""What commands print: foreign text does nothing to a terminal, a table or a log but be read there."""

import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2cube.cli._console import json_line, log, print_failure
from s2cube.cli._flags import Console
from s2cube.demo.archive import Archive
from support.runs import CommandLine

HOSTILE = {
    "\x1b[2J\x1b]0;owned\x07": r"\x1b[2J\x1b]0;owned\x07",
    "a\r\nERROR: all is lost": "a ERROR: all is lost",
    "a[/x]b [red]c": "a[/x]b [red]c",
    ":warning: x": ":warning: x",
    "\u202egnp.x\u2066": r"\u202egnp.x\u2066",
    "\ud800x": r"\ud800x",
    "小麦": "小麦",
}
IDS = [text for text in HOSTILE if "\ud800" not in text]
"""Those that a reader of JSON takes."""

CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def controls(text: str) -> set[str]:
    return {each for each in text if unicodedata.category(each) in CONTROLS} - {"\n"}


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    yield
    logging.basicConfig(handlers=[], force=True)


def said(capsys: pytest.CaptureFixture[str], console: Console, text: str, **facts: Any) -> str:
    console.set_up_logging()
    log.warning("%s", text, extra=facts)
    return capsys.readouterr().err


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert said(capsys, Console(), text) == f"warning: {HOSTILE[text]}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_for_programs_is_an_object(capsys: pytest.CaptureFixture[str], text: str) -> None:
    line = said(capsys, Console(log_json=True), text, slice=text, scenes=[text, "x"], asset=text)
    assert not controls(line)
    assert line.count("\n") == 1
    shown = HOSTILE[text]
    assert json.loads(line).items() >= {"event": shown, "slice": shown, "scenes": [shown, "x"], "asset": shown}.items()


@given(st.text(st.characters()))
def test_json_for_strict_readers(text: str) -> None:
    for encoding in ("ascii", "utf-8", "cp1252"):
        line = json_line({"id": text}, encoding)
        assert "\n" not in line
        line.encode(encoding)
        read = json.loads(line)["id"]
        # Half a character is refused by others that read it.
        assert read == "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in text)


@pytest.mark.parametrize("log_json", [False, True])
def test_a_log_that_takes_ascii_only(monkeypatch: pytest.MonkeyPatch, log_json: bool) -> None:
    """Python writes what such a stream cannot as escapes that are none of JSON's."""
    raw = BytesIO()
    monkeypatch.setattr(sys, "stderr", TextIOWrapper(raw, "ascii", errors="backslashreplace"))
    Console(log_json=log_json).set_up_logging()
    log.warning("%s", "小麦 \ud800 é")
    sys.stderr.flush()
    text = raw.getvalue().decode("ascii")
    if log_json:
        assert json.loads(text)["event"] == r"小麦 \ud800 é"
    else:
        assert text == "warning: \\u5c0f\\u9ea6 \\ud800 \\xe9\n"


def test_a_traceback_keeps_its_lines_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    for log_json in (False, True):
        Console(verbose=2, log_json=log_json).set_up_logging()
        try:
            raise ValueError("\x1b[2J https://host/x?sig=1234567")
        except ValueError:
            print_failure("it\nends")
        err = capsys.readouterr().err
        assert not controls(err)
        assert "1234567" not in err
        if log_json:
            line = json.loads(err)
            assert line["event"] == "it ends"
            lines = line["traceback"].splitlines()
        else:
            first, *lines = err.splitlines()
            assert first == "s2cube: it ends"
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1] == r"ValueError: \x1b[2J https://host/x?…"


def test_long_lines_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    err = said(capsys, Console(), "x" * 1_000_000 + "end")
    assert len(err) < 17_000
    assert err.endswith("xend\n")


@pytest.fixture
def hostile_items(archive_items: list[dict[str, Any]], tmp_path: Path) -> Path:
    """Scenes of the demo, with other ids."""
    features = [item | {"id": text} for item, text in zip(archive_items, IDS, strict=False)]
    features[-1]["properties"] |= {"grid:code": "\x1b[31m[/x]", "s2:processing_baseline": "[/]"}
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_tables_show_ids_as_they_are(
    s2cube_command: CommandLine, archive: Archive, hostile_items: Path, archive_items: list[Any]
) -> None:
    asked = ("--aoi", archive.aoi, "--stac", hostile_items, "--max-cloud", "100")
    done = s2cube_command("search", *asked)
    assert done.status == 0, done.err
    assert not controls(done.out)
    assert len(archive_items) >= len(IDS)
    for text in IDS:
        assert sum(HOSTILE[text] in line for line in done.out.splitlines()) == 1
    assert r"\x1b[31m[/x]" in done.out
    planned = s2cube_command("plan", *asked, "--group-by", "scene")
    assert planned.status == 0, planned.err
    assert not controls(planned.out + planned.err)
    assert all(HOSTILE[text] in planned.out for text in IDS)
    answer = s2cube_command("search", *asked, "--json")
    assert set(answer.json["scenes"]) == set(IDS)
    assert answer.out.isascii()


def test_a_terminal_that_knows_ascii_only(archive: Archive, hostile_items: Path) -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for more in ((), ("--json",)):
        command = [sys.executable, "-m", "s2cube", "search", "--aoi", archive.aoi, "--stac", hostile_items, *more]
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        out = done.stdout.decode("ascii")
        assert "小麦" in json.loads(out)["scenes"] if more else r"\u5c0f\u9ea6" in out


@pytest.mark.parametrize("name", ["no\nsuch\x1b[2J[/x].geojson", "no\udcff.geojson"])
@pytest.mark.parametrize("log_json", [False, True])
def test_names_of_files(s2cube_command: CommandLine, name: str, log_json: bool) -> None:
    done = s2cube_command("run", "--aoi", name, *(["--log-json"] if log_json else []))
    assert done.status == 2
    assert not controls(done.err)
    assert len(done.err.splitlines()) == 1
    shown = {"no\nsuch\x1b[2J[/x].geojson": r"no such\x1b[2J[/x].geojson", "no\udcff.geojson": r"no\udcff.geojson"}
    line = json.loads(done.err)["event"] if log_json else done.err
    assert f"{shown[name]}: there is no such file" in line


def test_an_output_with_a_line_break(s2cube_command: CommandLine, archive: Archive, tmp_path: Path) -> None:
    done = s2cube_command("plan", "--aoi", archive.aoi, "--stac", archive.items, "--out", "o\nut\x1b[2J", "--json")
    assert done.status == 0, done.err
    status = s2cube_command("status", "--out", "o\nut\x1b[2J")
    assert status.status == 1
    assert status.err == "s2cube: o ut\\x1b[2J: no run has written there\n"


@pytest.mark.parametrize("flag", ["--nons\x1b[2J", "--max-cloud=\x1b[2J", "--bands=\u202e\n"])
def test_flags(s2cube_command: CommandLine, flag: str) -> None:
    done = s2cube_command("run", flag)
    assert done.status == 2
    assert not controls(done.err)
    assert len(done.err.splitlines()) == 1
