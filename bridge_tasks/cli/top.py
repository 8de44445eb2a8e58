"""`bridge-tasks top`: the whole fleet on one screen, for somebody who was woken up by it.

Two round trips to Redis for each look, none to a worker or a service: it slows nobody, and ends with Ctrl-C.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from rich.console import Console
from rich.live import Live

from bridge_tasks.bridge import what_to_look_at
from bridge_tasks.cache import RedisCache
from bridge_tasks.cli.health import masked
from bridge_tasks.cli.screen import show_json
from bridge_tasks.cli.top_json import plain
from bridge_tasks.cli.top_screen import screen
from bridge_tasks.overview import Overview, take
from bridge_tasks.pipelining import Pipelined
from bridge_tasks.runtime import Runtime, current

_MOST = 10
"""Jobs, failures and runs that are read: a screen has no room for more."""
_LOOKS = 5
"""Rates are over so many looks: of one alone they jump."""


def top(*, interval: float, once: bool, as_json: bool) -> int:
    """Show it, once or every `interval` seconds until Ctrl-C; returns the exit status.

    With `once`, 1 where Redis is out of reach.
    """
    runtime = current(patient=True)
    look = partial(take, **_where(runtime))
    title = f"bridge-tasks top  {masked(runtime.settings.ledger_url).partition('://')[2].rpartition('@')[2]}"
    if once:
        seen = look()
        if as_json:
            show_json(plain(seen, None))
        else:
            console = Console()
            console.print(screen(seen, None, title=title, width=console.width, height=None))
        return 0 if seen.health.redis else 1
    with suppress(KeyboardInterrupt):
        _follow(look, title, interval, as_json=as_json)
    return 0


def _follow(look: Callable[[], Overview], title: str, interval: float, *, as_json: bool) -> None:
    earlier: deque[Overview] = deque(maxlen=_LOOKS)
    console = Console()
    if as_json:
        while True:
            seen = look()
            show_json(plain(seen, earlier[0] if earlier else None))
            earlier.append(seen)
            time.sleep(interval)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            seen = look()
            clock = f"{title}  {time.strftime('%H:%M:%S')}"
            before = earlier[0] if earlier else None
            view = screen(seen, before, title=clock, width=console.width, height=console.height)
            live.update(view, refresh=True)
            earlier.append(seen)
            time.sleep(interval)


def _where(runtime: Runtime) -> dict[str, Any]:
    """Name what to look at; one connection serves both, where both are in one Redis."""
    onextree = runtime.settings.onextree
    same = runtime.settings.ledger_url == runtime.settings.redis_url.get_secret_value()
    ledger = Pipelined(runtime.ledger_redis)
    cache = partial(RedisCache, name="onextree", max_entries=onextree.cache_max_size, rules=onextree.cache_rules)
    return {
        "ledger": ledger,
        "shared": ledger if same else Pipelined(runtime.redis),
        "cache": cache if onextree.cache else None,
        "most": _MOST,
        **what_to_look_at(runtime),
    }
