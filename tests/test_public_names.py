"""The names that others rely on (design, decision 3): there, spelt so, and nothing promised that is not there."""

import ast
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from celery.app.base import Celery
from celery.backends.base import Backend

import bridge_tasks
from bridge_tasks import errors
from bridge_tasks.app import app
from bridge_tasks.errors import (
    BridgeError,
    CircuitBreakerError,
    ClientError,
    ConfigurationError,
    ContentUnavailable,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobUnknown,
    MessageRefused,
    RateLimited,
    ServiceBusy,
    ServiceUnavailableError,
)
from bridge_tasks.settings import Settings, load

PACKAGE = Path(bridge_tasks.__file__).parent

TASKS = {
    "bridge.generate_hash": "bridge.metadata",
    "bridge.create_stamp": "bridge.metadata",
    "bridge.get_stamp": "bridge.metadata",
    "bridge.validate_stamp": "bridge.metadata",
    "bridge.validate_protocol": "bridge.metadata",
    "bridge.batch_create_stamps": "bridge.bulk",
    "bridge.get_intelligence": "bridge.onextree",
    "bridge.query_knowledge": "bridge.onextree",
    "bridge.navigate_tree": "bridge.onextree",
    "bridge.stamp_file": "bridge.metadata",
    "bridge.check_health": "bridge.metadata",
    "bridge.warm_cache": "bridge.onextree",
    "bridge.stamp_chunk": "bridge.bulk",
}

NAMES = {
    "bridge_tasks": "app AsyncBridge Bridge workflows",
    "bridge_tasks.app": "app",
    "bridge_tasks.workflows": "stamp_file",
    "bridge_tasks.runtime": "current close Runtime",
    "bridge_tasks.clients": (
        "BaseServiceClient AsyncMetadataStampingClient AsyncOnexTreeClient CircuitBreaker CircuitBreakerConfig "
        "CircuitBreakerError CircuitState ClientError ServiceUnavailableError CacheEntry ConfidenceLevel "
        "ConfidenceScore IntelligenceResult"
    ),
    "bridge_tasks.clients.circuit_breaker": "CircuitBreaker CircuitBreakerConfig CircuitBreakerError CircuitState",
    "bridge_tasks.clients.base_client": "BaseServiceClient ClientError ServiceUnavailableError",
    "bridge_tasks.clients.metadata_stamping_client": "AsyncMetadataStampingClient",
    "bridge_tasks.clients.onextree_client": (
        "AsyncOnexTreeClient CacheEntry ConfidenceLevel ConfidenceScore IntelligenceResult"
    ),
    "bridge_tasks.tasks": " ".join(name.removeprefix("bridge.") for name in TASKS),
}

VARIABLES = {
    "BRIDGE_REDIS_URL": "redis://127.0.0.1:1/1",
    "BRIDGE_BROKER_URL": "redis://127.0.0.1:1/2",
    "BRIDGE_RESULT_BACKEND_URL": "redis://127.0.0.1:1/3",
    "BRIDGE_METADATA__URLS": "http://127.0.0.1:1,http://127.0.0.1:2",
    "BRIDGE_ONEXTREE__URLS": "http://127.0.0.1:3/",
    "BRIDGE_CONTENT__ROOTS": "/srv/a, /srv/b",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_promised_names_can_be_imported(module: str) -> None:
    loaded = import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(loaded, name)] == []


def modules() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[1:2] != ("cli",) and parts[-1] != "__main__":
            yield ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(modules()))
def test_every_name_in_all_is_there_once(name: str) -> None:
    module = sys.modules[name] if name == "bridge_tasks.app" and name in sys.modules else import_module(name)
    exported = getattr(module, "__all__", [])
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(set(exported)) == len(exported)


def test_the_package_s_app_is_the_application_whichever_way_it_is_imported() -> None:
    orders = [
        "import bridge_tasks.app, bridge_tasks",
        "import bridge_tasks",
        "from bridge_tasks import app, workflows",
    ]
    for order in orders:
        check = (
            f"{order}\nimport bridge_tasks\nfrom celery import Celery\nassert isinstance(bridge_tasks.app, Celery)"
        )
        subprocess.run([sys.executable, "-c", check], check=True)
    assert isinstance(bridge_tasks.app, Celery)
    assert app.main == "bridge_tasks"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Bidge'"):
        _ = bridge_tasks.Bidge


def test_the_clients_cost_an_asyncio_program_no_celery() -> None:
    check = "import sys, bridge_tasks.clients; sys.exit('celery' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_exactly_the_promised_tasks_are_registered_in_a_worker() -> None:
    # In a process of its own: pytest-celery adds its tasks to every application of this one.
    script = "from bridge_tasks import app; app.loader.import_default_modules(); print(*app.tasks)"
    names = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {name for name in names if not name.startswith("celery.")} == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_goes_to_its_queue(task: str) -> None:
    assert app.amqp.router.route({}, task)["queue"].name == TASKS[task]


def test_there_are_three_queues_each_with_its_own_exchange() -> None:
    assert {name: queue.exchange.name for name, queue in app.amqp.queues.items()} == {
        name: name for name in ("bridge.metadata", "bridge.onextree", "bridge.bulk")
    }


def test_no_task_of_ours_takes_a_name_that_celery_s_stamping_uses() -> None:
    ours = [app.tasks[name] for name in TASKS]
    assert [task for task in ours if "stamp" in vars(type(task)) or "stamps" in vars(type(task))] == []


def test_the_environment_s_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    settings = Settings()

    assert settings.redis_url.get_secret_value().endswith("/1")
    assert (settings.broker, settings.result_backend) == ("redis://127.0.0.1:1/2", "redis://127.0.0.1:1/3")
    assert settings.metadata.urls == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert settings.onextree.urls == ("http://127.0.0.1:3",)
    assert settings.content.roots == ("/srv/a", "/srv/b")


def test_the_broker_and_the_results_are_in_redis_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", "redis://127.0.0.1:1/1")
    settings = Settings()
    assert settings.broker == settings.result_backend == "redis://127.0.0.1:1/1"


def test_the_configuration_is_values_only_and_safe() -> None:
    assert app.conf.task_acks_late
    assert app.conf.accept_content == app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == app.conf.result_serializer == "json"
    source = ast.parse((PACKAGE / "celeryconfig.py").read_text())
    assert not [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)]
    assert load() is load()


ERRORS: list[BridgeError] = [
    BridgeError("it failed"),
    InvalidRequest("content.path", "does not exist"),
    MessageRefused("headers.eta", "is not what a message may hold there"),
    ContentUnavailable("the blob has expired"),
    ConfigurationError("BRIDGE_REDIS_URL: is wrong"),
    JobFailed("ValueError", "ValueError"),
    JobExpired("it is too old", "age"),
    JobCancelled("it was cancelled"),
    JobUnknown("there is no record"),
    ClientError("it said no", 422, "VALIDATION_ERROR", None, {"results": [1]}),
    ServiceUnavailableError("it is down", 503, None, 7.5),
    CircuitBreakerError("the circuit is open", None, None, 12.0),
    ServiceBusy("it asked for patience", None, None, 3.0),
    RateLimited("the limit is used up", None, None, 0.5),
]
FIELDS = ("message", "field", "reason", "status", "code", "retry_after", "data", "retryable", "cause")


def told(error: BaseException) -> dict[str, Any]:
    return {"type": type(error), "text": str(error), **{name: getattr(error, name, None) for name in FIELDS}}


def by_name(error: BridgeError) -> str:
    return type(error).__name__


def test_every_error_is_in_this_table() -> None:
    assert {type(error) for error in ERRORS} == set(tree(BridgeError))


@pytest.mark.parametrize("error", ERRORS, ids=by_name)
def test_an_error_survives_pickle(error: BridgeError) -> None:
    assert told(pickle.loads(pickle.dumps(error))) == told(error)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("error", ERRORS, ids=by_name)
def test_an_error_survives_celery_s_json(error: BridgeError) -> None:
    backend = Backend(app=app)
    encoded = backend.encode(backend.prepare_exception(error))
    assert json.loads(encoded)["exc_type"] == type(error).__name__
    assert told(backend.exception_to_python(backend.decode(encoded))) == told(error)


def tree(root: type[BridgeError]) -> dict[type[BridgeError], type[BridgeError] | None]:
    """Every class under `root`, with its parent."""
    found: dict[type[BridgeError], type[BridgeError] | None] = {root: None}
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= tree(child) | {child: root}
    return found


def test_the_tree_drawn_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if node := re.match(r"( {4}[ │├└─]*)([A-Z]\w+)", line):
            depth, name = len(node[1]), node[2]
            above = [entry for entry in above if entry[0] < depth]
            drawn[name] = above[-1][1] if above else None
            above.append((depth, name))
    assert drawn == {
        child.__name__: parent.__name__ if parent else None for child, parent in tree(BridgeError).items()
    }


@pytest.mark.parametrize("error", ERRORS, ids=by_name)
def test_the_docstring_says_of_each_error_whether_trying_again_helps(error: BridgeError) -> None:
    (row,) = [
        line
        for line in (errors.__doc__ or "").splitlines()
        if re.search(rf"─ {by_name(error)}|^    {by_name(error)}", line)
    ]
    assert ("retryable:" in row and "no, unless" not in row) is error.retryable
