"""`bridge-tasks check`: what is wrong with this deployment, why that matters, and the line that puts it right."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bridge_tasks.app import app
from bridge_tasks.checking import Finding, Severity, found
from bridge_tasks.checking.gathering import gather
from bridge_tasks.cli.screen import counted, printable, say, show_json, show_lines
from bridge_tasks.settings import load

_STYLES = {Severity.FATAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def check(*, strict: bool, as_json: bool) -> int:
    """Show what is found; returns the exit status: 1 if anything is fatal.

    Args:
        strict: of warnings, too.
        as_json: print JSON.
    """
    settings = load()
    findings = found(gather(settings, app.conf), settings.check_accept)
    bad = {Severity.FATAL, Severity.WARNING} if strict else {Severity.FATAL}
    well = not bad.intersection(finding.severity for finding in findings)
    if as_json:
        show_json({"well": well, "findings": [asdict(one) for one in findings]})
    else:
        _show(findings)
    return 0 if well else 1


def _show(findings: Sequence[Finding]) -> None:
    console = Console()
    for finding in findings:
        console.print(Text(finding.severity.upper(), _STYLES[finding.severity]), Text(finding.id, "bold"))
        for line in (finding.what, finding.why):
            console.print(Padding(Text(printable(line)), (0, 0, 0, 2)))
        show_lines(f"  Fix: {finding.fix}")  # never wrapped: it is to be pasted
        console.print()
    if not findings:
        show_lines("Nothing is wrong with app, broker, results, Redis, services and content roots.")
        return
    counts = Counter(finding.severity for finding in findings)
    told = [
        counted(counts[severity], noun)
        for severity, noun in (
            (Severity.FATAL, "fatal finding"),
            (Severity.WARNING, "warning"),
            (Severity.NOTE, "note"),
        )
        if counts[severity]
    ]
    show_lines(", ".join(told))
    if counts[Severity.FATAL]:
        say("No worker starts like this; BRIDGE_CHECK=warn lets one start all the same.")
    if counts[Severity.WARNING]:
        say("To live with one: export BRIDGE_CHECK_ACCEPT=ID,ID")
