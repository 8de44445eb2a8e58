"""Whose fault a failure is: an error tells whether the service's circuit was closed when the call failed."""

import pytest
from starlette.responses import Response

from bridge_tasks.clients import CircuitBreakerConfig, CircuitBreakerError, CircuitState, ServiceUnavailableError
from tests.clients.in_process import metadata_client

DEAD = Response(status_code=503)
TRIPS_AT_FOUR = CircuitBreakerConfig(failure_threshold=4, minimum_throughput=0, recovery_timeout=0.0)


async def test_a_failure_while_the_circuit_is_closed_is_the_callers_own() -> None:
    async with metadata_client(DEAD, circuit_breaker_config=TRIPS_AT_FOUR) as client:
        with pytest.raises(ServiceUnavailableError) as raised:
            await client.generate_hash(b"three tries")

    assert not raised.value.outage
    assert not raised.value.blameless


async def test_neither_the_call_that_opens_the_circuit_nor_a_probe_that_fails_is_to_blame() -> None:
    async with metadata_client(DEAD, circuit_breaker_config=TRIPS_AT_FOUR) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.generate_hash(b"three tries")
        for text in (b"the fourth try, and the first probe", b"more probes"):
            with pytest.raises(ServiceUnavailableError) as raised:
                await client.generate_hash(text)
            assert client.circuit_breaker.state is CircuitState.OPEN
            assert raised.value.outage
            assert not raised.value.unsent
            assert raised.value.blameless


async def test_a_call_that_was_kept_back_is_blameless_too() -> None:
    held = CircuitBreakerConfig(failure_threshold=1, minimum_throughput=0)
    async with metadata_client(DEAD, circuit_breaker_config=held) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.generate_hash(b"opens it")
        with pytest.raises(CircuitBreakerError) as raised:
            await client.generate_hash(b"is refused")

    assert raised.value.unsent
    assert raised.value.blameless


async def test_what_will_never_pass_is_no_outage_whatever_the_circuit_says() -> None:
    refused = Response(status_code=422)
    half_open = CircuitBreakerConfig(failure_threshold=3, minimum_throughput=0, recovery_timeout=0.0)
    async with metadata_client(DEAD, DEAD, DEAD, refused, circuit_breaker_config=half_open) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.generate_hash(b"opens it")
        with pytest.raises(Exception, match="422") as raised:
            await client.generate_hash(b"is wrong")

    assert not getattr(raised.value, "blameless", True)
