"""A third bottom beside blocking and asyncio: several coroutines ask Redis, and their questions go out together.

Each runs until it asks; then all that was asked goes to Redis in one round trip, and each runs on with its answer.
For looks, not for work: nothing here is atomic, and a coroutine that waits for anything but Redis is a bug.
"""

from collections.abc import Coroutine, Generator, Sequence
from typing import Any

import redis


class Pipelined:
    """A Redis client (`RedisCommands`) for coroutines that are run by `together`."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command, along with those of others."""
        return await _Question(self.client, arguments)


class _Question:
    """What a coroutine waits for."""

    def __init__(self, client: redis.Redis, arguments: tuple[Any, ...]) -> None:
        self.client = client
        self.arguments = arguments

    def __await__(self) -> Generator["_Question", Any, Any]:
        return (yield self)


def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines to their ends, and return their results in order.

    Raises:
        Exception: the first that one of them lets out; the others are closed.
    """
    results: list[Any] = [None] * len(coroutines)
    waiting: dict[int, _Question] = {}

    def advance(index: int, answer: Any) -> None:
        coroutine = coroutines[index]
        try:
            asked = coroutine.throw(answer) if isinstance(answer, Exception) else coroutine.send(answer)
        except StopIteration as end:
            results[index] = end.value
        else:
            waiting[index] = asked

    try:
        for index in range(len(coroutines)):
            advance(index, None)
        while waiting:
            asked, waiting = waiting, {}
            for index, answer in _answers(asked).items():
                advance(index, answer)
    finally:
        for coroutine in coroutines:
            coroutine.close()
    return results


def _answers(asked: dict[int, _Question]) -> dict[int, Any]:
    """Ask each Redis once; an error is an answer like any other."""
    answers: dict[int, Any] = {}
    for client in {id(question.client): question.client for question in asked.values()}.values():
        its_own = {index: question for index, question in asked.items() if question.client is client}
        answers |= zip(its_own, _sent(client, [one.arguments for one in its_own.values()]), strict=True)
    return answers


def _sent(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
    try:
        with client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's own gap
            return pipe.execute(raise_on_error=False)
    except (redis.RedisError, OSError) as error:
        return [error] * len(commands)
