"""`bridge-tasks up`: a whole stack until Ctrl-C, found by every command in the same directory."""

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge_tasks.cli.env_file import env_file, refuse_taken
from bridge_tasks.cli.local_stack import Flower, LocalStack, Plan, local_stack, redis_answers
from bridge_tasks.cli.screen import say, show_facts, show_json, show_lines
from bridge_tasks.cli.signals import end_on_signals
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.settings import ENV_FILE

_LOOK_SECONDS = 0.5


def up(plan: Plan, *, as_json: bool, verbose: bool) -> None:
    """Start the stack, say where it is, and watch it until a signal ends this.

    Raises:
        ConfigurationError: there is a stack in this directory already, or something is not installed.
        ProcessFailed: a part of it does not start, or has ended.
    """
    file = Path(ENV_FILE)
    refuse_taken(file, redis_answers)
    end_on_signals()
    try:
        with local_stack(plan, os.environ) as stack, env_file(file, stack.variables):
            _tell_moved(stack, plan)
            _announce(stack, plan, as_json=as_json)
            _watch(stack, verbose=verbose)
    except (KeyboardInterrupt, SystemExit):  # how signals end this
        say("Stopped.")
        raise


def _announce(stack: LocalStack, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        show_json(_as_json(stack))
        return
    flower = stack.flower
    show_facts(
        "bridge_tasks is up",
        {
            "Redis": stack.redis_url,
            "MetadataStamping": stack.metadata_url,
            "OnexTree": stack.onextree_url,
            "Worker": f"{plan.pool}, {plan.concurrency} at a time",
            "Flower": flower.url if flower else "not started",
            **({"Flower login": f"{flower.user} / {flower.password}"} if flower else {}),
            "Metrics": stack.metrics_url or "not served",
            "Readable": stack.variables["BRIDGE_CONTENT__ROOTS"],
            "Stop": "Ctrl-C",
        },
    )
    show_lines(
        "",
        "Now try, in another terminal, in this directory:",
        "  bridge-tasks stamp . --include '*.md'",
        "  bridge-tasks health",
    )


def _tell_moved(stack: LocalStack, plan: Plan) -> None:
    """Say what is not where people expect it."""
    for name, wished, url in (
        ("MetadataStamping", plan.metadata_port, stack.metadata_url),
        ("OnexTree", plan.onextree_port, stack.onextree_url),
        ("Flower", plan.flower_port, stack.flower and stack.flower.url),
    ):
        if wished and url and urlsplit(url).port != wished:
            say(f"{wished} is taken: {name} is on {urlsplit(url).port}")


def _as_json(stack: LocalStack) -> dict[str, Any]:
    return {
        "redis_url": stack.redis_url,
        "metadata_url": stack.metadata_url,
        "onextree_url": stack.onextree_url,
        "metrics_url": stack.metrics_url,
        "flower": _flower_as_json(stack.flower) if stack.flower else None,
        "roots": [stack.variables["BRIDGE_CONTENT__ROOTS"]],
        "env_file": str(Path(ENV_FILE).absolute()),
        "worker_pid": stack.worker.pid,
    }


def _flower_as_json(flower: Flower) -> dict[str, str]:
    return {"url": flower.url, "user": flower.user, "password": flower.password}


def _watch(stack: LocalStack, *, verbose: bool) -> None:
    followed = _Follower(stack.worker)
    while True:
        stack.check()
        if verbose:
            followed.show()
        time.sleep(_LOOK_SECONDS)


class _Follower:
    """Shows what is new in a process's log."""

    def __init__(self, process: LocalProcess) -> None:
        self._log = process.log
        self._position = 0

    def show(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._position)
            for line in log.read().decode(errors="replace").splitlines():
                say(line)
            self._position = log.tell()
