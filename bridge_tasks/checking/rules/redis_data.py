"""Whether a Redis keeps what it was given, and has room for more. Pure."""

from collections.abc import Iterator

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, fatal, warning

SKEW_SECONDS = 2.0
FULL = 0.9
IDLE_SECONDS = 60
"""Workers say something to Redis at least every half minute."""


def _keeps(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if one.policy not in (None, "noeviction"):
            find = fatal if one.maxmemory and "jobs" in one.roles else warning
            yield find(
                "redis-evicts",
                f"{one.variable}: maxmemory-policy is {one.policy} at {one.address}.",
                "When memory is short it throws away jobs and their records, and tells nobody.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET maxmemory-policy noeviction",
            )
        elif one.evicted:
            yield warning(
                "redis-evicted",
                f"{one.variable}: {one.address} has thrown away {one.evicted} keys since it started.",
                "Jobs may be among them; somebody else's cache may share this server.",
                "redis-server --port 6380 --maxmemory-policy noeviction  # one of our own",
            )


def _survives(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if "jobs" not in one.roles:
            continue
        if one.append_only is False:
            yield warning(
                "redis-appendonly",
                f"{one.variable}: appendonly is no at {one.address}.",
                "When Redis or its machine dies, jobs that were accepted are gone.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET appendonly yes",
            )
        elif one.append_only and one.fsync == "no":
            yield warning(
                "redis-fsync",
                f"{one.variable}: appendfsync is no at {one.address}.",
                "When its machine dies, up to half a minute of accepted jobs is gone.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET appendfsync everysec",
            )
        if one.watched and one.copies == 0:
            yield warning(
                "redis-alone",
                f"{one.variable}: min-replicas-to-write is 0 at {one.address}.",
                "When it is cut off from its replicas, it goes on taking jobs that nobody else will know of.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET min-replicas-to-write 1  # at each of them",
            )
        if not one.disk_well:
            yield fatal(
                "redis-disk",
                f"{one.variable}: the last write to disk failed at {one.address}.",
                "Redis refuses writes then: nothing can be submitted, and no job can end.",
                "df -h  # where `redis-cli CONFIG GET dir` says; then redis-cli BGSAVE",
            )


def _has_room(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if one.maxmemory and one.used > FULL * one.maxmemory:
            yield warning(
                "redis-full",
                f"{one.variable}: {one.address} uses {one.used / one.maxmemory:.0%} of its maxmemory.",
                "When it is full, submissions are refused and workers cannot note what they did.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET maxmemory {2 * one.maxmemory}",
            )
        if one.clients and one.clients[0] > FULL * one.clients[1]:
            yield warning(
                "redis-clients",
                f"{one.variable}: {one.clients[0]} of {one.clients[1]} connections are taken at {one.address}.",
                "The next worker or producer is turned away.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET maxclients {2 * one.clients[1]}",
            )
        if one.idle_timeout and one.idle_timeout < IDLE_SECONDS:
            yield warning(
                "redis-timeout",
                f"{one.variable}: {one.address} closes connections that are idle for {one.idle_timeout} s.",
                "Workers that wait for jobs lose their connection again and again.",
                f"redis-cli -h {one.host} -p {one.port} CONFIG SET timeout 0",
            )


def _agrees_on_the_time(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if one.skew is not None and abs(one.skew) > SKEW_SECONDS:
            yield warning(
                "clock-skew",
                f"The clock of {one.address} is {abs(one.skew):.0f} s {'ahead of' if one.skew > 0 else 'behind'} "
                "the one here.",
                "Countdowns and expiry times are reckoned by the worker's clock, ages by Redis's.",
                "timedatectl set-ntp true",
            )


RULES = (_keeps, _survives, _has_room, _agrees_on_the_time)
