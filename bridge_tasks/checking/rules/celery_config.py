"""Celery's configuration against what the ledger promises. Where it is ours unchanged, nothing is found. Pure."""

from collections.abc import Iterator

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, fatal, note, warning

LEASE_MARGIN = 40
"""A run's claim is good for the deadline and so many seconds (bridge_tasks.tasks.claiming)."""

_CODE = ("pickle", "application/x-python-serialize", "yaml", "application/x-yaml")


def _reads_data_only(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    for name in sorted(set(celery.accepts) & set(_CODE)):
        yield fatal(
            "pickle",
            f"accept_content or result_accept_content has {name} ({celery.module}).",
            "Whoever can write to the queue runs any code in every worker.",
            'accept_content = result_accept_content = ["json"]',
        )
    if other := sorted(set(celery.writes) - set(celery.accepts)):
        yield fatal(
            "serializer",
            f"Tasks or results are written as {', '.join(other)}, which is not accepted ({celery.module}).",
            "No worker can read its messages, or nobody their results.",
            'task_serializer = result_serializer = "json"',
        )


def _keeps_messages(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    if not celery.acks_late:
        yield fatal(
            "acks-early",
            f"task_acks_late is off ({celery.module}).",
            "A message is gone as soon as a worker has it: what the worker was at when it died waits for the "
            "reconciler at best.",
            "task_acks_late = True",
        )
    if not celery.acks_on_failure:
        yield warning(
            "acks-on-failure",
            f"task_acks_on_failure is off ({celery.module}).",
            "A job that failed comes back after the visibility timeout, again and again.",
            "task_acks_on_failure = task_acks_on_timeout = True",
        )
    if celery.rejects_lost:
        yield warning(
            "poison",
            f"task_reject_on_worker_lost is on ({celery.module}).",
            "A job that kills its worker is put back without a limit, and kills the next one.",
            "task_reject_on_worker_lost = False; task_retry_on_worker_lost = True",
        )
    elif not celery.retries_lost:
        yield warning(
            "worker-lost",
            f"task_retry_on_worker_lost is off ({celery.module}).",
            "A job whose process was killed fails at once, where another try would do it.",
            "task_retry_on_worker_lost = True",
        )


def _times_fit(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    longest = max(facts.task_deadline, celery.time_limit or 0)
    if celery.visibility_timeout is not None and celery.visibility_timeout < longest:
        yield fatal(
            "visibility-timeout",
            f"The visibility timeout is {celery.visibility_timeout:g} s, and a run may take {longest:g} s.",
            "Redis gives the message to a second worker while the first is still at it.",
            f"export BRIDGE_TASK__VISIBILITY_TIMEOUT={int(2 * max(longest, facts.retry_maximum))}",
        )
    if celery.visibility_timeout is not None and celery.visibility_timeout <= facts.retry_maximum:
        yield fatal(
            "visibility-countdown",
            f"The visibility timeout is {celery.visibility_timeout:g} s, and a countdown may be "
            f"{facts.retry_maximum:g} s.",
            "A task that waits for its next try is given to a second worker meanwhile.",
            f"export BRIDGE_TASK__VISIBILITY_TIMEOUT={int(2 * max(longest, facts.retry_maximum))}",
        )
    if celery.time_limit is not None and celery.time_limit <= facts.task_deadline:
        yield fatal(
            "time-limit",
            f"task_time_limit is {celery.time_limit:g} s, and our own deadline {facts.task_deadline:g} s.",
            "Processes are killed in the middle of a call: nobody knows what the service did.",
            f"task_time_limit = {facts.task_deadline + 30:g}",
        )
    elif celery.soft_time_limit is not None and celery.soft_time_limit <= facts.task_deadline:
        yield warning(
            "soft-time-limit",
            f"task_soft_time_limit is {celery.soft_time_limit:g} s, and our deadline {facts.task_deadline:g} s.",
            "Runs are interrupted wherever they are, instead of ending at a place of ours.",
            f"task_soft_time_limit = {facts.task_deadline + 5:g}",
        )
    if celery.time_limit is None:
        yield warning(
            "no-time-limit",
            f"There is no task_time_limit ({celery.module}).",
            "A process that hangs where no deadline reaches it hangs for ever.",
            f"task_time_limit = {facts.task_deadline + 30:g}",
        )
    elif celery.time_limit > facts.task_deadline + LEASE_MARGIN:
        yield warning(
            "lease",
            f"task_time_limit is {celery.time_limit:g} s, and a claim is good for "
            f"{facts.task_deadline + LEASE_MARGIN:g} s.",
            "A run that takes longer may be begun by a second worker.",
            f"task_time_limit = {facts.task_deadline + 30:g}",
        )


def _goes_through_the_ledger(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    if celery.ours is False:
        kind = "redis" if facts.rabbit is None else "rabbitmq"
        yield fatal(
            "transport",
            f"broker_transport is not ours ({celery.module}).",
            "Messages are sent without records: nothing is found, replayed or put back.",
            f'broker_transport = "bridge_tasks.broker.{kind}:Transport"',
        )
    if not celery.same_broker:
        yield fatal(
            "broker-elsewhere",
            f"broker_url is another one than BRIDGE_BROKER_URL or BRIDGE_REDIS_URL names ({celery.module}).",
            "Messages are in one Redis and their records looked for in another.",
            "broker_url = _settings.broker  # leave it to BRIDGE_BROKER_URL",
        )
    if celery.prefix:
        yield fatal(
            "key-prefix",
            f"global_keyprefix is set ({celery.module}).",
            "The ledger's scripts write to the plain names of queues, where no worker looks.",
            'broker_transport_options.pop("global_keyprefix")  # use a database of your own',
        )
    if celery.undeclared:
        yield fatal(
            "queues",
            f"Tasks are routed to {', '.join(celery.undeclared)}, which task_queues does not name.",
            "No worker reads that queue: those jobs wait for ever.",
            "task_queues += [Queue(NAME, Exchange(NAME), routing_key=NAME)]",
        )
    if celery.eager:
        yield fatal(
            "eager",
            f"task_always_eager is on ({celery.module}).",
            "Tasks run where they are submitted: no queue, no record, no retry.",
            "task_always_eager = False",
        )


def _answers_and_results(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    if not celery.results:
        yield fatal(
            "no-results",
            f"There is no result backend ({celery.module}).",
            "Chords never end, and nobody gets an answer.",
            "export BRIDGE_RESULT_BACKEND_URL=redis://127.0.0.1:6379/0",
        )
    elif celery.result_ttl is not None and celery.result_ttl < facts.max_age:
        yield warning(
            "result-ttl",
            f"Results are kept for {celery.result_ttl:g} s, and a job may take {facts.max_age:g} s.",
            "A chord that waits longer finds its members' results gone, and never ends.",
            f"export BRIDGE_TASK__RESULT_TTL={facts.max_age:g}",
        )


def _ends_in_time(facts: Facts) -> Iterator[Finding]:
    celery = facts.celery
    if celery.prefetch:
        yield warning(
            "prefetch",
            f"A worker takes {celery.prefetch} messages for each slot, beyond those it is at ({celery.module}).",
            "They wait behind a long job while other workers have nothing to do.",
            "worker_disable_prefetch = True; worker_prefetch_multiplier = 1",
        )
    if celery.socket_timeout is None:
        yield warning(
            "socket-timeout",
            f"broker_transport_options has no socket_timeout ({celery.module}).",
            "Whoever submits over a connection that died waits for ever.",
            'broker_transport_options["socket_timeout"] = 5',
        )
    if celery.connection_retries is not None:
        yield warning(
            "gives-up",
            f"A worker tries {celery.connection_retries} times to come back to its broker, and ends "
            f"({celery.module}).",
            "After a longer outage there is no worker.",
            "broker_connection_max_retries = None",
        )


def _can_be_watched(facts: Facts) -> Iterator[Finding]:
    if not facts.celery.remote_control:
        yield note(
            "remote-control",
            f"worker_enable_remote_control is off ({facts.celery.module}).",
            "`bridge-tasks health` cannot tell which queues a worker has paused.",
            "worker_enable_remote_control = True",
        )
    if not facts.celery.events:
        yield note(
            "events",
            f"worker_send_task_events is off ({facts.celery.module}).",
            "Flower shows no task.",
            "worker_send_task_events = True",
        )


RULES = (
    _reads_data_only,
    _keeps_messages,
    _times_fit,
    _goes_through_the_ledger,
    _answers_and_results,
    _ends_in_time,
    _can_be_watched,
)
