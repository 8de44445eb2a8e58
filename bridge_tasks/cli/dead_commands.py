"""`bridge-tasks dead ...` as it is typed; the work is in `cli.dead`, which is imported when a command runs."""
# ruff: noqa: PLC0415 - see above: Celery and pydantic take most of a second, which `--help` should not

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

dead = typer.Typer(
    name="dead", help="Look at what failed for good, send it again, or forget it.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Which; or say so by the filters below.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Limit = Annotated[int, typer.Option(metavar="NUMBER", min=1, max=100_000, help="At most so many, latest first.")]


def _filters(
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Of this task; a pattern (create_*).")] = None,
    error: Annotated[
        str | None, typer.Option(metavar="TYPE", help="That failed with this error, or one below it.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", metavar="ID", help="With this correlation id.")
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="From this queue.")] = None,
    about: Annotated[str | None, typer.Option(metavar="GLOB", help="About what matches: '*/docs/*.md'.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="That failed since: 10m, 2h, 1d, or a date.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="That failed before.")] = None,
) -> Any:
    """Read which dead letters are meant."""
    from bridge_tasks.cli.dead import wanted

    return wanted(
        task=task, error=error, correlation_id=correlation_id, queue=queue, about=about, since=since, until=until
    )


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters as options of its own, where it takes what they mean: `which`."""
    filters = signature(_filters).parameters
    own = signature(command)

    @wraps(command)
    def typed(**given: Any) -> None:
        which = _filters(**{name: given.pop(name) for name in filters})
        command(which=which, **given)

    parameters: list[Parameter] = []
    for parameter in own.parameters.values():
        parameters += filters.values() if parameter.name == "which" else [parameter]
    typed.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined] # where Typer looks
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


@dead.command(name="list")
@_filtered
def list_(which: Any = None, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show dead letters, latest first, and why each failed."""
    from bridge_tasks.cli.dead import show_list

    show_list(which, limit, as_json=as_json)


@dead.command()
def show(name: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show all of one dead letter, and what to do about it."""
    from bridge_tasks.cli.dead import show_one

    show_one(name, as_json=as_json)


@dead.command()
@_filtered
def replay(
    ids: Ids = None, which: Any = None, all_of_them: All = False, limit: Limit = 1000, as_json: AsJson = False
) -> None:
    """Send dead letters again.

    They keep their ids and correlation ids, and the jobs that failed because of them go on from there.

    Exits with 1 if one of them could not be sent.
    """
    from bridge_tasks.cli.dead import act

    raise typer.Exit(act("replay", ids or (), which, limit, all_of_them=all_of_them, as_json=as_json))


@dead.command()
@_filtered
def drop(
    ids: Ids = None, which: Any = None, all_of_them: All = False, limit: Limit = 1000, as_json: AsJson = False
) -> None:
    """Forget dead letters.

    They cannot be replayed then; `status` still tells how they ended.

    Exits with 1 if one of them was none.
    """
    from bridge_tasks.cli.dead import act

    raise typer.Exit(act("drop", ids or (), which, limit, all_of_them=all_of_them, as_json=as_json))
