"""Jobs through real nodes, with pytest-celery: they are done, and outlast what happens to worker and broker."""

import pytest
from pytest_celery import CeleryTestSetup

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.models.content import InlineContent
from tests.integration.nodes import Nodes
from tests.tasks.sending import inline
from tests.workers import eventually, orchestrating


@pytest.fixture(autouse=True)
def well(nodes: Nodes) -> None:
    nodes.sandbox.heal()


def stamped(*names: str, correlation_id: str | None = None) -> list[Job]:
    bridge = Bridge()
    return [
        bridge.submit(
            workflows.stamp_file(
                InlineContent.model_validate(inline(name)),
                context=name,
                file_path=f"/{name}",
                correlation_id=correlation_id,
            )
        )
        for name in names
    ]


def times(nodes: Nodes, *names: str) -> list[int]:
    """How often the service has really stamped each."""
    effects = nodes.sandbox.http.get(f"{nodes.sandbox.metadata}/_sandbox/effects").json()["effects"]
    done = {effect["file_path"]: effect["times"] for effect in effects}
    return [done.get(f"/{name}", 0) for name in names]


def succeeded(jobs: list[Job]) -> bool:
    return eventually(lambda: all(job.state == "succeeded" for job in jobs))


def test_every_node_is_there_and_the_worker_answers(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)


def test_a_chain_is_done_and_its_id_is_in_the_log_of_the_worker(
    celery_setup: CeleryTestSetup, nodes: Nodes
) -> None:
    (job,) = stamped("chain", correlation_id="nodes-chain")

    assert job.result(timeout=30)["path"] == "/chain"
    celery_setup.worker.assert_log_exists("nodes-chain")
    assert nodes.sandbox.asked("nodes-chain")


def test_what_a_killed_worker_had_is_done_once_by_the_next(celery_setup: CeleryTestSetup, nodes: Nodes) -> None:
    names = [f"killed-{number}" for number in range(4)]
    nodes.sandbox.order({"kind": "hang", "path": "/hash"})
    jobs = stamped(*names, correlation_id="nodes-killed")
    assert eventually(lambda: len(nodes.sandbox.asked("nodes-killed", "/hash")) == 2)

    celery_setup.worker.kill()
    nodes.sandbox.heal()
    celery_setup.worker.restart()

    assert succeeded(jobs), celery_setup.worker.logs()
    assert times(nodes, *names) == [1] * 4


def test_jobs_outlast_a_broker_that_is_killed(celery_setup: CeleryTestSetup, nodes: Nodes) -> None:
    names = [f"broken-{number}" for number in range(4)]
    nodes.sandbox.order({"kind": "hang", "path": "/hash"})
    jobs = stamped(*names, correlation_id="nodes-broken")
    assert eventually(lambda: len(nodes.sandbox.asked("nodes-broken", "/hash")) == 2)

    celery_setup.broker.kill()
    nodes.sandbox.heal()
    celery_setup.broker.restart()

    address = celery_setup.broker.config()["host_url"]  # an engine publishes it elsewhere than before
    with orchestrating({"BRIDGE_REDIS_URL": address}):
        found = [Bridge().job(job.id) for job in jobs]
        assert succeeded(found), celery_setup.worker.logs()
    assert times(nodes, *names) == [1] * 4


def test_a_worker_that_is_told_to_end_gives_back_what_it_cannot_end(
    celery_setup: CeleryTestSetup, nodes: Nodes
) -> None:
    names = [f"ending-{number}" for number in range(4)]
    nodes.sandbox.order({"kind": "hang", "path": "/hash"})
    jobs = stamped(*names, correlation_id="nodes-ending")
    assert eventually(lambda: len(nodes.sandbox.asked("nodes-ending", "/hash")) == 2)

    celery_setup.worker.kill(signal="SIGTERM")
    celery_setup.worker.wait_for_log("Warm shutdown")
    nodes.sandbox.heal()
    assert eventually(lambda: ended(celery_setup)), celery_setup.worker.logs()
    celery_setup.worker.restart()

    assert succeeded(jobs), celery_setup.worker.logs()
    assert times(nodes, *names) == [1] * 4


def ended(setup: CeleryTestSetup) -> bool:
    setup.worker.container.reload()
    return bool(setup.worker.container.status == "exited")
