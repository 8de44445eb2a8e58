"""Gathers the facts of this process's deployment: its settings, Celery's configuration, the environment, the disk.

It looks, and changes nothing. Each Redis is asked once (`redis_server`).
"""

import difflib
import ipaddress
import os
import ssl
import stat
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kombu.transport import get_transport_cls

from bridge_tasks.checking import rabbit_server
from bridge_tasks.checking.facts import (
    CeleryFacts,
    Facts,
    FlowerFacts,
    RabbitFacts,
    RedisFacts,
    Role,
    RootFacts,
    ServiceFacts,
)
from bridge_tasks.checking.redis_server import ask
from bridge_tasks.configuration import PREFIX, all_settings, known
from bridge_tasks.settings import ENV_FILE, FlowerSettings, ServiceSettings, Settings, own_file
from bridge_tasks.tls import is_loopback

OUR_TRANSPORTS: Final = frozenset(
    {"bridge_tasks.broker.redis:Transport", "bridge_tasks.broker.rabbitmq:Transport"}
)
RABBIT_SECONDS: Final = 10.0
"""Our transport for RabbitMQ waits no longer for any answer."""

_SECRETS = (".ssh", ".aws", ".gnupg", ".kube", ".netrc", ".env", ".pgpass", ".docker")
_METADATA_HOSTS = ("metadata.google.internal", "localhost")
_SHORT = 8
"""Characters of a password that anybody can have tried within a day."""
_YES = ("1", "true", "yes", "on")
_PACKAGES = ("celery", "kombu", "redis")


def gather(settings: Settings, conf: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Facts:
    """Gather all facts; each Redis gets some seconds to answer.

    Args:
        settings: the tree from the environment.
        conf: Celery's configuration (`app.conf`).
        environment: the variables themselves: of Flower, and those that are no setting.
    """
    task = settings.task
    return Facts(
        redis=tuple(_redis(settings)),
        rabbit=_rabbit(settings, conf),
        celery=_celery(settings, conf, environment.get("CELERY_CONFIG_MODULE", "bridge_tasks.celeryconfig")),
        services=(_service("metadata", settings.metadata), _service("onextree", settings.onextree)),
        roots=tuple(map(_root, settings.content.roots)),
        hosts=settings.content.hosts,
        inner_hosts=tuple(filter(_is_inner, settings.content.hosts)),
        flower=_flower(settings.flower, environment),
        task_deadline=task.deadline,
        retry_maximum=task.retry.maximum,
        retry_total=task.retry.longest,
        max_age=settings.ledger.max_age,
        look_seconds=settings.ledger.look_seconds,
        beat_seconds=settings.ledger.beat_seconds,
        log_level=settings.log.level,
        root_user=os.geteuid() == 0,
        versions={package: _version(package) for package in _PACKAGES},
        misspelt=_misspelt(environment),
        ignored_file=_ignored(ENV_FILE),
    )


def _redis(settings: Settings) -> list[RedisFacts]:
    """Ask each server once, whatever it is used for."""
    used: dict[str, tuple[str, list[Role]]] = {}
    shared = settings.redis_url.get_secret_value()
    jobs = "BRIDGE_BROKER_URL" if settings.broker_url and settings.redis_broker else "BRIDGE_REDIS_URL"
    results = "BRIDGE_RESULT_BACKEND_URL" if settings.result_backend_url else "BRIDGE_REDIS_URL"
    for url, variable, role in (
        (settings.ledger_url, jobs, "jobs"),
        (settings.result_backend, results, "results"),
        (shared, "BRIDGE_REDIS_URL", "state"),
    ):
        used.setdefault(url, (variable, []))[1].append(role)  # type: ignore[arg-type] # literals, all three
    return [ask(settings.place(url), variable, tuple(roles)) for url, (variable, roles) in used.items()]


def _rabbit(settings: Settings, conf: Mapping[str, Any]) -> RabbitFacts | None:
    """Ask RabbitMQ, where it carries the messages."""
    if not settings.rabbit_broker:
        return None
    tls = conf["broker_use_ssl"]
    verified = isinstance(tls, Mapping) and tls.get("cert_reqs") == ssl.CERT_REQUIRED
    queues = [queue.name for queue in conf["task_queues"] or ()]
    return rabbit_server.ask(settings.broker, "BRIDGE_BROKER_URL", queues, verified=verified)


def _celery(settings: Settings, conf: Mapping[str, Any], module: str) -> CeleryFacts:
    transport, results = conf["broker_transport_options"] or {}, conf["result_backend"]
    declared = {queue.name for queue in conf["task_queues"] or ()}
    routes = conf["task_routes"] or {}
    routed = {route["queue"] for route in routes.values() if isinstance(route, Mapping) and "queue" in route}
    formats = ("task_serializer", "result_serializer")
    accepted = [*(conf["accept_content"] or ()), *(conf["result_accept_content"] or ())]
    return CeleryFacts(
        module=module,
        ours=_is_ours(conf["broker_transport"]) if settings.transport else None,
        same_broker=conf["broker_url"] == settings.broker,
        prefix=str(transport.get("global_keyprefix") or ""),
        accepts=tuple(dict.fromkeys(accepted)),
        writes=tuple(dict.fromkeys(str(conf[name]) for name in formats)),
        acks_late=bool(conf["task_acks_late"]),
        acks_on_failure=_acks_on_failure(conf),
        retries_lost=bool(conf["task_retry_on_worker_lost"]),
        rejects_lost=bool(conf["task_reject_on_worker_lost"]),
        visibility_timeout=float(transport.get("visibility_timeout", 3600)) if settings.redis_broker else None,
        time_limit=_seconds(conf["task_time_limit"]),
        soft_time_limit=_seconds(conf["task_soft_time_limit"]),
        prefetch=_taken_ahead(settings, conf),
        eager=bool(conf["task_always_eager"]),
        results=bool(results) and not str(results).startswith("disabled"),
        result_ttl=_seconds(conf["result_expires"]),
        socket_timeout=RABBIT_SECONDS if settings.rabbit_broker else _seconds(transport.get("socket_timeout")),
        connection_retries=conf["broker_connection_max_retries"],
        undeclared=tuple(sorted((routed | {conf["task_default_queue"]}) - declared)),
        remote_control=bool(conf["worker_enable_remote_control"]),
        events=bool(conf["worker_send_task_events"]),
    )


def _taken_ahead(settings: Settings, conf: Mapping[str, Any]) -> int:
    """Count what a worker takes for each slot beyond what it must: from RabbitMQ that is one, of each queue."""
    ahead = max(0, int(conf["worker_prefetch_multiplier"]))
    if settings.rabbit_broker:
        return max(0, ahead - 1)
    return 0 if conf["worker_disable_prefetch"] else ahead


def _is_ours(transport: str | None) -> bool:
    """Say whether a transport is ours, or made of ours; by its name, since it is on a higher floor."""
    try:
        kind: Any = get_transport_cls(transport or "redis")
        made_of = kind.__mro__
    except (ImportError, AttributeError, KeyError):
        return False
    return any(f"{one.__module__}:{one.__qualname__}" in OUR_TRANSPORTS for one in made_of)


def _acks_on_failure(conf: Mapping[str, Any]) -> bool:
    """Celery 5.7 has a switch for each of the two, and an older one for both."""
    each = (conf["task_acks_on_failure"], conf["task_acks_on_timeout"])
    return all(conf["task_acks_on_failure_or_timeout"] if one is None else one for one in each)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    return float(value.total_seconds()) if hasattr(value, "total_seconds") else float(value)


def _service(name: str, settings: ServiceSettings) -> ServiceFacts:
    parts = {url: urlsplit(url) for url in settings.urls}
    open_urls = tuple(
        url for url, one in parts.items() if one.scheme == "http" and not is_loopback(one.hostname or "")
    )
    return ServiceFacts(name, settings.urls, open_urls, settings.timeout, settings.deadline)


def _root(path: str) -> RootFacts:
    try:
        found = Path(path).stat()
    except PermissionError:
        return RootFacts(path, readable=False)
    except OSError:
        return RootFacts(path, is_there=False)
    others, sticky = found.st_mode & stat.S_IRWXO, found.st_mode & stat.S_ISVTX
    return RootFacts(
        path,
        is_there=stat.S_ISDIR(found.st_mode),
        readable=os.access(path, os.R_OK | os.X_OK),
        writable_by_all=bool(others & stat.S_IWOTH) or bool(sticky and others),
        readable_by_all=bool(others & stat.S_IROTH),
        secrets=tuple(name for name in _SECRETS if os.path.lexists(os.path.join(path, name))),  # noqa: PTH118 - not followed
    )


def _is_inner(host: str) -> bool:
    """Say whether a host is inside: this machine, a private network, what a cloud tells its machines."""
    if host in _METADATA_HOSTS:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local


def _flower(settings: FlowerSettings, environment: Mapping[str, str]) -> FlowerFacts | None:
    """Read what Flower would read, and as its guard does; None where nothing here is for Flower."""
    told = {name: value for name, value in environment.items() if name.startswith("FLOWER_")}
    if not told:
        return None
    asked_for = settings.credentials(told.get("FLOWER_BASIC_AUTH", "").split(","))
    pairs = [pair.partition(":")[::2] for pair in asked_for]
    address = told.get("FLOWER_ADDRESS", "")  # none given: the guard has it listen on this machine only
    return FlowerFacts(
        beyond=bool(address) and not is_loopback(address) and not told.get("FLOWER_UNIX_SOCKET"),
        guarded=bool(asked_for or told.get("FLOWER_AUTH")),
        weak=any(len(password) < _SHORT or password == user for user, password in pairs),
        open_api=told.get("FLOWER_UNAUTHENTICATED_API", "").lower() in _YES,
    )


def _ignored(file: str) -> str | None:
    """Return a file of settings that is there, and not read."""
    there = os.path.lexists(file)  # Path.exists raises where it may not look
    return file if there and own_file(file) is None else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Find variables that begin like ours and are none, and what may have been meant by each."""
    settings = all_settings()
    names = [one.name for one in settings]
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and not known(name, settings))
    return {name: _nearest(name.upper(), names) for name in unknown}


def _nearest(name: str, names: Sequence[str]) -> str:
    same = [one for one in names if one.replace("_", "") == name.replace("_", "")]
    return next(iter(same or difflib.get_close_matches(name, names, n=1)), "")
