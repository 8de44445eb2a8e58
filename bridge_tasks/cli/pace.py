"""How much happened in a second: the difference between two looks, where nobody counts. Pure."""

from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.overview import Overview
from bridge_tasks.resilience.policy.breaker import Circuit


class Pace:
    """How much happened in a second, between two looks.

    Args:
        before: the earlier one, if there was one.
        seen: the later one.
    """

    def __init__(self, before: Overview | None, seen: Overview) -> None:
        self._before = before
        self._seconds = seen.taken - before.taken if before else 0.0

    def of_run(self, run: RunProgress) -> float | None:
        """Files that ended."""
        known = self._before.ledger.runs if self._before and self._before.ledger else ()
        earlier = next((one for one in known if one.id == run.id), None)
        return self._per_second(run.over - earlier.over) if earlier else None

    def of_calls(self, service: str, circuit: Circuit) -> tuple[float, float] | None:
        """Calls, and the share of them that failed; None where nobody looked before, or counts began anew."""
        earlier = self._before.circuits.get(service) if self._before else None
        if earlier is None or self._seconds <= 0 or circuit.total_calls < earlier.total_calls:
            return None
        calls, failures = circuit.total_calls - earlier.total_calls, circuit.failures - earlier.failures
        return calls / self._seconds, max(0, failures) / calls if calls else 0.0

    def _per_second(self, count: int) -> float | None:
        return count / self._seconds if self._seconds > 0 else None
