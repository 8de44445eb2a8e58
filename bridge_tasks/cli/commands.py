"""The commands as they are typed: arguments, options, help. Each hands over to the module that does it.

Those are imported when a command runs: Celery and pydantic take most of a second, which `--help` should not.
"""
# ruff: noqa: PLC0415 - see above

from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bridge_tasks.cli.breaker_commands import breaker
from bridge_tasks.cli.cache_commands import cache
from bridge_tasks.cli.dead_commands import dead
from bridge_tasks.cli.operator_commands import AsJson, operator

app = typer.Typer(
    help="Hash, enrich and stamp files through Celery workers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: it fits 80 columns, and goes into any pager
    pretty_exceptions_enable=False,
)
app.add_typer(breaker)
app.add_typer(cache)
app.add_typer(dead)
app.add_typer(operator)

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


class Hashing(StrEnum):
    """Who computes the hashes of a run's files."""

    service = "service"
    local = "local"


Paths = Annotated[list[Path], typer.Argument(metavar="PATH", hidden=True)]
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
    float | None, typer.Option(metavar="SECONDS", min=0.001, help="For the whole run; default: no limit.")
]
JsonLines = Annotated[
    bool, typer.Option("--json-lines", help="Print a line of JSON for each file, and one for the run.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but what went wrong.")]
PoolOption = Annotated[Pool, typer.Option(metavar="POOL", help="The worker's pool: prefork, threads or solo.")]
DialectOption = Annotated[
    Dialect, typer.Option(metavar="DIALECT", help="How the services speak: service or guide.")
]
Port = typer.Option(metavar="PORT", min=0, max=65_535, help="0 takes a free one.")


class _TakesMore(TyperCommand):
    """A command that passes arguments on, and says how when one is typed as if it were its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # Typer has click's errors in a private package
                ctx.fail(f"{error}. Options of `celery worker` go after --: bridge-tasks worker -- -Q bridge.bulk")
            raise


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bridge-tasks {version('bridge-tasks')}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    files: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=1000, help="How many files to stamp.")] = 300,
    as_json: AsJson = False,
) -> None:
    """See it all work: stamp and validate 300 files.

    They are real files, and go through real workers, in a temporary directory. Starts a Redis, both sandbox
    services and a worker, and stops them again.
    """
    from bridge_tasks.cli.demo import demo as run

    raise typer.Exit(run(files, as_json=as_json))


@app.command()
def up(
    root: Annotated[Path, typer.Option(metavar="DIRECTORY", help="What jobs may read.")] = Path(),
    dialect: DialectOption = Dialect.service,
    pool: PoolOption = Pool.prefork,
    concurrency: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="Jobs that the worker does at a time.")
    ] = 2,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Start Flower, if it is installed.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the worker's log.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start everything that jobs need on this machine.

    Redis, both sandbox services, a worker and Flower run until Ctrl-C. Writes .bridge.env, so that commands typed
    in the same directory find them.
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
        metrics=True,
    )
    run(plan, as_json=as_json, verbose=verbose)


@app.command(cls=_TakesMore)
def worker(
    pool: PoolOption = Pool.prefork,
    concurrency: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="Jobs at a time; default: one per CPU.")
    ] = None,
    loglevel: Annotated[str | None, typer.Option(metavar="LEVEL", help="Default: BRIDGE_LOG__LEVEL.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="-- ARGUMENT", hidden=True)] = None,
) -> None:
    """Run a Celery worker on all our queues.

    Arguments after -- are those of `celery worker`.
    """
    import os

    from bridge_tasks.app import app as celery

    # Celery calls every worker of a machine the same; a name that is given comes later, and wins.
    options = {
        "--hostname": f"worker-{os.getpid()}@%h",
        "--pool": pool,
        "--concurrency": concurrency,
        "--loglevel": loglevel,
    }
    given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    celery.worker_main(["worker", *given, *(arguments or ())])


@app.command()
def stamp(
    paths: Paths,
    context: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What OnexTree is asked about; default: the PATH's name.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the stamps belong; default: the service's own.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do it for files that were stamped and have not changed, too.")
    ] = False,
    hashing: Annotated[
        Hashing, typer.Option(metavar="WHO", help="Who hashes: service, or local (the workers).")
    ] = Hashing.service,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Send the rest of a run; name the same PATHs as before.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="End when all is submitted; see `watch`.")] = False,
    correlation_id: CorrelationId = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
) -> None:
    """Hash, enrich and stamp files.

    A PATH is a file or a directory, of which version control, caches and environments are left out. They are one
    run, which goes on when this ends, by Ctrl-C too. Exits with 1 unless all succeeded.
    """
    from bridge_tasks.cli.file_runs import RunOptions
    from bridge_tasks.cli.signals import as_ctrl_c
    from bridge_tasks.cli.stamping import StampOptions
    from bridge_tasks.cli.stamping import stamp as run

    options = RunOptions(
        paths, include or (), exclude or (), namespace, correlation_id, timeout, as_json=as_json, quiet=quiet
    )
    with as_ctrl_c():
        raise typer.Exit(run(options, StampOptions(context, force, hashing.value, resume, detach, json_lines)))


@app.command()
def watch(
    run: Annotated[str | None, typer.Argument(metavar="RUN", hidden=True)] = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
) -> None:
    """Watch a run of `stamp`, by default the latest.

    Ctrl-C ends the watching, not the run. Exits with 1 unless all succeeded.
    """
    from bridge_tasks.cli.run_report import Manner
    from bridge_tasks.cli.signals import as_ctrl_c
    from bridge_tasks.cli.watching import watch as follow

    with as_ctrl_c():
        raise typer.Exit(follow(run, timeout, Manner(as_json, json_lines, quiet)))


@app.command()
def cancel(
    name: Annotated[str, typer.Argument(metavar="RUN|JOB", hidden=True)],
    as_json: AsJson = False,
) -> None:
    """Cancel a run or a job: what has not begun never will.

    Exits with 1 if it had ended before.
    """
    from bridge_tasks.cli.watching import cancel as stop

    raise typer.Exit(stop(name, as_json=as_json))


@app.command()
def validate(
    paths: Paths,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to look for stamps; default: everywhere.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    correlation_id: CorrelationId = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check files against their stamps.

    A PATH is a file or a directory. "No stamp" means: never stamped, or changed since. Exits with 1 unless all are
    valid.
    """
    from bridge_tasks.cli.file_runs import RunOptions
    from bridge_tasks.cli.validation import validate as run

    options = RunOptions(
        paths, include or (), exclude or (), namespace, correlation_id, timeout, as_json=as_json, quiet=quiet
    )
    raise typer.Exit(run(options))


@app.command()
def status(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="The id of a job or run, a correlation id, or a file.")
    ],
    as_json: AsJson = False,
) -> None:
    """Tell what became of a job, a run, a file, or all that has a correlation id.

    Exits with 0 if it is well, also while it goes on; with 1 if it failed or was cancelled; with 2 if nothing is
    known of it.
    """
    from bridge_tasks.cli.status import status as run

    raise typer.Exit(run(what, as_json=as_json))


@app.command()
def sandbox(
    dialect: DialectOption = Dialect.service,
    tree: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", exists=True, file_okay=False, help="What OnexTree indexes."),
    ] = None,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="SQLite, for the stamps; default: memory.")
    ] = None,
    metadata_port: Annotated[int, Port] = _METADATA_PORT,
    onextree_port: Annotated[int, Port] = _ONEXTREE_PORT,
    as_json: AsJson = False,
) -> None:
    """Run both sandbox services in the foreground.

    The first line tells where they are, as JSON in any case.
    """
    del as_json
    from bridge_tasks.cli.local_stack import require_sandbox
    from bridge_tasks.errors import ConfigurationError

    require_sandbox()
    from bridge_tasks.sandbox.__main__ import prepare, serve

    try:
        servers = prepare(dialect.value, tree, database, metadata_port=metadata_port, onextree_port=onextree_port)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the sandbox cannot start: {error}") from error
    serve(*servers)
