"""What tests ask caches, in few words. A cache on the blocking bottom, or in memory, never suspends."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import orjson

from bridge_tasks.cache import Cache, Found, Kept, Question, cache_key
from bridge_tasks.resilience.policy.caching import CacheRules, Verdict
from tests.never_suspending import finished

TTL = 64.0
RULES = CacheRules(
    stale_while_revalidate=16.0,
    stale_if_error=256.0,
    early_refresh=0.0,
    lease=4.0,
    pause_after_failure=8.0,
    near_ttl=0.0,
)


def about(subject: str, *tags: str) -> Question:
    return Question(cache_key("/intelligence", {"context": subject}), subject, tags)


def look(cache: Cache, question: Question, *, waiting: bool = False) -> Found:
    return finished(cache.look(question, waiting=waiting))


def fill(cache: Cache, question: Question, value: Any = "answer", *, took: float = 0.0, ttl: float = TTL) -> bool:
    """Ask for the lease, and keep an answer under it if it was granted."""
    lease = look(cache, question).lease
    return keep(cache, question, value, lease, took=took, ttl=ttl)


def keep(
    cache: Cache,
    question: Question,
    value: Any,
    lease: str | None,
    *,
    took: float = 0.0,
    ttl: float = TTL,
    rules: CacheRules = RULES,
) -> bool:
    life = replace(rules.life(ttl), cost=took)
    return finished(cache.keep(question, Kept(orjson.dumps({"value": value}), took, life), lease))


def value(found: Found) -> Any:
    return None if found.kept is None else orjson.loads(found.kept.packed)["value"]


def served(cache: Cache, questions: Collection[Question]) -> set[str]:
    """Of these questions, the subjects of those that the cache serves."""
    return {question.subject for question in questions if look(cache, question).verdict is Verdict.SERVE}
