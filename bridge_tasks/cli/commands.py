"""The commands as they are typed: arguments, options, help. Each hands over to the module that does it.

Those are imported when a command runs: Celery and pydantic take most of a second, which `--help` should not.
"""
# ruff: noqa: PLC0415 - see above

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Hash, enrich and stamp files through Celery workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_METADATA_PORT, _ONEXTREE_PORT, _FLOWER_PORT = 8053, 8058, 5555
"""Where people expect them. `up` takes free ones instead of those that are taken."""


class Dialect(StrEnum):
    """How the sandbox services speak."""

    service = "service"
    guide = "guide"


class Pool(StrEnum):
    """How a worker does several jobs at a time."""

    prefork = "prefork"
    threads = "threads"
    solo = "solo"


Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and directories.", show_default=False)]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Of directories, take only files that match; repeatable."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Of directories, leave out what matches; repeatable."),
]
CorrelationId = Annotated[str | None, typer.Option(metavar="ID", help="Finds the run in logs; default: new.")]
Timeout = Annotated[
    float | None, typer.Option(min=0.001, metavar="SECONDS", help="For the whole run; default: no limit.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but what went wrong.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Jobs that the worker does at a time.")]
DialectOption = Annotated[Dialect, typer.Option(help="How the services speak.")]


@app.command()
def demo(
    files: Annotated[int, typer.Option(min=1, max=1000, help="How many files to stamp.")] = 320,
    as_json: AsJson = False,
) -> None:
    """Stamp and validate real files through real workers, in a temporary directory.

    Starts a Redis, both sandbox services and a worker, and stops them again.
    """
    from bridge_tasks.cli.demo import demo as run

    raise typer.Exit(run(files, as_json=as_json))


@app.command()
def up(
    root: Annotated[Path, typer.Option(help="The directory that jobs may read.")] = Path(),
    dialect: DialectOption = Dialect.service,
    pool: Annotated[Pool, typer.Option(help="The worker's pool.")] = Pool.prefork,
    concurrency: Concurrency = 2,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Start Flower, if it is installed.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the worker's log.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start Redis, both sandbox services, a worker and Flower on this machine; Ctrl-C stops them.

    Writes .bridge.env, so that commands typed in the same directory find them.
    """
    from bridge_tasks.cli.local_stack import Plan
    from bridge_tasks.cli.up import up as run

    plan = Plan(
        root=root,
        dialect=dialect,
        pool=pool,
        concurrency=concurrency,
        metadata_port=_METADATA_PORT,
        onextree_port=_ONEXTREE_PORT,
        flower_port=_FLOWER_PORT if flower and find_spec("flower") else None,
    )
    run(plan, as_json=as_json, verbose=verbose)


@app.command()
def worker(
    pool: Annotated[Pool, typer.Option(help="How jobs are done side by side.")] = Pool.prefork,
    concurrency: Annotated[int | None, typer.Option(min=1, help="How many; default: one per CPU.")] = None,
    loglevel: Annotated[str | None, typer.Option(help="Default: BRIDGE_LOG__LEVEL.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENT...]", help="More arguments of `celery worker`.")
    ] = None,
) -> None:
    """Run a Celery worker on all our queues, in this process."""
    from bridge_tasks.app import app as celery

    options = {"--pool": pool, "--concurrency": concurrency, "--loglevel": loglevel}
    given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    celery.worker_main(["worker", *given, *(arguments or ())])


@app.command()
def stamp(
    paths: Paths,
    context: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What OnexTree is asked about; default: the PATH's name.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Where the stamps belong; default: the service's own.", show_default=False)
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    correlation_id: CorrelationId = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hash, enrich and stamp files, and those in directories; exits with 1 if any failed."""
    from bridge_tasks.cli.file_runs import RunOptions
    from bridge_tasks.cli.stamping import stamp as run

    options = RunOptions(
        paths, include or (), exclude or (), namespace, correlation_id, timeout, as_json=as_json, quiet=quiet
    )
    raise typer.Exit(run(options, context))


@app.command()
def validate(
    paths: Paths,
    namespace: Annotated[
        str | None, typer.Option(help="Where to look for stamps; default: everywhere.", show_default=False)
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    correlation_id: CorrelationId = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check files against their stamps; exits with 1 unless all are valid."""
    from bridge_tasks.cli.file_runs import RunOptions
    from bridge_tasks.cli.validation import validate as run

    options = RunOptions(
        paths, include or (), exclude or (), namespace, correlation_id, timeout, as_json=as_json, quiet=quiet
    )
    raise typer.Exit(run(options))


@app.command()
def health(as_json: AsJson = False) -> None:
    """Ask Redis, the workers and both services how they are; exits with 1 if anything is not well."""
    from bridge_tasks.cli.health import health as run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def sandbox(
    dialect: DialectOption = Dialect.service,
    tree: Annotated[Path | None, typer.Option(help="The directory that OnexTree indexes.")] = None,
    database: Annotated[Path | None, typer.Option(help="A SQLite file for the stamps; default: memory.")] = None,
    metadata_port: Annotated[int, typer.Option(min=0, max=65_535, help="Zero takes a free one.")] = _METADATA_PORT,
    onextree_port: Annotated[int, typer.Option(min=0, max=65_535, help="Zero takes a free one.")] = _ONEXTREE_PORT,
    as_json: AsJson = False,
) -> None:
    """Run both sandbox services in the foreground; the first line tells, as JSON in any case, where they are."""
    del as_json
    from bridge_tasks.cli.local_stack import require_sandbox

    require_sandbox()
    from bridge_tasks.sandbox.__main__ import main

    options = {
        "--dialect": dialect,
        "--tree": tree,
        "--database": database,
        "--metadata-port": metadata_port,
        "--onextree-port": onextree_port,
    }
    given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    raise typer.Exit(main(given))
