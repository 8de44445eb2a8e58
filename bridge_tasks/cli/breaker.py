"""`bridge-tasks breaker`: the circuits that all workers share, seen and worked from here.

It looks at Redis without leaving a trace there. What cannot be told to everybody is an error here, though not in a
worker: people must know that nothing happened.
"""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from bridge_tasks.cli.screen import rows_table, show_json, show_rows
from bridge_tasks.errors import BridgeError, InvalidRequest
from bridge_tasks.resilience.policy.breaker import Circuit, CircuitBreakerConfig, CircuitState, Manual, Order
from bridge_tasks.resilience.policy.window import SECOND
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Told
from bridge_tasks.resilience.state.shared_redis import StoreUnavailable
from bridge_tasks.runtime import Runtime, current

_AWAY = "the shared circuits are out of reach (BRIDGE_REDIS_URL); is the stack up? (bridge-tasks up)"
_HEADINGS = ("Circuit", "State", "For", "Why", "Tries again", "Calls", "Failed", "In a row", "Probes")
_CHANCE = 0.5
"""Nothing that people order depends on chance."""

Row = dict[str, Any]


def show(*, interval: float | None, as_json: bool) -> None:
    """Show all circuits, once or every `interval` seconds until Ctrl-C.

    Raises:
        BridgeError: Redis cannot be reached, and was to be asked once.
    """
    runtime = current(patient=True)
    names = _all_names(runtime)
    if interval is None:
        rows = _looked(runtime, names)
        if as_json:
            show_json({"circuits": rows})
        else:
            show_rows(_HEADINGS, _cells(runtime, rows))
        return
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            try:
                rows = _looked(runtime, names)
            except BridgeError as error:
                rows = [{"name": name, "state": "unknown", "cause": str(error)} for name in names]
            if as_json:
                show_json({"circuits": rows})
            else:
                live.update(rows_table(_HEADINGS, _cells(runtime, rows)), refresh=True)
            time.sleep(interval)


def work(names: Sequence[str], order: str, *, as_json: bool) -> None:
    """Give an order to the circuits named, or to all.

    Raises:
        BridgeError: Redis cannot be reached; nothing happened.
        InvalidRequest: there is no such circuit.
    """
    runtime = current(patient=True)
    known, everything = _known(runtime), _all_names(runtime)
    wanted = [known.get(name, name) for name in names] or everything
    for name in wanted:
        if name not in everything:
            raise InvalidRequest("name", f"there is no such circuit; there are {', '.join(everything)}")
    for name in wanted:
        _ask(runtime, name, Order(order))
    rows = _looked(runtime, wanted)
    if as_json:
        show_json({"circuits": rows})
    else:
        show_rows(_HEADINGS, _cells(runtime, rows))


def _known(runtime: Runtime) -> dict[str, str]:
    """The services' circuits, by their short names."""
    return {
        "metadata": runtime.metadata.circuit_breaker.name,
        "onextree": runtime.onextree.circuit_breaker.name,
    }


def _all_names(runtime: Runtime) -> list[str]:
    """The services' circuits, and every other that Redis holds."""
    return list(dict.fromkeys([*_known(runtime).values(), *sorted(_held(runtime))]))


def _held(runtime: Runtime) -> set[str]:
    cursor, found, pattern = b"0", set(), circuit_script.key("*")
    while True:
        try:
            cursor, keys = runtime.run(runtime.shared.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
        except StoreUnavailable:
            raise BridgeError(_AWAY) from None
        found |= {key.decode(errors="replace").partition("{")[2].rstrip("}") for key in keys}
        if int(cursor) == 0:
            return found


def _looked(runtime: Runtime, names: Sequence[str]) -> list[Row]:
    return [_told(name, _ask(runtime, name, circuit_script.LOOK)) for name in names]


def _ask(runtime: Runtime, name: str, wish: str | Order) -> Circuit:
    config = _config(runtime, name)
    asked = circuit_script.ask(
        runtime.shared, Asker(name, config), Told(), wish, now=time.monotonic(), chance=_CHANCE
    )
    try:
        return circuit_script.read(runtime.run(asked), time.monotonic()).circuit
    except StoreUnavailable:
        raise BridgeError(_AWAY) from None


def _config(runtime: Runtime, name: str) -> CircuitBreakerConfig:
    for client in (runtime.metadata, runtime.onextree):
        if client.circuit_breaker.name == name:
            return client.circuit_breaker.config
    return CircuitBreakerConfig()


def _told(name: str, circuit: Circuit) -> Row:
    now = time.monotonic()
    since = now - circuit.changed_at / SECOND
    tries = max(circuit.open_for / SECOND - since, 0.0)
    recovers = circuit.state is CircuitState.OPEN and circuit.manual is not Manual.HELD
    return {
        "name": name,
        "state": circuit.state.value,
        "held_by_hand": circuit.manual is not Manual.NONE,
        "cause": circuit.cause.value,
        "seconds_in_state": round(max(since, 0.0), 1),
        "retry_after": round(tries, 1) if recovers else None,
        "failed_recoveries": circuit.reopenings,
        "total_calls": circuit.total_calls,
        "failures": circuit.failures,
        "successes": circuit.successes,
        "consecutive_failures": circuit.consecutive_failures,
        "probes_in_flight": circuit.in_flight,
    }


def _cells(runtime: Runtime, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Write rows for eyes: a service's circuit under the short name by which one works it."""
    short = {name: given for given, name in _known(runtime).items()}
    names = [str(row["name"]) for row in rows]
    return [(short.get(name, name), *_facts(row)) for name, row in zip(names, rows, strict=True)]


def _facts(row: Row) -> tuple[str, ...]:
    if "total_calls" not in row:
        return (row["state"], "", row["cause"], "", "", "", "", "")
    retry = row["retry_after"]
    tries = f"in {retry:.0f} s" if retry is not None else ("after reset" if row["state"] == "open" else "")
    return (
        row["state"] + (" (held)" if row["held_by_hand"] else ""),
        f"{row['seconds_in_state']:.0f} s",
        row["cause"],
        tries,
        str(row["total_calls"]),
        str(row["failures"]),
        str(row["consecutive_failures"]),
        str(row["probes_in_flight"]),
    )
