"""Who gets into a Redis, and whether it is one that serves us at all. Pure."""

from collections.abc import Iterator

from bridge_tasks.checking.facts import Facts, RedisFacts
from bridge_tasks.checking.findings import Finding, fatal, note, warning

OLDEST = (6, 2)
"""What Celery 5.7 and our scripts run on."""


def _answers(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if one.trouble == "away":
            yield fatal(
                "redis-away",
                f"{one.variable}: Redis at {one.address} does not answer.",
                "Nothing can be submitted, and workers wait for it.",
                f"redis-cli -h {one.host} -p {one.port} PING",
            )
        elif one.trouble == "login":
            yield fatal(
                "redis-login",
                f"{one.variable}: Redis at {one.address} refuses our user or password.",
                "Nothing can be submitted, and no worker can work.",
                f"export {one.variable}=redis://USER:PASSWORD@{one.host}:{one.port}/0",
            )
        if one.denied:
            yield fatal(
                "redis-acl",
                f"{one.variable}: our user may not run {', '.join(one.denied)} on {one.address}.",
                "Messages, records and circuits are written by scripts: jobs fail halfway where one is refused.",
                "redis-cli ACL SETUSER bridge on '>PASSWORD' '~*' '&*' +@all -@admin -@dangerous +info +keys",
            )


def _serves(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if one.version is not None and one.version[:2] < OLDEST:
            yield fatal(
                "redis-version",
                f"{one.variable}: the server at {one.address} is {'.'.join(map(str, one.version))}.",
                "Celery 5.7 and the ledger's scripts need 6.2 or newer.",
                "apt-get install redis-server  # 6.2 or newer",
            )
        if one.cluster:
            yield fatal(
                "redis-cluster",
                f"{one.variable}: {one.address} is a shard of a cluster.",
                "A message and its record are written by one script, over keys that a cluster spreads.",
                "redis-server --cluster-enabled no",
            )
        if one.replica:
            yield fatal(
                "redis-replica",
                f"{one.variable}: {one.address} is a replica.",
                "It refuses writes: nothing can be submitted.",
                f"redis-cli -h {one.host} -p {one.port} INFO replication  # has the address of its master",
            )


def _open_to_all(one: RedisFacts) -> bool:
    return bool(one.open_door and one.listens_beyond and one.protected is False)


def _locked(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if _open_to_all(one):
            yield fatal(
                "redis-open",
                f"{one.variable}: Redis at {one.address} listens beyond its machine, asks for no password, and "
                "protected-mode is no.",
                "Whoever reaches it can read every job, send any, and take over the machine it is on.",
                "redis-cli CONFIG SET protected-mode yes  # and in redis.conf: requirepass, bind 127.0.0.1",
            )
        elif one.protected is False:
            yield warning(
                "redis-protected-mode",
                f"{one.variable}: protected-mode is no at {one.address}.",
                "One change of `bind`, or one lost password, and it is open to the network.",
                "redis-cli CONFIG SET protected-mode yes",
            )
        if not one.loopback and not one.identified and not one.trouble:
            yield fatal(
                "redis-no-password",
                f"{one.variable}: Redis at {one.address} is reached over a network without a password.",
                "Whoever reaches it can read every job, and send any that a worker may do.",
                f"export {one.variable}=rediss://USER:PASSWORD@{one.host}:{one.port}/0",
            )


def _private(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if not one.loopback and not one.tls:
            yield warning(
                "redis-no-tls",
                f"{one.variable}: Redis at {one.address} is reached over a network without TLS.",
                "Passwords, paths and results can be read, and changed, on the way.",
                f"export {one.variable}=rediss://USER:PASSWORD@{one.host}:{one.port}/0",
            )
        if one.tls and not one.verified:
            yield warning(
                "redis-tls-unverified",
                f"{one.variable}: the certificate of {one.address} is not looked at (ssl_cert_reqs=none).",
                "Whoever stands between can say that he is Redis.",
                f"export {one.variable}='rediss://USER:PASSWORD@{one.host}:{one.port}/0?ssl_cert_reqs=required'",
            )


def _told(facts: Facts) -> Iterator[Finding]:
    for one in facts.redis:
        if not one.trouble and one.fsync is None:
            yield note(
                "redis-untold",
                f"{one.variable}: {one.address} does not let us read its configuration (CONFIG GET).",
                "How often it writes to disk, and who gets in, was not looked at.",
                "redis-cli ACL SETUSER bridge +config|get",
            )


RULES = (_answers, _serves, _locked, _private, _told)
