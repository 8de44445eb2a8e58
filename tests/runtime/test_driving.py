"""Driving coroutines that never suspend, and saying where one did."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded

from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.sandbox.redis import PrivateRedis


async def _answer() -> int:
    return 42


async def _ask() -> int:
    return await _answer()


@coroutine
def _pause() -> Generator[Any, Any, None]:
    yield


def test_a_coroutine_that_never_suspends_gives_its_result() -> None:
    assert drive(_ask()) == 42


def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        drive(fail())


async def _suspends_here() -> None:
    await _pause()


async def _calls_what_suspends() -> None:
    await _suspends_here()


def test_a_coroutine_that_suspends_is_a_bug_and_the_innermost_place_is_named() -> None:
    with pytest.raises(
        RuntimeError, match=r"suspended on the blocking bottom, at .*test_driving\.py:\d+ in _pause"
    ):
        drive(_calls_what_suspends())


def test_asyncio_s_own_waits_are_named_too() -> None:
    async def nap() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match=r"tasks\.py:\d+ in (__sleep0|sleep)"):
        drive(nap())


def test_a_coroutine_that_suspended_is_closed_and_has_cleaned_up() -> None:
    steps = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        steps.append("opened")
        try:
            yield
        finally:
            steps.append("closed")

    async def work() -> None:
        async with opened():
            await _suspends_here()

    with pytest.raises(RuntimeError, match="suspended"):
        drive(work())
    assert steps == ["opened", "closed"]


async def test_a_running_event_loop_is_neither_needed_nor_in_the_way() -> None:
    assert asyncio.get_running_loop().is_running()
    assert drive(_ask()) == 42


@pytest.mark.parametrize("cut", [KeyboardInterrupt, SoftTimeLimitExceeded])
def test_a_command_cut_short_before_its_reply_leaves_no_reply_for_the_next(
    cut: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PrivateRedis() as server, redis.Redis.from_url(server.url) as client:
        commands = BlockingRedis(client)
        assert drive(commands.execute_command("ECHO", "before")) == b"before"

        def is_cut(*_: Any, **__: Any) -> None:
            raise cut

        with monkeypatch.context() as patch:
            patch.setattr(client, "parse_response", is_cut)
            with pytest.raises(cut):
                drive(commands.execute_command("ECHO", "cut"))
        assert drive(commands.execute_command("ECHO", "next")) == b"next"
