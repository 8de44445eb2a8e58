"""`bridge-tasks stamp`: hash, enrich and stamp files as one bulk run, and tell which stand.

What was submitted goes on without us: this watches, and says how to come back.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis
from kombu.exceptions import OperationalError

from bridge_tasks import correlation, runs, workflows
from bridge_tasks.chunking import CHUNK_FILES, BulkRun, Source
from bridge_tasks.cli.file_runs import RunOptions
from bridge_tasks.cli.files import Found, expand
from bridge_tasks.cli.roots import require_roots, why_refused
from bridge_tasks.cli.run_report import Manner, Names, Told
from bridge_tasks.cli.screen import Bars, bars, counted, printable, say, show_json
from bridge_tasks.cli.signals import interruption
from bridge_tasks.cli.watching import Follower, conclude, watch_hint
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.models.fields import Hashing
from bridge_tasks.models.requests import DEFAULT_NAMESPACE
from bridge_tasks.runs import Run

_TITLE = "stamp"
_SUBMITTING = "Submitting"
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class StampOptions:
    """What `stamp` takes besides the options of every command over files; the words are those of its `--help`."""

    context: str | None = None
    force: bool = False
    hashing: Hashing = "service"
    resume: str | None = None
    detach: bool = False
    json_lines: bool = False
    chunk_files: int = CHUNK_FILES


def stamp(options: RunOptions, own: StampOptions) -> int:
    """Stamp the files; returns the exit status.

    Raises:
        ConfigurationError: jobs may read nothing here.
        InvalidRequest: an option is wrong, or a directory cannot be read; nothing was sent.
    """
    manner = Manner(options.as_json, own.json_lines, options.quiet)
    told = submit_and_watch(options, own)
    if told is None:
        return 1
    unsent = told.total > told.progress.total or told.progress.unsealed
    if own.detach and not told.interrupted and not unsent:
        return _detach(told, manner)
    return conclude(told, manner, resume=_resume_command(told.run, options, own) if unsent else None)


def submit_and_watch(options: RunOptions, own: StampOptions) -> Told | None:
    """Submit the files as a run and watch it; None where there are none."""
    given = options.correlation_id
    with correlation.bound(correlation.ensure() if given is None else given):
        require_roots(options.paths)
        plan = _plan(options, own)
        # Looked through once before anything is sent: a directory that cannot be read is found out now.
        expected = sum(1 for _ in _expanded(options))
        if not expected:
            say("No files found.")
            return None
        began = time.monotonic()
        with bars(quiet=options.quiet) as shown:
            watching = _Watching(shown, expected, options, own)
            with _how_to_go_on(watching, options, own):
                watching.submit_and_follow(plan)
        if watching.run is None:
            raise TimeoutError("the time was over before anything was sent")
        progress, away = watching.follower.standing(watching.run)
        return Told(
            watching.run,
            progress,
            Names(options.paths),
            expected,
            round(time.monotonic() - began, 3),
            interrupted=watching.interrupted,
            away=away,
        )


def _plan(options: RunOptions, own: StampOptions) -> BulkRun:
    def about(source: Source) -> str:
        argument = source.argument if isinstance(source, Found) else Path()
        return f"stamp {printable(argument.resolve().name) or '/'}"

    def explain(error: InvalidRequest, source: Source) -> str:
        return why_refused(error, source.path) if isinstance(source, Found) else str(error)

    plan = workflows.stamp_files(
        _expanded(options),
        context=about if own.context is None else own.context,
        namespace=DEFAULT_NAMESPACE if options.namespace is None else options.namespace,
        hashing=own.hashing,
        force=own.force,
        chunk_files=own.chunk_files,
        title=_TITLE,
    )
    return replace(plan, explain=explain)


def _expanded(options: RunOptions) -> Iterator[Found]:
    return expand(options.paths, options.include, options.exclude)


class _Watching:
    """Submits a run and follows it, until its end, the end of time, or Ctrl-C."""

    def __init__(self, shown: Bars, expected: int, options: RunOptions, own: StampOptions) -> None:
        self.run: Run | None = None
        self.interrupted = 0
        self._bars = shown
        self._expected = expected
        self._resume = own.resume
        self._detach = own.detach
        self._ends = None if options.timeout is None else time.monotonic() + options.timeout
        self.follower = Follower(shown, expected)
        self._looked = 0.0

    def submit_and_follow(self, plan: BulkRun) -> None:
        try:
            run = runs.submit(plan, resume=self._resume, on_chunk=self._submitted)
            self._bars.hide(_SUBMITTING)
            if not self._detach:
                self.follower.follow(run, None if self._ends is None else max(0.0, self._ends - time.monotonic()))
        except KeyboardInterrupt as error:
            self.interrupted = interruption(error)
            if self.run is None:
                raise  # nothing was begun that could be told of
        except TimeoutError:
            pass

    def _submitted(self, run: Run, files: int) -> None:
        self.run = run
        self._bars.show(_SUBMITTING, files, self._expected)
        now = time.monotonic()
        if self._ends is not None and now > self._ends:
            raise TimeoutError
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self.follower.take(run.progress())


@contextmanager
def _how_to_go_on(watching: _Watching, options: RunOptions, own: StampOptions) -> Iterator[None]:
    """Where Redis goes away in the midst of it, say how to go on once it is back."""
    try:
        yield
    except (OperationalError, redis.RedisError):
        if watching.run is not None:
            say(f"To go on: {_resume_command(watching.run, options, own)}")
        raise


def _detach(told: Told, manner: Manner) -> int:
    if manner.as_json or manner.json_lines:
        ids = {"correlation_id": told.run.correlation_id, "run_id": told.run.id}
        show_json({**ids, "total": told.progress.total})
        return 0
    say(f"{counted(told.progress.total, 'file')} submitted as run {told.run.id}.")
    say(watch_hint(told.run))
    return 0


def _resume_command(run: Run, options: RunOptions, own: StampOptions) -> str:
    """What to type to send the rest: the same files and options, as the record of the run knows the others."""
    named = [
        ("--context", own.context),
        ("--namespace", options.namespace),
        *(("--include", glob) for glob in options.include),
        *(("--exclude", glob) for glob in options.exclude),
    ]
    words = [part for name, value in named if value is not None for part in (name, value)]
    return shlex.join(["bridge-tasks", "stamp", "--resume", run.id, *words, *map(str, options.paths)])
