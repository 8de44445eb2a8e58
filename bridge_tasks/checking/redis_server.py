"""Asks a Redis how it is set up. It writes nothing: what it tries, to see what we may do, leaves no trace."""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from bridge_tasks.checking.facts import RedisFacts, Role
from bridge_tasks.places import SENTINEL_PORT, Place
from bridge_tasks.tls import is_loopback

SECONDS = 5.0
"""For each answer: one that is slow is no Redis that is away."""
_NOBODY = "bridge:job:nobody"
_TRIED: Final[Mapping[str, tuple[Any, ...]]] = {
    "EVAL": ("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, _NOBODY),
    "BRPOP": ("BRPOP", "bridge.nobody", 0.05),
    "LINDEX": ("LINDEX", "bridge.nobody", 0),
    "RPOP": ("RPOP", "bridge.nobody"),
    "EXISTS (celery-task-meta-*)": ("EXISTS", "celery-task-meta-nobody"),
    "SMEMBERS (_kombu.binding.*)": ("SMEMBERS", "_kombu.binding.nobody"),
    "HVALS (unacked)": ("HVALS", "unacked"),
    "PUBLISH": ("PUBLISH", "bridge:v1:nobody", ""),
}
"""What needs no more than a look to be tried, of what we and Celery cannot do without."""


def ask(
    place: Place, variable: str, roles: tuple[Role, ...], clock: Callable[[], float] = time.time
) -> RedisFacts:
    """Ask one; where sentinels say which, whoever is master now.

    Args:
        place: where it is.
        variable: the setting that says so.
        roles: what it is used for.
        clock: seconds since the epoch, here.
    """
    known = _by_address(place, variable, roles)
    try:
        with place.client(
            retry=Retry(NoBackoff(), 0), socket_timeout=SECONDS, socket_connect_timeout=SECONDS
        ) as client:
            if isinstance(client.connection_pool, SentinelConnectionPool):
                host, port = client.connection_pool.get_master_address()  # type: ignore[no-untyped-call] # redis-py's
                known = replace(known, host=host, port=port, loopback=is_loopback(host))
            return _answered(client, known, clock)
    except redis.AuthenticationError:
        return replace(known, trouble="login")
    except redis.ResponseError as error:
        return replace(known, trouble="login" if str(error).startswith(("NOAUTH", "WRONGPASS")) else "away")
    except (redis.RedisError, OSError, ssl.SSLError, ValueError):
        return replace(known, trouble="away")


def _by_address(place: Place, variable: str, roles: tuple[Role, ...]) -> RedisFacts:
    """What the URL tells (the first, of sentinels); all that a server must say itself is unknown."""
    parts = urlsplit(place.url.partition(";")[0] if place.watched else place.url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    local = parts.scheme == "unix"
    return RedisFacts(
        roles=roles,
        variable=variable,
        host="" if local else parts.hostname or "localhost",
        port=parts.port or (SENTINEL_PORT if place.watched else 6379),
        loopback=local or is_loopback(parts.hostname or "localhost"),
        tls=parts.scheme == "rediss",
        verified=options.get("ssl_cert_reqs", "required").lower() not in ("none", "cert_none"),
        identified=bool(parts.password or options.get("password") or options.get("ssl_certfile")),
        version=None,
        policy=None,
        append_only=None,
        fsync=None,
        idle_timeout=None,
        protected=None,
        listens_beyond=None,
        skew=None,
        watched=place.watched,
    )


def _answered(client: redis.Redis, known: RedisFacts, clock: Callable[[], float]) -> RedisFacts:
    before = clock()
    seconds, micro = client.time()
    after = clock()
    told = _info(client)
    config = _config(client)
    numbers = {name: int(told.get(name, 0)) for name in ("maxmemory", "used_memory", "evicted_keys")}
    most = int(config.get("maxclients", told.get("maxclients", 0)))
    return replace(
        known,
        denied=tuple(name for name, command in _TRIED.items() if not _may(client, command)),
        version=_version(str(told["redis_version"])) if "redis_version" in told else None,
        cluster=bool(told.get("cluster_enabled")),
        replica=told.get("role") == "slave",
        policy=told.get("maxmemory_policy"),
        maxmemory=numbers["maxmemory"],
        used=numbers["used_memory"],
        evicted=numbers["evicted_keys"],
        copies=int(config["min-replicas-to-write"]) if "min-replicas-to-write" in config else None,
        append_only=bool(told["aof_enabled"]) if "aof_enabled" in told else None,
        fsync=config.get("appendfsync"),
        disk_well=_disk_well(told, config),
        idle_timeout=int(config["timeout"]) if "timeout" in config else None,
        protected=config["protected-mode"] == "yes" if "protected-mode" in config else None,
        listens_beyond=_beyond(config["bind"]) if "bind" in config else None,
        open_door=not config["requirepass"] if "requirepass" in config and not known.identified else None,
        clients=(int(told.get("connected_clients", 0)), most) if most else None,
        skew=int(seconds) + int(micro) / 1_000_000 - (before + after) / 2,
    )


def _info(client: redis.Redis) -> Mapping[str, Any]:
    """Read what the server says of itself; empty where our user may not ask: it is no server that is away."""
    try:
        answer: Mapping[str, Any] = client.info()
    except NoPermissionError:
        return {}
    return answer


def _version(told: str) -> tuple[int, ...]:
    return tuple(int(part) for part in told.split(".") if part.isdigit())


def _config(client: redis.Redis) -> dict[str, str]:
    """Read the configuration; empty where we may not, as with most that are rented."""
    try:
        answer: Any = client.config_get("*")
    except redis.ResponseError:
        return {}
    return {_text(name): _text(value) for name, value in answer.items()}


def _may(client: redis.Redis, command: tuple[Any, ...]) -> bool:
    try:
        client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's own gap
    except NoPermissionError:
        return False
    except redis.ResponseError as error:
        return "The user executing the script can't" not in str(error)  # of a command within it
    return True


def _disk_well(told: Mapping[str, Any], config: Mapping[str, str]) -> bool:
    """Say whether it takes writes: it refuses them after one to disk that failed, unless told not to."""
    snapshot = told.get("rdb_last_bgsave_status", "ok") == "ok"
    careless = config.get("stop-writes-on-bgsave-error") == "no"
    return (snapshot or careless) and told.get("aof_last_write_status", "ok") == "ok"


def _beyond(bind: str) -> bool:
    """Read `bind`: nothing, or a star, is every address; a dash before one means `if there is such`."""
    addresses = bind.split()
    return not addresses or not all(is_loopback(one.lstrip("-")) for one in addresses)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
