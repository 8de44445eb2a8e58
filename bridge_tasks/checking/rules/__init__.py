"""All rules, and what they find in some facts. Pure: no clock, no Redis, no file."""

from collections.abc import Callable, Collection, Iterator

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, Severity
from bridge_tasks.checking.rules import celery_config, environment, rabbit, redis_data, redis_doors, services

Rule = Callable[[Facts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *redis_doors.RULES,
    *redis_data.RULES,
    *rabbit.RULES,
    *celery_config.RULES,
    *services.RULES,
    *environment.RULES,
)

WAITED_FOR = frozenset({"redis-away", "rabbit-away"})
"""What a worker waits for, as it would at any other time."""


def found(facts: Facts, accepted: Collection[str] = ()) -> list[Finding]:
    """Judge facts, the worst first.

    Args:
        facts: what was gathered.
        accepted: ids of findings that somebody lives with.
    """
    worst_first = list(Severity).index
    findings = [finding for rule in RULES for finding in rule(facts) if finding.id not in accepted]
    return sorted(findings, key=lambda finding: worst_first(finding.severity))


def stopping(findings: Collection[Finding]) -> list[Finding]:
    """Return those with which no worker starts."""
    return [one for one in findings if one.severity is Severity.FATAL and one.id not in WAITED_FOR]
