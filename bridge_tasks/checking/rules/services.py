"""How the services are called, and what jobs may read. Pure."""

from collections import Counter
from collections.abc import Iterator

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, fatal, note, warning

_SYSTEM = ("/", "/etc", "/root", "/proc", "/sys", "/dev", "/run", "/var", "/var/run", "/home")


def _replicas(facts: Facts) -> Iterator[Finding]:
    for service in facts.services:
        variable = f"BRIDGE_{service.name.upper()}__URLS"
        twice = [url for url, count in Counter(service.urls).items() if count > 1]
        if twice:
            once = ",".join(dict.fromkeys(service.urls))
            yield warning(
                "replica-twice",
                f"{variable} names {', '.join(twice)} more than once.",
                "A replica that is down is taken for two, and one that works gets twice the calls.",
                f"export {variable}={once}",
            )
        if service.open_urls:
            safe = ",".join(
                url.replace("http://", "https://", 1) if url in service.open_urls else url for url in service.urls
            )
            yield warning(
                "service-no-tls",
                f"{variable}: {', '.join(service.open_urls)} is reached over a network without TLS.",
                "Documents can be read, and answers changed, on the way.",
                f"export {variable}={safe}",
            )
    shared = set.intersection(*(set(service.urls) for service in facts.services)) if facts.services else set()
    if len(facts.services) > 1 and shared:
        yield warning(
            "same-service",
            f"Both services are said to be at {', '.join(sorted(shared))}.",
            "One of them answers 404 to everything, and jobs fail for good.",
            "export BRIDGE_ONEXTREE__URLS=http://127.0.0.1:8058",
        )


def _times(facts: Facts) -> Iterator[Finding]:
    for service in facts.services:
        prefix = f"BRIDGE_{service.name.upper()}"
        if service.timeout >= service.deadline:
            yield warning(
                "no-second-try",
                f"{prefix}__TIMEOUT is {service.timeout:g} s, and {prefix}__DEADLINE {service.deadline:g} s.",
                "One try that hangs uses up the time of all: there are no retries.",
                f"export {prefix}__TIMEOUT={service.deadline / 3:g}",
            )
        if service.deadline > facts.task_deadline:
            yield warning(
                "call-deadline",
                f"{prefix}__DEADLINE is {service.deadline:g} s, BRIDGE_TASK__DEADLINE {facts.task_deadline:g} s.",
                "The task ends first: the time for a call is never what it says.",
                f"export BRIDGE_TASK__DEADLINE={service.deadline * 2:g}",
            )
    if facts.retry_total > facts.max_age:
        yield warning(
            "max-age",
            f"The countdowns between tries add up to {facts.retry_total:g} s, and BRIDGE_LEDGER__MAX_AGE is "
            f"{facts.max_age:g} s.",
            "Jobs are given up while they wait for their next try.",
            f"export BRIDGE_LEDGER__MAX_AGE={int(2 * facts.retry_total)}",
        )


def _roots(facts: Facts) -> Iterator[Finding]:
    if not facts.roots:
        yield note(
            "no-root",
            "BRIDGE_CONTENT__ROOTS is empty.",
            "Every job about a file is refused.",
            "export BRIDGE_CONTENT__ROOTS=/srv/documents",
        )
    for root in facts.roots:
        if root.path in _SYSTEM:
            yield fatal(
                "root-system",
                f"BRIDGE_CONTENT__ROOTS has {root.path}.",
                "Whoever can submit a job can have keys and passwords of this machine sent to the services.",
                "export BRIDGE_CONTENT__ROOTS=/srv/documents",
            )
        elif not root.is_there:
            yield fatal(
                "root-missing",
                f"BRIDGE_CONTENT__ROOTS: {root.path} is no directory here.",
                "Every job about a file in it fails on this worker.",
                f"mkdir -p {root.path}  # or mount it",
            )
        elif not root.readable:
            yield fatal(
                "root-unreadable",
                f"BRIDGE_CONTENT__ROOTS: this user cannot read {root.path}.",
                "Every job about a file in it fails on this worker.",
                f"setfacl -R -m u:$(id -un):rX {root.path}",
            )
        elif root.writable_by_all:
            yield warning(
                "root-writable",
                f"BRIDGE_CONTENT__ROOTS: every user of this machine may write to {root.path}.",
                "Anybody can have anything stamped, and change it between the hash and the stamp.",
                f"chmod o-w {root.path}",
            )
        elif root.readable_by_all:
            yield note(
                "root-readable",
                f"BRIDGE_CONTENT__ROOTS: every user of this machine may look into {root.path}.",
                "What is worth a stamp may not be for everybody.",
                f"chmod o-rwx {root.path}",
            )
        if root.secrets and root.path not in _SYSTEM:
            yield warning(
                "root-secrets",
                f"BRIDGE_CONTENT__ROOTS: {root.path} has {', '.join(root.secrets)} in it.",
                "A job may name it, and its content is sent to the services.",
                f"export BRIDGE_CONTENT__ROOTS={root.path.rstrip('/')}/documents",
            )


def _hosts(facts: Facts) -> Iterator[Finding]:
    if facts.inner_hosts:
        others = ",".join(host for host in facts.hosts if host not in facts.inner_hosts)
        yield warning(
            "inner-hosts",
            f"BRIDGE_CONTENT__HOSTS has {', '.join(facts.inner_hosts)}.",
            "Whoever can submit a job can have workers fetch from inside: other programs here, a cloud's keys.",
            f"export BRIDGE_CONTENT__HOSTS={others}",
        )


RULES = (_replicas, _times, _roots, _hosts)
