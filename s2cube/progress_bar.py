"""The progress bar of slices: in a terminal, and in a notebook."""

import sys
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_REFRESH_S = 0.1
"""Minimum time between two updates in a notebook."""


class _Counted(Protocol):
    """What is to be done, such as a job."""

    @property
    def total(self) -> int: ...
    @property
    def unit(self) -> str: ...


class _Final(Protocol):
    """The final result of a slice."""

    @property
    def written(self) -> int: ...
    @property
    def all_failures(self) -> Sized: ...


class SliceBar:
    """Show how many slices of a run are done, or how many rows of statistics."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.written = self.failed = self.total = 0
        self.unit = ""
        self._bar: TaskID | None = None

    def begin(self, job: _Counted) -> None:
        """Add to the total number of slices. A run may have several parts, which begin one after the other."""
        self.total += job.total
        self.unit = self.unit or job.unit
        if self._bar is None:
            self._bar = self._progress.add_task(self.unit, total=self.total)
        else:
            self._progress.update(self._bar, total=self.total)

    def advance(self, result: _Final) -> None:
        """Advance by the slices of a result; a slice that is rejected is one, too."""
        failed = len(result.all_failures)
        self.written += result.written
        self.failed += failed
        description = f"{self.unit}, {self.failed} FAILED" if self.failed else self.unit
        if self._bar is not None:
            self._progress.update(self._bar, advance=max(1, result.written + failed), description=description)


class _NotebookBar(SliceBar):
    """Show the bar as an output of a notebook's cell.

    Rich's own way needs ipywidgets, and the result would be missing in the saved notebook.
    """

    def __init__(self, display: Any) -> None:
        super().__init__(_progress())
        self._display = display
        self._handle: Any = None
        self._shown_s = time.monotonic()

    def begin(self, job: _Counted) -> None:
        """Show the bar, if there is anything to do."""
        super().begin(job)
        if job.total and not self._handle:
            self._handle = self._display(self._progress, display_id=True)

    def advance(self, result: _Final) -> None:
        super().advance(result)
        if time.monotonic() - self._shown_s >= _REFRESH_S:
            self.show()

    def show(self) -> None:
        """Update the output of the cell."""
        if self._handle:
            self._handle.update(self._progress)
        self._shown_s = time.monotonic()


def _progress(**options: Any) -> Progress:
    return Progress(*columns(), **options)


def columns() -> tuple[Any, ...]:
    """Return the columns of the bar, for `rich.progress.Progress`."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@contextmanager
def shown_bar(is_wanted: bool = True) -> Iterator[SliceBar | None]:
    """Show a bar during a block, in a notebook or on stderr if it is a terminal; yield None if nothing is shown."""
    console = Console(stderr=True)
    if is_wanted and (display := _display()):
        bar = _NotebookBar(display)
        try:
            yield bar
        finally:
            bar.show()
    elif is_wanted and console.is_terminal:
        with _progress(console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
            yield SliceBar(progress)
    else:
        yield None


def _display() -> Any:
    """Return IPython's function `display`; None if this process is not the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return import_module("IPython.display").display if getattr(shell, "kernel", None) else None
