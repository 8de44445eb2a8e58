"""The diagram in docs/resilience.md is drawn from the code's own transition table."""

from pathlib import Path

from bridge_tasks.resilience.policy.breaker import TRANSITIONS, CircuitState

DOCUMENT = Path(__file__).parents[2] / "docs" / "resilience.md"


def drawn() -> str:
    """Draw `TRANSITIONS` as Mermaid; causes between the same two states share an arrow."""
    arrows: dict[tuple[CircuitState, CircuitState], list[str]] = {}
    for old, cause, new in TRANSITIONS:
        arrows.setdefault((old, new), []).append(cause.value)
    lines = [f"    {old.name} --> {new.name}: {' or<br>'.join(causes)}" for (old, new), causes in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> CLOSED", *lines, "```"])


def test_the_documented_diagram_is_the_table() -> None:
    assert drawn() in DOCUMENT.read_text(), f"put this into {DOCUMENT.name}:\n{drawn()}"
