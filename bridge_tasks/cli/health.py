"""`bridge-tasks health`: Redis, workers, services. Answers within seconds, whatever is down or hangs."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kombu import Connection

from bridge_tasks import operations
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge
from bridge_tasks.cli.moments import lasting
from bridge_tasks.cli.roots import nothing_runs
from bridge_tasks.cli.screen import counted, say, show_json, show_lines, show_rows
from bridge_tasks.errors import BridgeError
from bridge_tasks.models.requests import CheckHealth
from bridge_tasks.models.stamping import ServiceHealth
from bridge_tasks.runtime import current
from bridge_tasks.settings import load
from bridge_tasks.tasks import check_health
from bridge_tasks.vitals import waits_for_workers

_SECONDS = 4.0
"""For everything together: all parts are asked at the same time."""
_PING_SECONDS = 1.0
_WORKER_SECONDS = 2.5
_SERVICES = ("metadata", "onextree")

Part = dict[str, Any]
"""Its `address`, whether it is `healthy`, a `detail` for people, and what else there is to tell."""


def health(*, as_json: bool) -> int:
    """Ask every part, show what it answered, and return the exit status: 1 if anything is not well."""
    load()  # a variable that is wrong is named at once, and once
    asked = _ask_all(
        {
            "broker": _broker,
            "results": _results,
            "workers": _workers,
            "jobs": _jobs,
            "here": _services_from_here,
        }
    )
    parts = {name: asked[name] for name in ("broker", "results", "workers", "jobs")}
    services = parts["workers"].pop("services", None) or asked["here"].get("services", {})
    parts |= {name: services.get(name, asked["here"]) for name in _SERVICES}
    addresses = _addresses()
    parts = {name: {"address": addresses.get(name), **part} for name, part in parts.items()}
    healthy = all(part["healthy"] for part in parts.values())
    if as_json:
        show_json({"healthy": healthy, **parts})
        return 0 if healthy else 1
    show_rows(("Part", "State", "Detail"), [(name, _state(part), _told(part)) for name, part in parts.items()])
    for line in _troubles(parts):
        show_lines(line)
    if not any(part["healthy"] for part in parts.values()):
        say(nothing_runs())
    return 0 if healthy else 1


def _addresses() -> dict[str, str]:
    """Where each part should be, without passwords."""
    settings = load()
    return {
        "broker": masked(app.conf.broker_url),
        "results": masked(app.conf.result_backend),
        "metadata": ", ".join(settings.metadata.urls),
        "onextree": ", ".join(settings.onextree.urls),
    }


def _ask_all(questions: Mapping[str, Callable[[], Part]]) -> dict[str, Part]:
    """Ask all at once; what raises, or does not answer in time, is not well."""
    answers = {name: {"healthy": False, "detail": f"no answer within {_SECONDS:.0f} s"} for name in questions}

    def ask(name: str, question: Callable[[], Part]) -> None:
        try:
            answers[name] = question()
        except Exception as error:  # noqa: BLE001 - whatever it is, this part is not well
            detail = str(error) if isinstance(error, BridgeError) else f"does not answer ({type(error).__name__})"
            answers[name] = {"healthy": False, "detail": detail}

    # Daemons: one that hangs for longer must not keep the process from ending.
    threads = [threading.Thread(target=ask, args=question, daemon=True) for question in questions.items()]
    ends = time.monotonic() + _SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return dict(answers)


def _broker() -> Part:
    with _connected():
        return {"healthy": True, "detail": "answers"}


def _connected() -> Connection:
    """Connect to the broker, or fail at once; Celery itself would go on trying."""
    connection = app.connection_for_write()
    connection.ensure_connection(max_retries=1, interval_start=0)
    return connection


def _results() -> Part:
    app.backend.client.ping()  # type: ignore[attr-defined] # Redis's backend has it
    return {"healthy": True, "detail": "answers"}


def _workers() -> Part:
    """Who answers, which queues they have paused, and how one of them finds the services."""
    with _connected() as connection:
        # As good as a ping: even a worker that does not know the question answers it.
        replies = app.control.broadcast("paused_queues", reply=True, timeout=_PING_SECONDS, connection=connection)
    answers = {name: answer for reply in replies or [] for name, answer in reply.items()}
    names = sorted(answers)
    if not names:
        return {
            "healthy": False,
            "count": 0,
            "names": [],
            "detail": "none answers; start one: bridge-tasks worker",
        }
    paused = _paused(answers.values())
    detail = "; ".join([", ".join(names), *(_waiting(queue, pause) for queue, pause in paused.items())])
    known: Part = {"healthy": True, "count": len(names), "names": names, "paused": paused, "detail": detail}
    if app.conf.task_default_queue in paused:
        return known  # the question below would wait there; the services are asked from here as well
    asked = check_health.apply_async(expires=_WORKER_SECONDS)
    try:
        answer = asked.get(timeout=_WORKER_SECONDS)
    except Exception:  # noqa: BLE001 - busy workers are no ill workers, and the services are asked from here as well
        return known
    found = {name: ServiceHealth.model_validate(answer[name]) for name in _SERVICES}
    return {**known, "services": {name: _service(one, "a worker") for name, one in found.items()}}


def _jobs() -> Part:
    """What waits, and what failed for good."""
    seen = Bridge().health()
    if not seen.redis:
        return {"healthy": False, "detail": "the ledger's Redis does not answer"}
    depths = {queue.name: queue.depth for queue in seen.queues}
    told = [
        f"{queue.depth} in {queue.name}"
        + (f" for up to {lasting(queue.oldest_seconds)}" if queue.oldest_seconds is not None else "")
        for queue in seen.queues
        if queue.depth
    ]
    return {
        "healthy": True,
        "waiting": seen.waiting,
        "queues": depths,
        "dead_letters": seen.dead_letters,
        "detail": f"waiting: {', '.join(told)}" if told else "none waits",
    }


def _troubles(parts: Mapping[str, Part]) -> Iterator[str]:
    """What somebody should look at besides."""
    waiting, dead = parts["jobs"].get("waiting", 0), parts["jobs"].get("dead_letters", 0)
    if waiting and parts["workers"].get("count") == 0:
        yield f"{waits_for_workers(waiting)}: bridge-tasks worker starts one."
    if dead:
        yield f"{counted(dead, 'dead letter')}: bridge-tasks dead list tells why."


def _paused(answers: Iterable[Any]) -> dict[str, Part]:
    """Gather the queues that some worker has paused, in the order of their names."""
    told: dict[str, Part] = {}
    for answer in answers:
        if isinstance(answer, dict):
            told |= {queue: pause for queue, pause in answer.items() if queue in app.amqp.queues}
    return dict(sorted(told.items()))


def _waiting(queue: str, pause: Part) -> str:
    until = pause["tries_in"]
    if until is None:
        return f"{queue} paused, until bridge-tasks breaker reset"
    return f"{queue} paused, " + (f"tries in {until:.0f} s" if until else "being tried")


def _services_from_here() -> Part:
    runtime = current()
    found = runtime.run(operations.check_health(runtime.services, CheckHealth()))
    services = {name: _service(one, "this process") for name, one in found.items()}
    return {"healthy": True, "detail": "", "services": services}


def _service(found: ServiceHealth, seen_by: str) -> Part:
    detail = found.error or f"{found.status}, circuit {found.circuit}, seen by {seen_by}"
    return {**found.model_dump(), "seen_by": seen_by, "detail": detail}


def masked(url: str) -> str:
    """Hide the password of each address in a Redis URL, and its options, which may hold one."""
    return re.sub(r"(://[^:@/;]*):[^;]*@", r"\1:**@", url.partition("?")[0])


def _told(part: Part) -> str:
    return f"{part['address']}: {part['detail']}" if part["address"] else str(part["detail"])


def _state(part: Part) -> str:
    return "healthy" if part["healthy"] else "unhealthy"
