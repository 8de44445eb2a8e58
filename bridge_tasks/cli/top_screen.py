"""The screen of `bridge-tasks top`: failing things first, in words, within 80 columns. Pure.

It is cut to the terminal's height: what is least urgent goes first, and no line wraps.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from bridge_tasks.cli.concerns import concerns, lasts, reason, told_state
from bridge_tasks.cli.moments import ago, lasting
from bridge_tasks.cli.pace import Pace
from bridge_tasks.cli.screen import counted, printable, shortened
from bridge_tasks.cli.status import told_error
from bridge_tasks.ledger import DeadLetter
from bridge_tasks.ledger.overview import LedgerOverview, Told
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.overview import Overview
from bridge_tasks.resilience.policy.breaker import Cause, Circuit, CircuitState

_RECENT = 600.0
"""Seconds for which a run that ended is shown."""
_WORKERS = 3

Lines = list[Text]


def screen(seen: Overview, before: Overview | None, *, title: str, width: int, height: int | None) -> Group:
    """Lay it out.

    Args:
        seen: what is shown.
        before: an earlier look, for rates.
        title: at the top.
        width: columns.
        height: lines; None for as many as there are.
    """
    pace = Pace(before, seen)
    found = concerns(seen)
    state = Text(" ALL WELL ", "black on green") if not found else Text(" LOOK AT THIS ", "white on red")
    head = Text(title, "bold")
    head.pad_right(max(1, width - cell_len(title) - cell_len(state.plain)))
    head.append_text(state)
    fixed: list[Lines] = [[head]]
    shrinking: list[list[Lines]] = [
        [[_line(concern.what, "red" if concern.bad else "yellow"), _hint(concern.do)] for concern in found]
    ]
    if seen.ledger is not None:
        fixed.append([*_queues(seen, seen.ledger), *_services(seen, pace), *_rest(seen)])
        shrinking += [
            [_failure(told, seen.ledger, width) for told in seen.ledger.failures],
            [_run(run, seen.ledger, pace) for run in _shown_runs(seen.ledger)],
            [_oldest(told, seen.ledger, width) for told in seen.ledger.oldest],
        ]
    headings = ("", "Failed last", "Runs", "Not ended, oldest first")
    room = None if height is None else height - sum(map(len, fixed))
    kept = _fitting([(bool(heading), blocks) for heading, blocks in zip(headings, shrinking, strict=False)], room)
    parts = [_headed(heading, blocks) for heading, blocks in zip(headings, kept, strict=False)]
    lines = [*fixed[0], *parts[0], *(line for part in fixed[1:] for line in part)]
    lines += [line for part in parts[1:] for line in part]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _queues(seen: Overview, ledger: LedgerOverview) -> Lines:
    rows = [
        (
            queue.name,
            str(queue.depth),
            str(max(0, ledger.open.get(queue.name, 0) - queue.depth)),
            lasting(queue.oldest_seconds) if queue.oldest_seconds is not None else "-",
        )
        for queue in seen.health.queues
    ]
    heading = _line(f"{'Queue':<20}{'Waiting':>9}{'Under way':>12}{'Oldest waits':>15}", "bold")
    return [heading, *(_line(f"{name:<20}{depth:>9}{work:>12}{old:>15}") for name, depth, work, old in rows)]


def _services(seen: Overview, pace: Pace) -> Lines:
    lines = [_line("Service", "bold")]
    for service, circuit in seen.circuits.items():
        if circuit is None:
            lines.append(_line(f"{service:<12}unknown: the shared Redis does not answer", "yellow"))
            continue
        words = _treated(circuit, pace.of_calls(service, circuit), seen.taken)
        style = {CircuitState.CLOSED: "", CircuitState.HALF_OPEN: "yellow"}.get(circuit.state, "red")
        lines.append(_line(f"{service:<12}{words}", style))
    return lines


def _treated(circuit: Circuit, calls: tuple[float, float] | None, now: float) -> str:
    if circuit.cause is Cause.NEW and not circuit.total_calls:
        return "not called yet"
    words = f"{told_state(circuit)} for {lasting(lasts(circuit, now))}"
    if circuit.state is not CircuitState.CLOSED:
        words += f": {reason(circuit)}"
    if calls is None:
        return words
    speed, failing = calls
    return (
        f"{words}, {speed:.{0 if speed >= 1 else 1}f} calls/s, {failing:.0%} fail" if speed else f"{words}, idle"
    )


def _rest(seen: Overview) -> Iterator[Text]:
    if seen.health.workers is not None:
        names = seen.health.workers
        more = f" and {len(names) - _WORKERS} more" if len(names) > _WORKERS else ""
        listed = f": {', '.join(names[:_WORKERS])}{more}" if names else ""
        yield _line(f"{'Workers':<12}{len(names)}{listed}", "" if names else "red")
    if seen.cache is not None:
        kept = f"{seen.cache.size} of {seen.cache.max_size} answers"
        yield _line(f"{'Cache':<12}{kept}, {seen.cache.hit_rate:.0%} of questions answered from it")


def _failure(told: Told, ledger: LedgerOverview, width: int) -> Lines:
    record = told.record
    error = DeadLetter(record, kept=False).error
    tries = f", after {counted(record.runs, 'run')}" if record.runs else ""
    when = f"{ago(ledger.now - (record.ended or ledger.now))}{tries}"
    return [
        _about(told, when, width),
        _line(f"  {told_error(error)}", "red"),
        _way_on(told, f"bridge-tasks dead show {record.id}", width),
    ]


def _oldest(told: Told, ledger: LedgerOverview, width: int) -> Lines:
    record = told.record
    since = record.begun if record.state == "running" else record.queued
    when = f"{record.state} for {lasting(ledger.now - (since or record.accepted))}"
    if record.state == "running" and told.worker:
        when += f" at {told.worker}"
    return [_about(told, when, width), _way_on(told, f"bridge-tasks status {record.id}", width)]


def _about(told: Told, when: str, width: int) -> Text:
    """Say what a job does, about what, and how it stands: of a long path, its end."""
    task, subject = printable(told.record.task.removeprefix("bridge.")), printable(told.record.subject)
    line = Text(f"{task} ", "cyan")
    line.append_text(shortened(subject, max(8, width - len(task) - len(when) - 4)))
    return line.append(f"  {printable(when)}")


def _way_on(told: Told, instead: str, width: int) -> Text:
    """Say for whom it is, and what to type: by the correlation id, which says both, where there is one."""
    space = f"  in {printable(told.namespace)}: " if told.namespace else "  "
    typed = f"bridge-tasks status {printable(told.record.correlation_id)}"
    short = told.record.correlation_id and len(space) + len(typed) <= width
    return _line(f"{space}{typed if short else instead}", "dim")


def _shown_runs(ledger: LedgerOverview) -> list[RunProgress]:
    return [run for run in ledger.runs if not run.done or ledger.now - (run.ended or 0.0) < _RECENT]


def _run(run: RunProgress, ledger: LedgerOverview, pace: Pace) -> Lines:
    share = " so far" if run.unsealed else f" ({run.over / run.total:.0%})" if run.total else ""
    words = f"{run.state}, {run.over} of {run.total}{share}"
    if run.failed:
        words += f", {run.failed} failed"
    speed = pace.of_run(run)
    if run.ended:
        words += f", ended {ago(ledger.now - run.ended)}"
    elif speed:
        words += f", {speed:.0f}/s, {lasting(run.waiting / speed)} left"
    title = f"{run.title} in {run.options.namespace}" if run.options else run.title
    style = "red" if run.failed else ""
    return [_line(f"{printable(title)}: {words}", style), _hint(f"bridge-tasks watch {run.id}")]


def _line(words: str, style: str = "") -> Text:
    return Text(printable(words), style)


def _hint(command: str) -> Text:
    return Text(f"  {command}", "dim")


def _headed(heading: str, blocks: Sequence[Lines]) -> Lines:
    lines = [line for block in blocks for line in block]
    return [_line(heading, "bold"), *lines] if heading and lines else lines


def _fitting(sections: Sequence[tuple[bool, Sequence[Lines]]], room: int | None) -> list[list[Lines]]:
    """Keep of each section what fits: first one block of each, in order, then more of each in turn."""
    kept: list[list[Lines]] = [[] for _ in sections]
    depth = 0
    while any(depth < len(blocks) for _, blocks in sections):
        for mine, (headed, blocks) in zip(kept, sections, strict=True):
            if depth >= len(blocks) or len(mine) < depth:
                continue
            cost = len(blocks[depth]) + (headed and not mine)
            if room is not None:
                if cost > room:
                    continue
                room -= cost
            mine.append(blocks[depth])
        depth += 1
    return kept
