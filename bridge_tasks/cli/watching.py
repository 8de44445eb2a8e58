"""`bridge-tasks watch` and `bridge-tasks cancel`: look at a run that goes on without us, or end it.

Whoever watches may come late, leave, and come back: nothing here has any part in the run itself.
"""

import time
from collections.abc import Iterator

import redis

from bridge_tasks.bridge import Bridge
from bridge_tasks.cli.advice import about_unsealed
from bridge_tasks.cli.run_report import Manner, Told, identity, left, show
from bridge_tasks.cli.screen import Bars, bars, counted, say, show_json, show_lines
from bridge_tasks.cli.signals import interruption
from bridge_tasks.cli.silence import Silence
from bridge_tasks.errors import JobUnknown
from bridge_tasks.ledger import OVER
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.runs import Run
from bridge_tasks.runtime import current

_WORKING = "Stamping"
_MORE_MAY_COME = "All that was sent has ended, and more may come: the run was not submitted to its end yet."
_STOPPING_SECONDS = 3.0
"""For chunks that are worked on to notice that their run was cancelled."""


class Follower:
    """Shows how a run goes on, and says so where it does not.

    Args:
        shown: where.
        expected: files that are to be submitted, where that is known: by whoever submits them.
        silence: told what comes back.
    """

    def __init__(self, shown: Bars, expected: int = 0, *, silence: Silence | None = None) -> None:
        self.last: RunProgress | None = None
        self._bars = shown
        self._expected = expected
        self._silence = silence or Silence(say)

    def take(self, progress: RunProgress) -> None:
        """Take in how it stands now."""
        over = self.last.over if self.last else 0
        self.last = progress
        self._bars.show(_WORKING, progress.over, max(progress.total, self._expected))
        if progress.done:
            return
        results = progress.over - over
        if progress.waiting or not progress.unsealed:
            self._silence.heard(results)
        elif self._expected:
            self._silence.heard(1)  # nothing is out that could come back: we have not sent more yet
        else:
            self._silence.heard(results, known=f"{_MORE_MAY_COME} {about_unsealed(progress.id)}")

    def follow(self, run: Run, timeout: float | None) -> None:
        """Watch to the end, or until time is over."""
        try:
            for progress in run.watch(timeout, on_away=self._silence.away):
                self.take(progress)
        except (TimeoutError, redis.ConnectionError, redis.TimeoutError):
            pass

    def standing(self, run: Run) -> tuple[RunProgress, bool]:
        """Return how a run stands, or stood when Redis last answered; and whether it is out of reach now.

        Raises:
            redis.ConnectionError, redis.TimeoutError: it is, and nothing was known before.
        """
        try:
            return run.progress(), False
        except (redis.ConnectionError, redis.TimeoutError):
            if self.last is None:
                raise
            return self.last, True


def watch(name: str | None, timeout: float | None, manner: Manner) -> int:
    """Watch a run, by default the latest, and tell how it ended; returns the exit status.

    Raises:
        JobUnknown: there is no record of it.
    """
    run = Bridge().run(name or _latest())
    interrupted = 0
    began = time.time()
    with bars(quiet=manner.quiet) as shown:
        follower = Follower(shown)
        follower.take(run.progress())
        try:
            follower.follow(run, timeout)
        except KeyboardInterrupt as error:
            interrupted = interruption(error)
    progress, away = follower.standing(run)
    seconds = round((progress.ended or max(time.time(), began)) - progress.accepted, 3)
    return conclude(Told(run, progress, seconds=seconds, interrupted=interrupted, away=away), manner)


def conclude(told: Told, manner: Manner, *, resume: str | None = None) -> int:
    """Tell of a run that was watched, and how to see it again; returns the exit status.

    Args:
        told: the run.
        manner: how.
        resume: the command that submits the rest, where something was not sent.
    """
    show(told, manner)
    unfinished = left(told)
    for line in _hints(told, unfinished, resume):
        say(line)
    if unfinished or not manner.quiet:
        say(f"Correlation id: {told.run.correlation_id}")
    return told.interrupted or (0 if told.well else 1)


def _hints(told: Told, unfinished: str, resume: str | None) -> Iterator[str]:
    if unfinished:
        yield unfinished
        yield watch_hint(told.run)
    elif told.progress.state == "cancelled":
        yield "The run was cancelled."
    if resume is not None:
        yield f"To send the rest: {resume}"
    elif told.progress.unsealed:
        yield about_unsealed(told.run.id)


def watch_hint(run: Run) -> str:
    """Say how to see a run again."""
    return f"To watch it: bridge-tasks watch {run.id}"


def cancel(name: str, *, as_json: bool) -> int:
    """Cancel a run or a job; returns the exit status: 1 where there was nothing to cancel.

    Raises:
        JobUnknown: there is no record of it.
    """
    try:
        run = Bridge().run(name)
    except JobUnknown:
        return _cancel_job(name, as_json=as_json)
    done = run.cancel()
    if done:
        try:
            run.wait(_STOPPING_SECONDS)
        except TimeoutError:
            say("A worker has not noticed yet; `bridge-tasks watch` tells when it has.")
    told = Told(run, run.progress())
    if as_json:
        show_json({"stopped": done, "state": told.progress.state, **identity(told)})
    elif done:
        at = told.progress
        show_lines(f"Cancelled: {at.succeeded + at.failed} of {counted(at.total, 'file')} had been done.")
    else:
        show_lines(f"The run had ended before: {told.progress.state}.")
    return 0 if done else 1


def _cancel_job(name: str, *, as_json: bool) -> int:
    job = Bridge().job(name)
    done = job.state not in OVER and job.cancel()
    state = job.state
    if as_json:
        show_json({"stopped": done, "state": state, "job_id": name, "correlation_id": job.correlation_id})
    elif done:
        show_lines("Cancelled.")
    else:
        show_lines("A worker is at it: it goes on." if state == "running" else f"It had ended before: {state}.")
    return 0 if done else 1


def _latest() -> str:
    runtime = current()
    names = runtime.run(runtime.runs.listed(1))
    if not names:
        raise JobUnknown("there is no record of any run")
    return names[0]
