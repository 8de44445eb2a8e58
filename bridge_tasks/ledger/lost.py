"""Which messages are lost: a decision over what was seen, without looking. Pure.

Queues are first in, first out, and a record is written in the same instant as its message. So a record that is
older than the oldest message of its queue has no message there; if no worker holds one either, it is lost. A
message on its way from the queue to a worker is nowhere for a moment, so only what is missing twice in a row
counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """One queue as it was seen.

    Attributes:
        candidates: open records that are older than the oldest message: id and when they were queued.
        held: ids of the messages that workers hold.
    """

    candidates: Mapping[str, int]
    held: Collection[str]


def lost(seen: QueueSeen, suspects: Mapping[str, int]) -> tuple[list[str], dict[str, int]]:
    """Return what is lost, and what to suspect from now on.

    Args:
        seen: the queue now.
        suspects: what was missing the last time, and when it had been queued.
    """
    missing = {one: queued for one, queued in seen.candidates.items() if one not in seen.held}
    found = [one for one, queued in missing.items() if suspects.get(one) == queued]
    return found, {one: queued for one, queued in missing.items() if one not in found}
