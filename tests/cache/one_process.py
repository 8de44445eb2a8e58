"""One process of a fleet: a runtime of its own, asking as told. Not a test; tests start several.

Reads lines of JSON from standard input, each with a `context` and a number of `threads`, and answers each with a
line: what its callers got. With no threads, a child is forked that asks, and the line tells its pid. Ends when its
input does. Called with `patient`, it waits for a Redis that is only busy, where a worker would ask the service
itself.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bridge_tasks import runtime
from bridge_tasks.errors import BridgeError

PATIENT = "patient" in sys.argv


def main() -> None:
    """Answer until there is no more to answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are killed, and nobody asks after them
    current = runtime.current(patient=PATIENT)
    current.run(current.onextree.fleet_cache_stats())  # connect
    _say({"ready": True})
    for order in _orders():
        if not order["threads"]:
            _say({"child": _fork(order["context"])})
            continue
        together = threading.Barrier(order["threads"])
        with ThreadPoolExecutor(order["threads"]) as pool:
            answers = [pool.submit(_ask, current, order["context"], together) for _ in range(order["threads"])]
            _say({"answers": [answer.result() for answer in answers]})
    runtime.close()


def _fork(context: str) -> int:
    child = os.fork()
    if child == 0:
        own = runtime.current(patient=PATIENT)
        own.run(own.onextree.get_intelligence(context))
        os._exit(0)
    return child


def _ask(current: runtime.Runtime, context: str, together: threading.Barrier) -> dict[str, Any]:
    together.wait()
    try:
        answer = current.run(current.onextree.get_intelligence(context, enable_fallback=False))
    except BridgeError as error:
        return {"error": type(error).__name__}
    return {"analysis": answer.intelligence["analysis_type"], "stale": answer.metadata.get("stale", False)}


def _orders() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


main()
