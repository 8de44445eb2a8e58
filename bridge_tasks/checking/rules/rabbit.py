"""Whether a RabbitMQ can carry jobs, and who gets in. Pure."""

from collections.abc import Iterator

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, fatal, warning

OLDEST = (3, 8)
"""The first with quorum queues."""
CONSUMER_SECONDS = 1800
"""RabbitMQ's own limit, unless it was told another: then it takes back what a worker has not acknowledged."""


def _answers(facts: Facts) -> Iterator[Finding]:
    one = facts.rabbit
    if one is None:
        return
    if one.trouble == "away":
        yield fatal(
            "rabbit-away",
            f"{one.variable}: RabbitMQ at {one.address} does not answer.",
            "Nothing can be submitted, and workers wait for it.",
            "rabbitmq-diagnostics check_port_connectivity",
        )
    elif one.trouble == "login":
        yield fatal(
            "rabbit-login",
            f"{one.variable}: RabbitMQ at {one.address} refuses our user, password or virtual host.",
            "Nothing can be submitted, and no worker can work.",
            f"export {one.variable}={one.scheme}://USER:PASSWORD@{one.host}:{one.port}/VHOST",
        )
    if one.version is not None and one.version[:2] < OLDEST:
        yield fatal(
            "rabbit-version",
            f"{one.variable}: the server at {one.address} is {'.'.join(map(str, one.version))}.",
            "It has no quorum queues.",
            "apt-get install rabbitmq-server  # 3.10 or newer",
        )
    if one.classic:
        yield fatal(
            "rabbit-classic",
            f"{one.variable}: {', '.join(one.classic)} at {one.address} are classic queues.",
            "They are lost with their node, and nobody can declare them as the quorum queues that we use.",
            f"rabbitmqctl delete_queue {one.classic[0]}  # once it is empty",
        )


def _locked(facts: Facts) -> Iterator[Finding]:
    one = facts.rabbit
    if one is None or one.loopback:
        return
    if one.guest:
        yield fatal(
            "rabbit-guest",
            f"{one.variable}: RabbitMQ at {one.address} is reached over a network as guest.",
            "Everybody knows that user, and it may do everything: send any job, and read all.",
            "rabbitmqctl add_user bridge PASSWORD && rabbitmqctl delete_user guest",
        )
    if not one.tls:
        yield warning(
            "rabbit-no-tls",
            f"{one.variable}: RabbitMQ at {one.address} is reached over a network without TLS.",
            "Passwords, paths and jobs can be read, and changed, on the way.",
            f"export {one.variable}=amqps://USER:PASSWORD@{one.host}:5671/VHOST",
        )
    elif not one.verified:
        yield warning(
            "rabbit-tls-unverified",
            f"{one.variable}: the certificate of {one.address} is not looked at.",
            "Whoever stands between can say that he is RabbitMQ.",
            'broker_use_ssl = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}',
        )


def _gives_time(facts: Facts) -> Iterator[Finding]:
    longest = max(facts.task_deadline, facts.celery.time_limit or 0)
    if facts.rabbit is not None and longest >= CONSUMER_SECONDS:
        yield warning(
            "rabbit-consumer-timeout",
            f"A run may take {longest:g} s.",
            f"After {CONSUMER_SECONDS} s, unless it was told otherwise, RabbitMQ closes the worker's channel.",
            f"rabbitmqctl eval 'application:set_env(rabbit, consumer_timeout, {int(2 * longest)}000).'",
        )


RULES = (_answers, _locked, _gives_time)
