"""What people see: a progress bar on standard error, tables and panels on standard output, JSON for machines.

No text from outside (a file's name, an error) reaches the terminal with a control character in it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

STYLES = {
    "succeeded": "green",
    "valid": "green",
    "healthy": "green",
    "degraded": "yellow",
    "unfinished": "yellow",
    "unstamped": "yellow",
}
"""By state; any other is trouble, and red."""


@contextmanager
def progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show a live bar for the length of a `with` block, where standard error is a terminal.

    Gives the call that counts one more.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as shown:
        bar = shown.add_task(title, total=total)
        yield lambda: shown.advance(bar)


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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell), STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def show_facts(title: str, facts: Mapping[str, str], *, good: bool = True) -> None:
    """Print names and values in a frame."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(printable(value)))
    frame = "green" if good else "red"
    Console().print(Panel(table, title=title, title_align="left", border_style=frame, expand=False))


def counted(number: int, noun: str) -> str:
    """Write `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    r"""Write control characters and lone surrogates as escapes: `\x1b`, `\n`, `\udcff`."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
