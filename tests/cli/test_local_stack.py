"""A stack comes up wherever there is room for it, whoever takes a port at the last moment."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from bridge_tasks.cli.local_stack import Plan, local_stack
from bridge_tasks.sandbox.processes import LocalProcess


@pytest.fixture
def signals_put_back() -> Iterator[None]:
    """A stack that ends has its process ignore signals from then on; this one has more to do, and children."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def about_to_be_taken() -> socket.socket:
    """A socket on a port that others find free, until it listens."""
    rival = socket.socket()
    rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    rival.bind(("127.0.0.1", 0))
    return rival


@pytest.mark.usefixtures("signals_put_back")
def test_ports_that_are_snatched_away_after_they_were_found_free_are_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ExitStack() as closing:
        rivals = [closing.enter_context(about_to_be_taken()) for _ in range(3)]
        begin = LocalProcess.start

        def snatched(process: LocalProcess) -> LocalProcess:
            for rival in {"sandbox": rivals[:2], "flower": rivals[2:]}.get(process.name, []):
                rival.listen()
            return begin(process)

        monkeypatch.setattr(LocalProcess, "start", snatched)
        metadata, onextree, flower = wished = [rival.getsockname()[1] for rival in rivals]
        plan = Plan(tmp_path, pool="solo", metadata_port=metadata, onextree_port=onextree, flower_port=flower)
        with local_stack(plan, os.environ) as stack:
            assert stack.flower
            pages = [f"{stack.metadata_url}/health", f"{stack.onextree_url}/health", f"{stack.flower.url}/tasks"]
            login = (stack.flower.user, stack.flower.password)
            assert [httpx.get(page, auth=login).status_code for page in pages] == [200] * 3
            assert not {urlsplit(page).port for page in pages} & set(wished)
            stack.check()
