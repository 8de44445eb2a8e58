"""`bridge-tasks breaker ...` as it is typed; the work is in `cli.breaker`, imported when a command runs."""
# ruff: noqa: PLC0415 - see above: Celery and pydantic take most of a second, which `--help` should not

from typing import Annotated

import typer

breaker = typer.Typer(
    name="breaker",
    help="Look at the circuit breakers that all workers share, and work them.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Argument(help="metadata, onextree, or the name of a circuit.")]


@breaker.command(name="list")
def show(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing them, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show every circuit: its state, since when and why, and its counts."""
    from bridge_tasks.cli.breaker import show as run

    run(interval=interval if watch else None, as_json=as_json)


@breaker.command(name="open")
def open_(
    name: Name,
    recover: Annotated[
        bool, typer.Option("--recover", help="Let it try again after recovery_timeout, as after any opening.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open a circuit: no worker calls the service until `reset`."""
    from bridge_tasks.cli.breaker import work

    work([name], "open" if recover else "hold", as_json=as_json)


@breaker.command()
def close(
    name: Name,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it closed until `reset`, whatever fails.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close a circuit: workers call the service at once."""
    from bridge_tasks.cli.breaker import work

    work([name], "disable" if hold else "reset", as_json=as_json)


@breaker.command()
def reset(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Close circuits, release them from what people ordered, and begin to count anew."""
    from bridge_tasks.cli.breaker import work

    work(names or [], "reset", as_json=as_json)
