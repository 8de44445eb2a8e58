"""`bridge-tasks dead`: what failed for good, seen, sent again or forgotten. It acts on what was named, no more."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bridge_tasks.cli.advice import about_failure
from bridge_tasks.cli.moments import ago, clock, moment
from bridge_tasks.cli.screen import counted, printable, say, show_facts, show_json, show_lines
from bridge_tasks.cli.status import plain_of, told_error
from bridge_tasks.errors import InvalidRequest, JobUnknown
from bridge_tasks.ledger import DeadLetter
from bridge_tasks.ledger.dead import Wanted, queue_of
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.runtime import Runtime, current


def wanted(
    *,
    task: str | None,
    error: str | None,
    correlation_id: str | None,
    queue: str | None,
    about: str | None,
    since: str | None,
    until: str | None,
) -> Wanted:
    """Read the filters as they were typed.

    Raises:
        InvalidRequest: one of them cannot be read.
    """
    now = time.time()
    return Wanted(
        task=task,
        error=error,
        correlation_id=correlation_id,
        queue=queue,
        subject=about,
        since=moment(since, "--since", now),
        until=moment(until, "--until", now),
    )


def show_list(which: Wanted, limit: int, *, as_json: bool) -> None:
    """Show dead letters, latest first."""
    runtime = current()
    letters = runtime.run(runtime.ledger.dead(limit, which))
    count = runtime.run(runtime.ledger.dead_count())
    if as_json:
        show_json({"count": count, "dead": [_plain(letter) for letter in letters]})
        return
    now = _now(runtime)
    console = Console()
    for letter in letters:
        _show_block(console, letter, now)
        console.print()
    of_all = f" of {count}" if count != len(letters) else ""
    show_lines(f"{counted(len(letters), 'dead letter')}{of_all}")
    if letters:
        say("bridge-tasks dead show ID tells more; dead replay ID sends it again, dead drop ID forgets it.")


def show_one(name: str, *, as_json: bool) -> None:
    """Show all of one.

    Raises:
        JobUnknown: there is none with this id.
    """
    runtime = current()
    letter = runtime.run(runtime.ledger.dead_letter(name))
    if letter is None:
        raise JobUnknown(f"there is no dead letter {name} (bridge-tasks dead list)")
    namespace = runtime.run(runtime.ledger.namespace(name))
    if as_json:
        show_json({**_plain(letter), "namespace": namespace or None})
        return
    record, now = letter.record, _now(runtime)
    facts = {
        "What": record.task,
        **({"About": record.subject} if record.subject else {}),
        "Error": told_error(letter.error),
        "Runs": str(record.runs),
        "Failed": f"{clock(record.ended or 0.0)} ({ago(now - (record.ended or now))})",
        "Accepted": clock(record.accepted),
        "Queue": queue_of(record.queue) or "",
        "Correlation id": record.correlation_id,
        **({"Namespace": namespace} if namespace else {}),
        **({"Step of": record.job} if record.job not in (None, record.id) else {}),
        "What to do": about_failure(letter.error, letter),
    }
    show_facts(f"Dead letter {record.id}", facts, good=False)


def act(order: str, names: Sequence[str], which: Wanted, limit: int, *, all_of_them: bool, as_json: bool) -> int:
    """Replay or drop dead letters; returns the exit status: 1 where some could not be.

    Args:
        order: `replay` or `drop`.
        names: ids; none for those that are meant by the filters.
        which: the filters.
        limit: at most so many, latest first.
        all_of_them: that no filter is given is no slip.
        as_json: print JSON.

    Raises:
        InvalidRequest: nothing says which.
    """
    if bool(names) == (which != Wanted() or all_of_them):
        raise InvalidRequest(f"dead {order}", "name ids, or say which by filters, or say --all; one of these")
    runtime = current()
    ledger = runtime.ledger
    if not names:
        names = [letter.record.id for letter in runtime.run(ledger.dead(limit, which))]
    done = [name for name in names if runtime.run(ledger.replay(name) if order == "replay" else ledger.drop(name))]
    refused = {name: _why_not(runtime, name, order) for name in names if name not in set(done)}
    told = "replayed" if order == "replay" else "dropped"
    if as_json:
        show_json({told: done, "refused": refused})
    else:
        for name, why in refused.items():
            show_lines(f"{name}: {why}")
        left = runtime.run(ledger.dead_count())
        show_lines(f"{counted(len(done), 'dead letter')} {told}, {left} left")
        if len(names) == limit:
            say(f"There may be more: at most {limit} at a time (--limit).")
    return 1 if refused else 0


def _why_not(runtime: Runtime, name: str, order: str) -> str:
    letter = runtime.run(runtime.ledger.dead_letter(name))
    if letter is None:
        return "is no dead letter" if order == "drop" else "is no dead letter, or was replayed already"
    if order == "drop":
        return "was dropped already"
    return about_failure(letter.error, letter) if not letter.replayable else "was replayed by somebody else"


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {**plain_of(letter.record), "replayable": letter.replayable}


def _show_block(console: Console, letter: DeadLetter, now: float) -> None:
    record = letter.record
    head = Text(record.id, "bold")
    head.append(f"  {printable(record.task.removeprefix('bridge.'))}", "cyan")
    head.append(f"  {ago(now - (record.ended or now))}", "")
    head.append(f"  {counted(record.runs, 'run')}" if record.runs else "")
    console.print(head)
    if record.subject:
        console.print(Padding(Text(printable(record.subject), overflow="fold"), (0, 0, 0, 2)))
    console.print(Padding(Text(printable(told_error(letter.error)), "red", overflow="fold"), (0, 0, 0, 2)))


def _now(runtime: Runtime) -> float:
    return runtime.run(runtime.ledger.now()) / MICROSECONDS
