"""Doing several things at a time that mostly wait: a few threads, for the length of one call.

It knows nobody's business, and must leave no thread behind that anybody waits for.
"""

import contextvars
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

LOOK_SECONDS = 0.5


def overlapping(
    function: Callable[[T], U], items: Collection[T], threads: int, look: Callable[[], None] = lambda: None
) -> list[U]:
    """Map over items, several at a time, with this context's correlation id and deadline.

    What an item raises is raised, when the calls under way have ended; the others never begin.

    Args:
        function: what to do with each.
        items: all of them.
        threads: how many at a time; with 1, they are done here.
        look: called after each, and twice a second while one takes long. Where it raises, nobody waits for the
            calls that are under way: they end by themselves, unheard.
    """
    if threads == 1:
        return [_looked(look, function(item)) for item in items]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="bridge-overlapping")
    begun = [pool.submit(contextvars.copy_context().run, function, item) for item in items]
    patient = True

    def glance() -> None:
        nonlocal patient
        patient = False
        look()
        patient = True

    results: list[U] = []
    try:
        for one in begun:
            while not wait([one], LOOK_SECONDS).done:
                glance()
            glance()
            results.append(one.result())
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)
    return results


def _looked(look: Callable[[], None], result: U) -> U:
    look()
    return result
