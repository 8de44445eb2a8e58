"""`bridge-tasks cache ...` as it is typed; the work is in `cli.cache`, which is imported when a command runs."""
# ruff: noqa: PLC0415 - see above: Celery and pydantic take most of a second, which `--help` should not

from pathlib import Path
from typing import Annotated

import typer

cache = typer.Typer(
    name="cache", help="Look at the answers that all workers share, and manage them.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@cache.command()
def stats(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing them, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show how often the cache answered, over all workers, since it was last cleared."""
    from bridge_tasks.cli.cache import stats as run

    run(interval=interval if watch else None, as_json=as_json)


@cache.command()
def clear(as_json: AsJson = False) -> None:
    """Forget every answer, and all counts."""
    from bridge_tasks.cli.cache import clear as run

    run(as_json=as_json)


@cache.command()
def invalidate(
    prefix: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Answers about what begins so; repeatable.")
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Answers given to jobs of this namespace; repeatable.")
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(help="get_intelligence, query_knowledge or navigate_tree; repeatable."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Answers asked for with this tag; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make some answers void, also those that are being asked for right now."""
    from bridge_tasks.cli.cache import invalidate as run

    tags = [
        *(tag or ()),
        *(f"namespace:{name}" for name in namespace or ()),
        *(f"operation:{name}" for name in operation or ()),
    ]
    run(tags, prefix or (), as_json=as_json)


@cache.command()
def warm(
    contexts: Annotated[
        list[str] | None, typer.Argument(metavar="[CONTEXT...]", help="What to ask about.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file with one context on each line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for intelligence ahead of time; without arguments, for what BRIDGE_ONEXTREE__WARM lists."""
    from bridge_tasks.cli.cache import warm as run

    raise typer.Exit(run(contexts or (), file, as_json=as_json))
