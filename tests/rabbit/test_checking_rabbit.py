"""What `bridge-tasks check` finds about a real RabbitMQ, and what it does not say where there is one."""

from collections.abc import Mapping
from typing import Any

import amqp
import kombu
import pytest

from bridge_tasks.app import app
from bridge_tasks.checking import found
from bridge_tasks.checking.gathering import gather
from bridge_tasks.settings import Settings
from tests.chaos.stage import Stage, submitted
from tests.rabbit_server import PrivateRabbit
from tests.workers import QUEUES

EVERYWHERE = {"root-user"}
"""What tests are found guilty of."""


def findings(environment: Mapping[str, str], **different: Any) -> set[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        conf = {**app.conf, "broker_url": environment["BRIDGE_BROKER_URL"], **different}
        return {one.id for one in found(gather(Settings(), conf))} - EVERYWHERE


def test_nothing_is_found_in_a_good_deployment_with_its_queues_or_without(stage: Stage) -> None:
    without = findings(stage.environment)
    submitted("declared")

    assert without == set()
    assert findings(stage.environment) == set()


def test_looking_declares_nothing(stage: Stage, rabbit: PrivateRabbit) -> None:
    findings(stage.environment)

    with kombu.Connection(rabbit.url) as connection:
        for queue in QUEUES:
            channel: Any = connection.channel()
            with pytest.raises(amqp.NotFound):
                channel.queue_declare(queue, passive=True)


def test_a_classic_queue_is_found(stage: Stage, rabbit: PrivateRabbit) -> None:
    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_declare(QUEUES[2], durable=True, auto_delete=False)

    assert findings(stage.environment) == {"rabbit-classic"}


def test_a_wrong_password_and_a_server_that_is_away_are_told_apart(stage: Stage, rabbit: PrivateRabbit) -> None:
    wrong = rabbit.url.replace("guest:guest", "guest:wrong")
    nowhere = "amqp://guest:guest@127.0.0.1:1//"

    assert findings({**stage.environment, "BRIDGE_BROKER_URL": wrong}) == {"rabbit-login"}
    assert findings({**stage.environment, "BRIDGE_BROKER_URL": nowhere}) == {"rabbit-away"}


def test_another_transport_than_ours_is_found(stage: Stage) -> None:
    assert findings(stage.environment, broker_transport="pyamqp") == {"transport"}
