"""Misconfigurations, planted one by one: each is found by its name, as bad as it is, with the line that helps."""

from dataclasses import replace
from typing import Any

import pytest

from bridge_tasks.checking import Severity, found, stopping
from bridge_tasks.checking.facts import (
    CeleryFacts,
    Facts,
    FlowerFacts,
    RabbitFacts,
    RedisFacts,
    RootFacts,
    ServiceFacts,
)

FATAL, WARNING, NOTE = Severity
GOOD = Facts()
NEAR, FAR = GOOD.redis[0], replace(GOOD.redis[0], host="redis.example", loopback=False)
SAFE = replace(FAR, tls=True, identified=True)


AWAY = RabbitFacts(host="rabbit.example", port=5671, loopback=False, tls=True, guest=False)


def redis(server: RedisFacts = NEAR, **facts: Any) -> Facts:
    return replace(GOOD, redis=(replace(server, **facts),))


def celery(**facts: Any) -> Facts:
    return replace(GOOD, celery=CeleryFacts(**facts))


def rabbit(*, far: bool = False, **facts: Any) -> Facts:
    return replace(GOOD, rabbit=replace(AWAY if far else RabbitFacts(), **facts))


def metadata(*urls: str, **facts: Any) -> Facts:
    return replace(GOOD, services=(ServiceFacts("metadata", urls or ("http://a",), **facts), GOOD.services[1]))


def root(path: str = "/srv/documents", **facts: Any) -> Facts:
    return replace(GOOD, roots=(RootFacts(path, **facts),))


PLANTED: list[tuple[str, Severity, str, Facts]] = [
    ("redis-away", FATAL, "redis-cli -h 127.0.0.1 -p 6379 PING", redis(trouble="away")),
    ("redis-login", FATAL, "USER:PASSWORD", redis(trouble="login")),
    ("redis-acl", FATAL, "ACL SETUSER", redis(denied=("EVAL",))),
    ("redis-version", FATAL, "6.2 or newer", redis(version=(5, 0, 14))),
    ("redis-version", FATAL, "6.2 or newer", redis(version=(6, 0, 16))),
    ("redis-cluster", FATAL, "--cluster-enabled no", redis(cluster=True)),
    ("redis-replica", FATAL, "INFO replication", redis(replica=True)),
    (
        "redis-open",
        FATAL,
        "CONFIG SET protected-mode yes",
        redis(open_door=True, listens_beyond=True, protected=False),
    ),
    ("redis-protected-mode", WARNING, "CONFIG SET protected-mode yes", redis(protected=False)),
    ("redis-no-password", FATAL, "rediss://USER:PASSWORD@redis.example", redis(SAFE, identified=False)),
    ("redis-no-tls", WARNING, "rediss://", redis(SAFE, tls=False)),
    ("redis-tls-unverified", WARNING, "ssl_cert_reqs=required", redis(SAFE, verified=False)),
    ("redis-untold", NOTE, "+config|get", redis(fsync=None)),
    ("redis-evicts", FATAL, "CONFIG SET maxmemory-policy noeviction", redis(policy="allkeys-lru", maxmemory=1)),
    ("redis-evicts", WARNING, "CONFIG SET maxmemory-policy noeviction", redis(policy="volatile-ttl")),
    ("redis-evicted", WARNING, "one of our own", redis(evicted=7)),
    ("redis-appendonly", WARNING, "CONFIG SET appendonly yes", redis(append_only=False)),
    ("redis-fsync", WARNING, "CONFIG SET appendfsync everysec", redis(fsync="no")),
    ("redis-alone", WARNING, "CONFIG SET min-replicas-to-write 1", redis(watched=True, copies=0)),
    ("redis-disk", FATAL, "df -h", redis(disk_well=False)),
    ("redis-full", WARNING, "CONFIG SET maxmemory 2000", redis(maxmemory=1000, used=950)),
    ("redis-clients", WARNING, "CONFIG SET maxclients 200", redis(clients=(95, 100))),
    ("redis-timeout", WARNING, "CONFIG SET timeout 0", redis(idle_timeout=10)),
    ("clock-skew", WARNING, "timedatectl set-ntp true", redis(skew=-90.0)),
    ("rabbit-away", FATAL, "check_port_connectivity", rabbit(trouble="away", version=None)),
    ("rabbit-login", FATAL, "amqp://USER:PASSWORD@127.0.0.1:5672/VHOST", rabbit(trouble="login", version=None)),
    ("rabbit-version", FATAL, "3.10 or newer", rabbit(version=(3, 6, 16))),
    ("rabbit-classic", FATAL, "delete_queue bridge.bulk", rabbit(classic=("bridge.bulk",))),
    ("rabbit-guest", FATAL, "delete_user guest", rabbit(far=True, guest=True)),
    ("rabbit-no-tls", WARNING, "amqps://USER:PASSWORD@rabbit.example:5671", rabbit(far=True, tls=False)),
    ("rabbit-tls-unverified", WARNING, "CERT_REQUIRED", rabbit(far=True, verified=False)),
    (
        "rabbit-consumer-timeout",
        WARNING,
        "consumer_timeout, 3600000",
        replace(
            GOOD,
            rabbit=RabbitFacts(),
            task_deadline=1765,
            celery=CeleryFacts(time_limit=1800, soft_time_limit=1770, visibility_timeout=None),
        ),
    ),
    (
        "transport",
        FATAL,
        "bridge_tasks.broker.rabbitmq:Transport",
        replace(rabbit(), celery=CeleryFacts(ours=False)),
    ),
    ("pickle", FATAL, '["json"]', celery(accepts=("json", "pickle"))),
    ("serializer", FATAL, '"json"', celery(writes=("msgpack",))),
    ("acks-early", FATAL, "task_acks_late = True", celery(acks_late=False)),
    ("acks-on-failure", WARNING, "task_acks_on_failure", celery(acks_on_failure=False)),
    ("poison", WARNING, "task_reject_on_worker_lost = False", celery(rejects_lost=True)),
    ("worker-lost", WARNING, "task_retry_on_worker_lost = True", celery(retries_lost=False)),
    (
        "visibility-timeout",
        FATAL,
        "BRIDGE_TASK__VISIBILITY_TIMEOUT=3600",
        replace(celery(visibility_timeout=900, time_limit=1800, soft_time_limit=1775), task_deadline=1770),
    ),
    ("visibility-countdown", FATAL, "BRIDGE_TASK__VISIBILITY_TIMEOUT=600", celery(visibility_timeout=200)),
    ("time-limit", FATAL, "task_time_limit = 150", celery(time_limit=100)),
    ("soft-time-limit", WARNING, "task_soft_time_limit = 125", celery(soft_time_limit=60)),
    ("no-time-limit", WARNING, "task_time_limit = 150", celery(time_limit=None)),
    ("lease", WARNING, "task_time_limit = 150", celery(time_limit=600)),
    ("transport", FATAL, "bridge_tasks.broker.redis:Transport", celery(ours=False)),
    ("broker-elsewhere", FATAL, "BRIDGE_BROKER_URL", celery(same_broker=False)),
    ("key-prefix", FATAL, "global_keyprefix", celery(prefix="shop:")),
    ("queues", FATAL, "task_queues +=", celery(undeclared=("bridge.audio",))),
    ("eager", FATAL, "task_always_eager = False", celery(eager=True)),
    ("no-results", FATAL, "BRIDGE_RESULT_BACKEND_URL", celery(results=False)),
    ("result-ttl", WARNING, "BRIDGE_TASK__RESULT_TTL=86400", celery(result_ttl=60)),
    ("prefetch", WARNING, "worker_disable_prefetch = True", celery(prefetch=4)),
    ("socket-timeout", WARNING, '["socket_timeout"] = 5', celery(socket_timeout=None)),
    ("gives-up", WARNING, "broker_connection_max_retries = None", celery(connection_retries=3)),
    ("remote-control", NOTE, "worker_enable_remote_control = True", celery(remote_control=False)),
    ("events", NOTE, "worker_send_task_events = True", celery(events=False)),
    (
        "replica-twice",
        WARNING,
        "BRIDGE_METADATA__URLS=http://a,http://b",
        metadata("http://a", "http://b", "http://a"),
    ),
    (
        "service-no-tls",
        WARNING,
        "https://stamps.example",
        metadata("http://stamps.example", open_urls=("http://stamps.example",)),
    ),
    ("same-service", WARNING, "BRIDGE_ONEXTREE__URLS", metadata("http://127.0.0.1:8058")),
    ("no-second-try", WARNING, "BRIDGE_METADATA__TIMEOUT=10", metadata(timeout=30.0)),
    ("call-deadline", WARNING, "BRIDGE_TASK__DEADLINE=600", metadata(deadline=300.0)),
    (
        "max-age",
        WARNING,
        "BRIDGE_LEDGER__MAX_AGE=62",
        replace(GOOD, max_age=30, celery=CeleryFacts(result_ttl=30)),
    ),
    ("no-root", NOTE, "BRIDGE_CONTENT__ROOTS=", replace(GOOD, roots=())),
    ("root-system", FATAL, "BRIDGE_CONTENT__ROOTS=/srv", root("/")),
    ("root-system", FATAL, "BRIDGE_CONTENT__ROOTS=/srv", root("/etc")),
    ("root-missing", FATAL, "mkdir -p /srv/documents", root(is_there=False)),
    ("root-unreadable", FATAL, "setfacl", root(readable=False)),
    ("root-writable", WARNING, "chmod o-w /srv/documents", root(writable_by_all=True)),
    ("root-readable", NOTE, "chmod o-rwx /srv/documents", root(readable_by_all=True)),
    ("root-secrets", WARNING, "BRIDGE_CONTENT__ROOTS=/home/a/documents", root("/home/a", secrets=(".ssh",))),
    (
        "inner-hosts",
        WARNING,
        "BRIDGE_CONTENT__HOSTS=docs.example",
        replace(GOOD, hosts=("169.254.169.254", "docs.example"), inner_hosts=("169.254.169.254",)),
    ),
    ("flower-open", FATAL, "FLOWER_BASIC_AUTH", replace(GOOD, flower=FlowerFacts(beyond=True, guarded=False))),
    ("flower-api", FATAL, "unset FLOWER_UNAUTHENTICATED_API", replace(GOOD, flower=FlowerFacts(open_api=True))),
    ("flower-password", WARNING, "openssl rand", replace(GOOD, flower=FlowerFacts(weak=True))),
    (
        "unknown-variable",
        WARNING,
        "export BRIDGE_METADATA__URLS=",
        replace(GOOD, misspelt={"BRIDGE_METADATA_URLS": "BRIDGE_METADATA__URLS"}),
    ),
    ("env-file", WARNING, "chmod go-w .bridge.env", replace(GOOD, ignored_file=".bridge.env")),
    ("look-seconds", WARNING, "BRIDGE_LEDGER__LOOK_SECONDS=2", replace(GOOD, look_seconds=0.1, beat_seconds=2)),
    ("debug-log", NOTE, "BRIDGE_LOG__LEVEL=INFO", replace(GOOD, log_level="DEBUG")),
    ("versions", WARNING, "pip install", replace(GOOD, versions={"celery": "6.0.1"})),
    ("root-user", NOTE, "su -s", replace(GOOD, root_user=True)),
]


def test_nothing_is_found_in_a_good_deployment() -> None:
    assert found(GOOD) == []


def test_nothing_is_found_in_a_good_deployment_over_a_network() -> None:
    services = tuple(ServiceFacts(name, (f"https://{name}.example",)) for name in ("metadata", "onextree"))
    over_it = replace(GOOD, redis=(SAFE,), services=services, flower=FlowerFacts(beyond=True))
    assert found(over_it) == []
    assert found(replace(over_it, rabbit=AWAY)) == []


@pytest.mark.parametrize(("name", "severity", "fix", "facts"), PLANTED, ids=[row[0] for row in PLANTED])
def test_what_is_planted_is_found_alone_with_what_helps(
    name: str, severity: Severity, fix: str, facts: Facts
) -> None:
    (finding,) = found(facts)
    assert (finding.id, finding.severity) == (name, severity)
    assert fix in finding.fix
    assert finding.what.endswith(".")
    assert finding.why.endswith(".")
    assert len(finding.fix.splitlines()) == 1


def test_what_somebody_lives_with_is_not_told() -> None:
    assert found(redis(append_only=False), ("redis-appendonly",)) == []


def test_the_worst_is_told_first() -> None:
    facts = replace(redis(append_only=False, policy="allkeys-lru", maxmemory=1), root_user=True)
    assert [one.severity for one in found(facts)] == [FATAL, WARNING, NOTE]


@pytest.mark.parametrize(("name", "severity"), [row[:2] for row in PLANTED])
def test_only_what_is_fatal_keeps_a_worker_from_starting(name: str, severity: Severity) -> None:
    facts = next(row[3] for row in PLANTED if row[:2] == (name, severity))
    assert bool(stopping(found(facts))) == (severity is FATAL and not name.endswith("-away"))


@pytest.mark.parametrize("server", [NEAR, FAR])
def test_a_redis_that_is_away_is_told_as_such_and_not_for_what_it_did_not_say(server: RedisFacts) -> None:
    away = replace(server, trouble="away", version=None, policy=None, append_only=None, fsync=None, tls=True)
    assert [one.id for one in found(replace(GOOD, redis=(away,)))] == ["redis-away"]


def test_a_redis_without_jobs_may_lose_what_it_has_at_a_restart() -> None:
    assert found(redis(roles=("state",), append_only=False)) == []
