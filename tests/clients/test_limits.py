"""Limits as the users of a client meet them: off by default, an error that says when, and no false emergency."""

import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from bridge_tasks.clients import AsyncMetadataStampingClient, AsyncOnexTreeClient
from bridge_tasks.clients.base_client import AsgiApp
from bridge_tasks.errors import RateLimited, ServiceBusy
from bridge_tasks.resilience.policy.limits import LimitsConfig

ANSWER = {"status": "success", "data": {"success": True, "intelligence": {"analysis_type": "x"}, "stamps": []}}


def answering(*responses: JSONResponse) -> tuple[list[str], AsgiApp]:
    """Make an application that gives these answers, the last one for ever, and the paths that it was asked."""
    paths: list[str] = []
    left = list(responses) or [JSONResponse(ANSWER)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        response = left.pop(0) if len(left) > 1 else left[0]
        await response(scope, receive, send)

    return paths, app


async def test_by_default_nothing_is_limited() -> None:
    paths, app = answering()
    async with AsyncOnexTreeClient(app=app) as client:
        for number in range(50):
            await client.query_knowledge(f"question {number}")
    assert len(paths) == 50


async def test_intelligence_beyond_our_own_limit_is_an_error_and_no_emergency_answer() -> None:
    paths, app = answering()
    limits = LimitsConfig(per_minute={"get_intelligence": 1}, max_wait=0)
    async with AsyncOnexTreeClient(app=app, limits=limits) as client:
        assert not (await client.get_intelligence("one")).degraded
        with pytest.raises(RateLimited) as limited:
            await client.get_intelligence("two")
        assert 0 < (limited.value.retry_after or 0) <= 61
        assert await client.query_knowledge("has no limit")
        assert client.circuit_breaker.metrics.failure_count == 0
    assert len(paths) == 2


async def test_intelligence_of_a_service_that_is_busy_is_an_emergency_answer() -> None:
    paths, app = answering(JSONResponse({}, 503, {"Retry-After": "30"}), JSONResponse(ANSWER))
    async with AsyncOnexTreeClient(app=app, max_retries=1) as client:
        assert (await client.get_intelligence("one")).degraded
        assert (await client.get_intelligence("two")).degraded
        with pytest.raises(ServiceBusy):
            await client.query_knowledge("three")
    assert len(paths) == 1


async def test_groups_of_operations_have_limits_of_their_own() -> None:
    paths, app = answering()
    limits = LimitsConfig(per_minute={"standard": 1, "health": 1}, max_wait=0)
    async with AsyncMetadataStampingClient(
        "http://in-process/api/v1/metadata-stamping",
        app=app,
        limits=limits,
    ) as client:
        await client.get_stamp("ab" * 32)
        await client.health_check()
        for refused in (client.get_stamp("ab" * 32), client.query_namespace("n"), client.health_check()):
            with pytest.raises(RateLimited):
                await refused
    assert len(paths) == 2
