"""Everything that tasks need, on this machine: a private Redis, both sandbox services, a worker, perhaps Flower.

One context manager starts them in order and stops them in reverse. Nothing listens beyond 127.0.0.1; nothing is
left running or on disk. Sees the environment that it is given, and changes none.
"""

import importlib.util
import json
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.cli.signals import ignore_signals, signals_held
from bridge_tasks.errors import ConfigurationError, InvalidRequest
from bridge_tasks.sandbox.ports import HOST, is_free
from bridge_tasks.sandbox.processes import LocalProcess, ProcessFailed
from bridge_tasks.sandbox.redis import URL_VARIABLE, GivenRedis, NoRedisServer, PrivateRedis

_START_SECONDS = 30.0
_WORKER_GRACE_SECONDS = 5.0
_OTHERS_GRACE_SECONDS = 2.0
"""Together less than ten seconds to stop, whatever hangs."""

_SANDBOX_NEEDS = ("fastapi", "uvicorn", "python_multipart", "blake3")
_PROGRAM = (sys.executable, "-P", "-m")
"""-P: a `celery.py` in the working directory is somebody's script, not Celery."""

_METRICS_ARE_AT = re.compile(rf"metrics at (http://{re.escape(HOST)}:\d+/metrics)")
_TRACING = "BRIDGE_TRACING__ENABLED"
_FLOWER_IS_AT = re.compile(rf"Visit me at (http://{re.escape(HOST)}:\d+)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start.

    Attributes:
        root: the directory that jobs may read and OnexTree indexes.
        dialect: how the services speak: `service` or `guide`.
        pool: the worker's pool.
        concurrency: its processes or threads.
        log_level: of the worker.
        metadata_port: port to try; zero, or one that is taken, becomes a free one.
        onextree_port: the same.
        flower_port: the same; None starts no Flower.
        metrics: whether the worker serves its figures, on a free port.
    """

    root: Path
    dialect: str = "service"
    pool: str = "prefork"
    concurrency: int = 2
    log_level: str = "INFO"
    metadata_port: int = 0
    onextree_port: int = 0
    flower_port: int | None = None
    metrics: bool = False


@dataclass(frozen=True, slots=True)
class Flower:
    """Where Flower is, and how it lets one in. The password is not in the repr."""

    url: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Flower(url={self.url!r}, user={self.user!r})"


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A stack that runs.

    Attributes:
        variables: the BRIDGE_ variables with which any process finds it.
        worker: the worker's process.
        others: the other processes.
    """

    redis_url: str
    metadata_url: str
    onextree_url: str
    flower: Flower | None
    metrics_url: str | None
    variables: Mapping[str, str]
    worker: LocalProcess
    others: tuple[LocalProcess, ...]

    def check(self) -> None:
        """Look whether everything still runs.

        Raises:
            ProcessFailed: something has ended; the message has the end of its log.
        """
        for process in (self.worker, *self.others):
            if not process.running:
                raise ProcessFailed(f"{process.name} ended with status {process.returncode}\n{process.tail()}")
        if not redis_answers(self.redis_url):
            raise ProcessFailed("redis has ended")


@contextmanager
def local_stack(plan: Plan, environment: Mapping[str, str]) -> Iterator[LocalStack]:
    """Run a stack for the length of a `with` block; its processes inherit `environment`.

    Raises:
        ConfigurationError: something that it needs is not installed.
        InvalidRequest: the root cannot be handed to workers.
        ProcessFailed: something does not start; the message has the end of its log.
    """
    require_sandbox()
    root = _transferable(plan.root)
    with ExitStack() as stopping:
        directory = Path(
            stopping.enter_context(TemporaryDirectory(prefix="bridge-stack-", ignore_cleanup_errors=True))
        )
        inherited = {**environment, "TMPDIR": str(directory)}
        server = _redis(environment)
        with signals_held():
            stopping.enter_context(server)
        redis_url = server.url

        def start(name: str, arguments: list[str], extra: Mapping[str, str], grace: float) -> LocalProcess:
            process = LocalProcess(
                [*_PROGRAM, *arguments], directory=directory, name=name, environment={**inherited, **extra}
            )
            stopping.callback(process.terminate, grace)  # first: an interrupt may come at any moment
            with signals_held():
                return process.start()

        sandbox = start("sandbox", _sandbox_arguments(plan, root, environment), {}, _OTHERS_GRACE_SECONDS)
        metadata_url, onextree_url = _announced_urls(sandbox)
        variables = {
            "BRIDGE_REDIS_URL": redis_url,
            "BRIDGE_BROKER_URL": redis_url,
            "BRIDGE_RESULT_BACKEND_URL": redis_url,
            "BRIDGE_METADATA__URLS": metadata_url,
            "BRIDGE_ONEXTREE__URLS": onextree_url,
            "BRIDGE_CONTENT__ROOTS": root,
        }
        # The password is in Flower's environment: a command line can be read by every user of the machine.
        user = environment.get("BRIDGE_FLOWER__USER", "bridge")
        password = environment.get("BRIDGE_FLOWER__PASSWORD") or secrets.token_urlsafe(12)
        secret = {
            "BRIDGE_FLOWER__USER": user,
            "BRIDGE_FLOWER__PASSWORD": password,
            "BRIDGE_FLOWER__STATE": str(directory / "flower"),  # it goes with the Redis that it tells of
        }

        def start_flower(port: int) -> LocalProcess:
            return start("flower", _flower_arguments(port), variables | secret, _OTHERS_GRACE_SECONDS)

        observer = None
        if plan.flower_port is not None:
            observer = start_flower(plan.flower_port if is_free(plan.flower_port) else 0)
        counting = {"BRIDGE_METRICS__PORT": "0"} if plan.metrics else {}
        worker = start("worker", _worker_arguments(plan), variables | counting, _WORKER_GRACE_SECONDS)
        worker.wait_ready(lambda: _worker_answers(redis_url), _START_SECONDS)
        others, flower = [sandbox], None
        if observer:
            try:
                url = _flower_url(observer)
            except ProcessFailed as error:
                if not error.port_taken:
                    raise
                observer = start_flower(0)  # which takes one and listens at once: nobody comes between
                url = _flower_url(observer)
            others, flower = [sandbox, observer], Flower(url, user, password)
        stopping.callback(ignore_signals)  # the first thing done at the end: nothing may cut the rest short
        served = _metrics_url(worker) if plan.metrics else None
        yield LocalStack(redis_url, metadata_url, onextree_url, flower, served, variables, worker, tuple(others))


def require_sandbox() -> None:
    """Make sure that the sandbox services can run.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    missing = [name for name in _SANDBOX_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} not installed: pip install 'bridge-tasks[sandbox]'")


def redis_answers(url: str) -> bool:
    """Tell whether a Redis is there; one that is only slow is."""
    once = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(url, retry=once, socket_timeout=1, socket_connect_timeout=1) as client:
        try:
            client.ping()
        except redis.TimeoutError:
            return True
        except redis.RedisError:
            return False
    return True


def _redis(environment: Mapping[str, str]) -> PrivateRedis | GivenRedis:
    """One of our own if possible: a worker of the sandbox must not take the jobs of a Redis that is in use."""
    try:
        return PrivateRedis()
    except NoRedisServer:
        if URL_VARIABLE not in environment:
            raise
        return GivenRedis(environment[URL_VARIABLE])


def _transferable(root: Path) -> str:
    """Check that a path survives a comma-separated variable, and a file of quoted variables."""
    path = str(root.resolve())
    if not path.isprintable() or set(path) & set(",'\\$"):
        raise InvalidRequest("root", "the path must not hold commas, quotes, backslashes, $ or control characters")
    if not root.is_dir():
        raise InvalidRequest("root", f"{path} is not a directory")
    return path


def _sandbox_arguments(plan: Plan, root: str, environment: Mapping[str, str]) -> list[str]:
    options = {
        "--dialect": plan.dialect,
        "--tree": root,
        "--metadata-port": str(plan.metadata_port),
        "--onextree-port": str(plan.onextree_port),
    }
    traced = ["--traces"] if environment.get(_TRACING, "").lower() in ("1", "true", "yes", "on") else []
    return [
        "bridge_tasks.sandbox",
        "--or-any-port",
        *traced,
        *(part for option in options.items() for part in option),
    ]


def _worker_arguments(plan: Plan) -> list[str]:
    options = {"--pool": plan.pool, "--concurrency": str(plan.concurrency), "--loglevel": plan.log_level}
    alone = ("--without-mingle", "--without-gossip")  # there is no other worker to talk to: a second saved
    given = (part for option in options.items() for part in option)
    return ["celery", "-A", "bridge_tasks.app", "worker", *alone, *given]


def _flower_arguments(port: int) -> list[str]:
    options = (f"--address={HOST}", f"--port={port}", "--logging=info")  # its log tells the port
    return ["celery", "-A", "bridge_tasks.app", "flower", *options]


def _announced_urls(sandbox: LocalProcess) -> tuple[str, str]:
    """Wait for the line that the sandbox writes when it serves."""
    announced: dict[str, str] = {}

    def ready() -> bool:
        for line in sandbox.tail().splitlines():
            with suppress(ValueError):
                announced.update(json.loads(line))
        return bool(announced)

    sandbox.wait_ready(ready, _START_SECONDS)
    return announced["metadata_url"], announced["onextree_url"]


def _flower_url(process: LocalProcess) -> str:
    """Wait until Flower answers where it says it is: where we wanted it to be, somebody else's may answer."""

    def announced() -> list[str]:
        return _FLOWER_IS_AT.findall(process.log.read_text())

    process.wait_ready(lambda: bool(announced()), _START_SECONDS)
    url = announced()[-1]
    process.wait_ready(lambda: _page_answers(f"{url}/healthcheck"), _START_SECONDS)
    return url


def _worker_answers(redis_url: str) -> bool:
    with Celery(broker=redis_url, set_as_current=False) as client:
        return bool(client.control.inspect(timeout=0.5, limit=1).ping())


def _metrics_url(worker: LocalProcess) -> str:
    """Wait until the worker has told where its figures are."""

    def announced() -> list[str]:
        return _METRICS_ARE_AT.findall(worker.log.read_text())

    worker.wait_ready(lambda: bool(announced()), _START_SECONDS)
    return announced()[-1]


def _page_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - http, and our own
            return True
    except urllib.error.HTTPError as refused:  # it wants a password, and so it is there
        refused.close()
        return True
    except (urllib.error.URLError, OSError):
        return False
