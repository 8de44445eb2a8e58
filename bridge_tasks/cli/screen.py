"""What people see: a progress bar on standard error, tables and panels on standard output, JSON for machines.

No text from outside (a file's name, an error) reaches the terminal with a control character in it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

STYLES = {
    "succeeded": "green",
    "valid": "green",
    "healthy": "green",
    "closed": "green",
    "half_open": "yellow",
    "degraded": "yellow",
    "unfinished": "yellow",
    "cancelled": "yellow",
    "no stamp": "yellow",
    "running": "yellow",
    "waiting": "yellow",
    "to come": "dim",
    "never began": "dim",
}
"""By state; any other is trouble, and red."""
_SELDOM = ("unfinished", "cancelled")
_ID_CELLS = 36
"""A UUID, which never wraps."""
_PATH_CELLS = 12
_GAP_CELLS = 2


@contextmanager
def progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a live bar for the length of a `with` block, where standard error is a terminal.

    Gives the call that counts so many more.
    """
    with _progress(quiet=quiet) as shown:
        bar = shown.add_task(title, total=total)
        yield lambda more: shown.advance(bar, more)


class Bars:
    """Live bars, each under its title."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._bars: dict[str, TaskID] = {}

    def show(self, title: str, done: int, total: int) -> None:
        """Say how far something is."""
        if title not in self._bars:
            self._bars[title] = self._shown.add_task(title, total=total)
        self._shown.update(self._bars[title], completed=done, total=total)

    def hide(self, title: str) -> None:
        """Take a bar away."""
        if title in self._bars:
            self._shown.remove_task(self._bars.pop(title))


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars]:
    """Show live bars for the length of a `with` block, where standard error is a terminal."""
    with _progress(quiet=quiet) as shown:
        yield Bars(shown)


def _progress(*, quiet: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal)


def say(line: str) -> None:
    """Tell people something, on standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(printable(line)))


def announce(title: str) -> None:
    """Say what begins where no bar will: in a log, in a pipe."""
    if not sys.stderr.isatty():
        say(title)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line; ASCII only, so whatever it holds is safe to look at."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a cell that is a known state has its colour."""
    Console().print(rows_table(headings, rows))


def rows_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay out a table that fits: long paths in the first column keep their end, the last column is folded."""
    console = Console()
    told = [[printable(cell) for cell in row] for row in rows]
    first, *middle, last = (max(map(cell_len, column)) for column in zip(headings, *told, strict=True))
    last = min(last, _ID_CELLS)
    room = max(_PATH_CELLS, console.width - sum(middle) - last - _GAP_CELLS * (len(headings) - 1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(headings[0], no_wrap=True, min_width=min(first, room))
    for heading in headings[1:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold", min_width=last)
    for path, *cells in told:
        table.add_row(shortened(path, room), *(Text(cell, STYLES.get(cell, "")) for cell in cells))
    return table


def shortened(path: str, cells: int) -> Text:
    """Cut a path from the left: its end says more."""
    if cell_len(path) <= cells:
        return Text(path)
    end = path[-cells:]
    while cell_len(end) >= cells:
        end = end[1:]
    return Text(f"…{end}")


def show_facts(title: str, facts: Mapping[str, str], *, good: bool = True) -> None:
    """Print names and values in a frame."""
    Console().print(facts_panel(title, facts, good=good))


def facts_panel(title: str, facts: Mapping[str, str], *, good: bool = True) -> Panel:
    """Frame names and values, to be printed or shown live."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(printable(value)))
    frame = "green" if good else "red"
    return Panel(table, title=title, title_align="left", border_style=frame, expand=False)


def show_lines(*lines: str) -> None:
    """Print lines as they are, below a table or a frame."""
    for line in lines:
        Console(soft_wrap=True).print(Text(printable(line)))


def counted(number: int, noun: str) -> str:
    """Write `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summed_up(files: int, counts: Mapping[str, int]) -> str:
    """Write `3 files: 2 succeeded, 1 failed`; unfinished and cancelled ones only where there are some."""
    told = (f"{count} {state}" for state, count in counts.items() if count or state not in _SELDOM)
    return f"{counted(files, 'file')}: {', '.join(told)}"


def printable(text: str) -> str:
    r"""Write control characters and lone surrogates as escapes: `\x1b`, `\n`, `\udcff`."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
