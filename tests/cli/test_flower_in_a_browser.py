"""Flower as an operator sees it, in a browser that runs its scripts: asserted is what somebody would read."""

import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from bridge_tasks.ledger import keys
from tests.cli.command import Up, eventually
from tests.needed import lacking

CHROMIUM = shutil.which("chromium")
ALONE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1400,700", "--virtual-time-budget=4000"),
)
"""Chromium that speaks to nobody but us, and ends before a page that renews itself has done so."""
UNSEEN = ("script", "style", "template", "head")
VOID = ("input", "br", "img", "meta", "link", "hr", "col", "source")


class Shown(HTMLParser):
    """What is written on a page: rows of tables as their cells, and the text of what has an id."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text = ""
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self._cell = False
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        self._open.append((tag, dict(attrs).get("id") or ""))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:  # HTML need not close what it opens
            continue
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        told = " ".join(data.split())
        if not told or any(tag in UNSEEN for tag, _ in self._open):
            return
        self.text += f" {told}"
        for _, name in self._open:
            if name:
                self.by_id[name] = f"{self.by_id.get(name, '')} {told}".strip()
        if self._cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {told}".strip()

    def row(self, *having: str) -> list[str]:
        """The one row in which all of `having` is written; empty if there is none, or more than one."""
        found = [row for row in self.rows if all(any(text in cell for cell in row) for text in having)]
        return found[0] if len(found) == 1 else []


Browse = Callable[[str], Shown]


@pytest.fixture
def browse(up: Up, tmp_path: Path) -> Browse:
    """Open a page; what is written there once its scripts have run."""
    if CHROMIUM is None:
        lacking("no Chromium: .ci/chromium installs it")

    def opened(path: str) -> Shown:
        return Shown(chromium(up, tmp_path, "--dump-dom", path))

    return opened


def chromium(up: Up, directory: Path, how: str, path: str) -> str:
    assert CHROMIUM
    told = up.addresses["flower"]
    address = told["url"].replace("http://", f"http://{told['user']}:{told['password']}@")
    command = [CHROMIUM, *ALONE, f"--user-data-dir={directory / 'profile'}", how, address + path]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def stamped(up: Up) -> str:
    """The correlation id of a run of one file that has ended well, and that no other test has."""
    name = f"browsed-{uuid4().hex[:8]}"
    up.write(f"{name}.md", f"{name}\n")
    ended = up.run("stamp", f"{name}.md", "--correlation-id", name)
    assert ended.status == 0, ended.err
    return name


def shown(browse: Browse, path: str, *having: str) -> list[str]:
    """The row of a page in which all of `having` is written; pages are opened anew until it is there."""
    rows: list[list[str]] = []

    def found() -> bool:
        rows.append(browse(path).row(*having))
        return bool(rows[-1])

    assert eventually(found, 45), browse(path).text
    return rows[-1]


def living(up: Up) -> list[str]:
    """The names of the workers that live, as the ledger knows them."""
    with redis.Redis.from_url(up.addresses["redis_url"]) as client:
        known = [name.decode() for name in client.smembers(keys.WORKERS)]
        found = [name.rpartition(":")[0] for name in known if client.exists(keys.WORKER + name)]
    assert found
    return found


def test_an_operator_sees_jobs(up: Up, stamped: str, browse: Browse, tmp_path: Path) -> None:
    row = shown(browse, "/tasks", stamped)
    assert row[0].startswith("bridge.")
    assert "SUCCESS" in row[1].upper()
    shot = tmp_path / "flower.png"
    chromium(up, tmp_path, f"--screenshot={shot}", "/tasks")
    assert shot.stat().st_size > 20_000, "an empty page is smaller"


def test_an_operator_sees_who_works_and_what_was_done(stamped: str, browse: Browse, up: Up) -> None:
    workers = living(up)
    rows = [shown(browse, "/workers", worker, "Online") for worker in workers]
    page = browse("/workers")
    titles = next(row for row in page.rows if {"Worker", "Status", "Processed"} <= set(row))
    assert page.by_id["workers-online"] == str(len(workers))
    assert int(page.by_id["workers-succeeded"]) >= 1, stamped
    assert sum(int(row[titles.index("Succeeded")]) for row in rows) >= 1


@pytest.mark.parametrize("queue", ["bridge.metadata", "bridge.onextree", "bridge.bulk"])
def test_an_operator_sees_what_waits_and_who_reads_it(queue: str, browse: Browse, up: Up) -> None:
    readers = str(len(living(up)))
    row = shown(browse, "/broker", queue, readers)
    assert browse("/broker").row("Waiting", "Oldest waits for", "Workers that read it")
    assert row == [queue, "0", "—", readers]


def test_an_operator_sees_how_bulk_runs_went(stamped: str, browse: Browse) -> None:
    page = browse("/runs")
    assert page.row("Run", "Correlation id", "Succeeded")
    assert "messages wait" in page.text
    title, cid, state, done, succeeded, failed, began, ended = shown(browse, "/runs", stamped)
    assert (cid, state, done, succeeded, failed) == (stamped, "succeeded", "1 of 1", "1", "0")
    assert title
    assert began <= ended
