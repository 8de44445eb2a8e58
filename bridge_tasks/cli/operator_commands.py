"""What an operator types to see how it all is; each command hands over to the module that looks."""
# ruff: noqa: PLC0415 - Celery and pydantic take most of a second, which `--help` should not

from pathlib import Path
from typing import Annotated

import typer

from bridge_tasks.pulse import SILENCE

operator = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]


@operator.command()
def health(as_json: AsJson = False) -> None:
    """Ask Redis, workers and services how they are.

    Exits with 1 if anything is not well.
    """
    from bridge_tasks.cli.health import health as run

    raise typer.Exit(run(as_json=as_json))


@operator.command()
def probe(
    file: Annotated[
        Path, typer.Option(metavar="FILE", envvar="BRIDGE_WORKER__PULSE", help="Where the worker gives its pulse.")
    ],
    alive: Annotated[
        bool, typer.Option("--alive", help="Be content if it lives, whether or not it consumes.")
    ] = False,
    silence: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How old the pulse may be; it comes every second.")
    ] = SILENCE,
    as_json: AsJson = False,
) -> None:
    """Tell whether the worker on this machine consumes.

    For an engine that restarts containers. Exits with 0 if it does, with 1 if not.
    """
    from bridge_tasks.cli.probe import probe as run

    raise typer.Exit(run(file, alive=alive, silence=silence, as_json=as_json))


@operator.command()
def metrics(
    targets: Annotated[
        bool, typer.Option("--targets", help="Tell where workers serve theirs, for Prometheus's file_sd.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what the ledger tells of the whole fleet, as Prometheus reads it.

    What each worker counted is at its own /metrics (BRIDGE_METRICS__PORT); --targets tells where. Exits with 1 if
    the ledger does not answer.
    """
    from bridge_tasks.cli.metrics import metrics as run

    raise typer.Exit(run(targets=targets, as_json=as_json))


@operator.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="Between two looks.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """See the whole fleet on one screen: what waits, what fails, why, since when, for whom, and what to do.

    Costs two round trips to Redis for each look. Ctrl-C ends it.
    """
    from bridge_tasks.cli.top import top as run

    raise typer.Exit(run(interval=interval, once=once, as_json=as_json))


@operator.command()
def check(
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look over app, broker, results, Redis, services and content roots.

    Each finding says why it matters and how to put it right. Workers do the same when they start. Exits with 1 if
    one is fatal.
    """
    from bridge_tasks.cli.check import check as run

    raise typer.Exit(run(strict=strict, as_json=as_json))
