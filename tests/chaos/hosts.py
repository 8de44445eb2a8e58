"""Workers on two hosts, one of which is cut off in the middle of jobs and comes back: `unshare --net` this module.

Redis, both services and the submitter are in the centre. It ends in a line of JSON: how all jobs stand, what was
done how often, who was seen to work, and what is left over. It judges nothing but what `soak` judges.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import redis

from bridge_tasks.bridge import Bridge
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import find_server
from tests.chaos.campaign import Accepted
from tests.chaos.network import CENTRE, Host, network
from tests.chaos.sides import Ours, Services, command, inherited
from tests.chaos.soak import judge, leftovers, settled, submitting

BEFORE, MEANWHILE, AFTER = 30, 10, 30
"""Jobs that are submitted before one host is cut off, while it is, and when it is back."""

SECONDS = 0.3
"""What a service takes for an answer: long enough that somebody is in the middle of something."""

_PORT = 6379
_PASSWORD = "no-worker-starts-on-an-open-redis"
_PATIENCE = 90.0


def main() -> None:
    """Set up, cut off, reconnect, and tell."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="bridge-hosts-"))
        hosts = stack.enter_context(network(["north", "south"], directory))
        url = _redis(stack, directory)
        services = _services(stack, directory, url)
        stack.enter_context(submitting(Ours(), services))
        workers = {host.name: _worker(stack, host, pool, services, directory) for host, pool in _pools(hosts)}
        print(json.dumps(_told(hosts[0], workers, services)), flush=True)  # noqa: T201 - the test reads it


def _told(north: Host, workers: dict[str, LocalProcess], services: Services) -> dict[str, Any]:
    both = sorted(f"{name}@{name}" for name in workers)
    until("both are seen", lambda: _seen() == both)
    accepted = _submit(services, 0, BEFORE)
    held = f"bridge:unacked:{north.name}@*"
    with redis.Redis.from_url(services.redis["BRIDGE_REDIS_URL"]) as client:
        until("the one that is cut off is in the middle of jobs", lambda: list(client.scan_iter(held)))
        north.cut_off()
        began = time.monotonic()
        accepted += _submit(services, BEFORE, MEANWHILE)
        until("it is known to be gone", lambda: _seen() == ["south@south"])
        gone = time.monotonic() - began
        until("what it held is given back", lambda: not list(client.scan_iter(held)))
        states = settled(Ours(), accepted, _PATIENCE)
        alone = time.monotonic() - began
        ended_before = _succeeded(workers["north"])
        north.reconnect()
        began = time.monotonic()
        until("it is seen again", lambda: _seen() == both)
        returned = time.monotonic() - began
    later = _submit(services, BEFORE + MEANWHILE, AFTER)
    states |= settled(Ours(), later, _PATIENCE)
    accepted += later
    verdict = judge(accepted, states, _effects(services))
    shown = _top()
    heard = _circuit_is_heard_by(workers)
    for worker in workers.values():
        worker.send_signal(signal.SIGTERM)
    for worker in workers.values():
        worker.wait(60)
    verdict.leftovers = leftovers()
    return {
        **asdict(verdict),
        "accepted": len(accepted),
        "gone_after": round(gone, 1),
        "done_without_it_after": round(alone, 1),
        "back_after": round(returned, 1),
        "done_by_it_since": _succeeded(workers["north"]) - ended_before,
        "top": shown,
        "paused_on": heard,
    }


def _submit(services: Services, first: int, count: int) -> list[Accepted]:
    files = [services.files / f"{number:03}" for number in range(first, first + count)]
    for file in files:
        file.write_text(f"file {file.name}")
    works = Ours().works("single", files)
    return [
        Accepted(name, "single", str(file)) for work, file in zip(works, files, strict=True) for name in work()
    ]


def _seen() -> list[str]:
    """Who works, as anybody is told who asks."""
    return sorted(Bridge().health().workers or ())


def _top() -> list[str]:
    """Who works, as `bridge-tasks top` shows it."""
    import subprocess  # noqa: PLC0415 - for this alone

    shown = subprocess.run(
        [sys.executable, "-m", "bridge_tasks.cli", "top", "--once", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(json.loads(shown.stdout)["workers"])


def _circuit_is_heard_by(workers: dict[str, LocalProcess]) -> list[str]:
    """Open a circuit here; on which hosts queues are paused for it."""
    breaker = current().metadata.circuit_breaker

    def paused() -> list[str]:
        return [name for name, worker in workers.items() if _count(worker, "queue paused") > known[name]]

    known = {name: _count(worker, "queue paused") for name, worker in workers.items()}
    current().run(breaker.force_open(hold=True))
    until("both have heard of it", lambda: len(paused()) == len(workers))
    current().run(breaker.reset())
    return sorted(paused())


def _effects(services: Services) -> dict[str, int]:
    told = httpx.get(f"{services.metadata}/_sandbox/effects").json()
    return {one["file_path"]: one["times"] for one in told["effects"]}


def _succeeded(worker: LocalProcess) -> int:
    return _count(worker, "job succeeded")


def _count(worker: LocalProcess, event: str) -> int:
    return worker.log.read_text().count(f'"{event}"')


def _pools(hosts: list[Host]) -> list[tuple[Host, str]]:
    return list(zip(hosts, ("threads", "prefork"), strict=True))


def _worker(stack: ExitStack, host: Host, pool: str, services: Services, directory: Path) -> LocalProcess:
    environment = {**inherited(), **Ours().environment(services)}
    process = host.process(
        command(Ours(), pool, host.name), name=host.name, directory=directory, environment=environment
    )
    stack.callback(process.kill)
    process.start().wait_ready(lambda: " ready." in process.log.read_text(), 60)
    return process


def _redis(stack: ExitStack, directory: Path) -> str:
    options = ["--bind", CENTRE, "--port", str(_PORT), "--requirepass", _PASSWORD, "--dir", str(directory)]
    process = LocalProcess(
        [find_server(), *options, "--appendonly", "yes", "--save", ""], directory=directory, name="redis"
    )
    stack.enter_context(process)
    process.wait_ready(lambda: "Ready to accept connections" in process.tail())
    return f"redis://:{_PASSWORD}@{CENTRE}:{_PORT}/0"


def _services(stack: ExitStack, directory: Path, url: str) -> Services:
    given = ["--host", CENTRE, "--metadata-port", "8053", "--onextree-port", "8058"]
    process = LocalProcess(
        [sys.executable, "-m", "bridge_tasks.sandbox", *given],
        directory=directory,
        name="services",
        environment=inherited(),
    )
    stack.enter_context(process)
    process.wait_ready(lambda: "onextree_url" in process.tail(), 30)
    metadata, onextree = f"http://{CENTRE}:8053", f"http://{CENTRE}:8058"
    fault = {"kind": "latency", "seconds": SECONDS}
    httpx.post(f"{metadata}/_sandbox/faults", json=[fault]).raise_for_status()
    files = directory / "files"
    files.mkdir()
    return Services({"BRIDGE_REDIS_URL": url}, metadata, onextree, files)


def until(what: str, check: Callable[[], Any]) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not come.
    """
    ends = time.monotonic() + _PATIENCE
    while not check():
        if time.monotonic() > ends:
            raise TimeoutError(f"not in {_PATIENCE:.0f} s: {what}; seen: {_seen()}")
        time.sleep(0.05)


if __name__ == "__main__":
    os.environ.pop("BRIDGE_REDIS_URL", None)
    main()
