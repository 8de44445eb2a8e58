"""`bridge-tasks cache`: the answers that all workers share, seen and managed from here.

What cannot be told to everybody is an error here, though not in a worker: people must know that nothing happened.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from bridge_tasks.cache import CacheStats
from bridge_tasks.cli.screen import facts_panel, say, show_facts, show_json
from bridge_tasks.errors import BridgeError, ConfigurationError, InvalidRequest
from bridge_tasks.runtime import Runtime, current
from bridge_tasks.worker.warming import read_list, warm_list

_AWAY = "the shared cache is out of reach (BRIDGE_REDIS_URL); is the stack up? (bridge-tasks up)"


def stats(*, interval: float | None, as_json: bool) -> None:
    """Show the fleet's figures, once or every `interval` seconds until Ctrl-C.

    Raises:
        BridgeError: they cannot be had, and are asked for once.
    """
    runtime = _caching()
    if interval is None:
        seen = _stats(runtime)
        if not seen.shared:
            raise BridgeError(_AWAY)
        if as_json:
            show_json(_plain(seen))
        else:
            show_facts("Result cache", _facts(seen))
        return
    if as_json:
        while True:
            show_json(_plain(_stats(runtime)))
            time.sleep(interval)
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            seen = _stats(runtime)
            facts = _facts(seen) if seen.shared else {"State": _AWAY}
            live.update(facts_panel("Result cache", facts, good=seen.shared), refresh=True)
            time.sleep(interval)


def clear(*, as_json: bool) -> None:
    """Forget every answer.

    Raises:
        BridgeError: Redis cannot be reached; nothing happened.
    """
    runtime = _caching()
    runtime.run(runtime.onextree.clear_cache())
    if not runtime.shared.available:
        raise BridgeError(_AWAY)
    _done({"cleared": True}, "cleared", as_json=as_json)


def invalidate(tags: Sequence[str], prefixes: Sequence[str], *, as_json: bool) -> None:
    """Make void what has one of the tags, or is about something that begins with one of the prefixes.

    Raises:
        InvalidRequest: neither is given, or one is empty.
        BridgeError: Redis cannot be reached; nothing happened.
    """
    if not (tags or prefixes):
        raise InvalidRequest(
            "invalidate", "say what: --prefix, --namespace, --operation or --tag (or use `clear`)"
        )
    if not all((*tags, *prefixes)):
        raise InvalidRequest("invalidate", "an empty prefix or tag would mean everything: use `clear` for that")
    runtime = _caching()
    onextree = runtime.onextree
    told = [runtime.run(onextree.invalidate_cache(tag=tag)) for tag in tags]
    told += [runtime.run(onextree.invalidate_cache(prefix=prefix)) for prefix in prefixes]
    if not all(told):
        raise BridgeError(_AWAY)
    void = {"tags": list(tags), "prefixes": list(prefixes)}
    _done(
        {"void": void},
        f"void from now on: {', '.join((*tags, *(f'{prefix}...' for prefix in prefixes)))}",
        as_json=as_json,
    )


def warm(contexts: Sequence[str], file: Path | None, *, as_json: bool) -> int:
    """Ask for each context's intelligence, unless it is known; return the exit status: 1 if any failed.

    Raises:
        ConfigurationError: there is nothing to ask, or the file cannot be read.
    """
    runtime = _caching()
    listed = [*contexts, *(read_list(file, "--file") if file else ())]
    if not listed:
        listed = warm_list(runtime.settings.onextree.warm)
    if not listed:
        raise ConfigurationError("nothing to warm: name contexts, a --file, or set BRIDGE_ONEXTREE__WARM")
    done = runtime.run(runtime.onextree.warm_cache(listed))
    others = not any(done.values())
    line = "another process warms the same list" if others else f"{done['known']} known, {done['failed']} failed"
    _done(done, line, as_json=as_json)
    return 1 if done["failed"] else 0


def _caching() -> Runtime:
    runtime = current(patient=True)
    if not runtime.settings.onextree.cache:
        raise ConfigurationError("caching is switched off (BRIDGE_ONEXTREE__CACHE)")
    return runtime


def _stats(runtime: Runtime) -> CacheStats:
    return runtime.run(runtime.onextree.fleet_cache_stats())


def _plain(seen: CacheStats) -> dict[str, Any]:
    return {**asdict(seen), "hit_rate": round(seen.hit_rate, 4)}


def _facts(seen: CacheStats) -> dict[str, str]:
    return {
        "Answers kept": f"{seen.size} of {seen.max_size}",
        "Hit rate": f"{seen.hit_rate:.1%}",
        "Fresh": f"{seen.hits} ({seen.near} from a worker's own memory)",
        "Stale": str(seen.stale),
        "Missed": f"{seen.misses} ({seen.waits} waited for another's answer)",
        "Filled": f"{seen.fills} ({seen.failures} tries failed, {seen.late} came too late)",
        "Removed": f"{seen.evicted} for room, {seen.void} void, {seen.dropped} unreadable",
    }


def _done(plain: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        show_json(plain)
    else:
        say(f"cache: {line}")
