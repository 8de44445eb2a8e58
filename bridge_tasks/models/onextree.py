"""What OnexTree answers: intelligence and how far to trust it.

The weights and formulas of the score are those of the known client (behaviours.md 5): four dimensions, each
0..1, of which the overall score is a weighted sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ConfidenceLevel(StrEnum):
    """How much weight an answer bears; each level begins at its lower bound."""

    HIGH = "high"  # >= 0.8
    MEDIUM = "medium"  # >= 0.5
    LOW = "low"  # >= 0.2
    MINIMAL = "minimal"


_LEVELS = ((0.8, ConfidenceLevel.HIGH), (0.5, ConfidenceLevel.MEDIUM), (0.2, ConfidenceLevel.LOW))


class ConfidenceScore(BaseModel):
    """Four dimensions of an answer's worth, each 0..1 (default 0)."""

    data_quality: float = Field(default=0.0, ge=0.0, le=1.0)
    pattern_strength: float = Field(default=0.0, ge=0.0, le=1.0)
    coverage: float = Field(default=0.0, ge=0.0, le=1.0)
    relationship_density: float = Field(default=0.0, ge=0.0, le=1.0)

    @property
    def overall(self) -> float:
        """The weighted sum, 0..1."""
        return (
            0.35 * self.data_quality
            + 0.30 * self.pattern_strength
            + 0.20 * self.coverage
            + 0.15 * self.relationship_density
        )

    @property
    def level(self) -> ConfidenceLevel:
        """The level that `overall` reaches (a float sum of ones may fall a hair short of 1)."""
        reached = (level for bound, level in _LEVELS if self.overall >= bound - 1e-9)
        return next(reached, ConfidenceLevel.MINIMAL)

    @classmethod
    def of(
        cls,
        intelligence: Any,
        patterns: Sequence[Any],
        relationships: Sequence[Any],
        metadata: Mapping[str, Any],
    ) -> "ConfidenceScore":
        """Score an answer by its parts."""
        return cls(
            data_quality=_data_quality(intelligence),
            pattern_strength=_pattern_strength(patterns),
            coverage=_coverage(metadata),
            relationship_density=min(1.0, len(relationships) / 20),
        )


def _data_quality(intelligence: Any) -> float:
    if not intelligence or not isinstance(intelligence, dict):
        return 0.0
    present = sum(key in intelligence for key in ("analysis_type", "recommendations")) / 2
    recommendations = intelligence.get("recommendations")
    thorough = isinstance(recommendations, str) and len(recommendations) > 100  # noqa: PLR2004 - the formula
    return min(1.0, present + (0.2 if thorough else 0.0))


def _pattern_strength(patterns: Sequence[Any]) -> float:
    if not patterns:
        return 0.0
    mean_length = fmean(len(str(pattern)) for pattern in patterns)
    return fmean((min(1.0, len(patterns) / 10), min(1.0, mean_length / 100)))


def _coverage(metadata: Mapping[str, Any]) -> float:
    present = sum(key in metadata for key in ("nodes_analyzed", "files_scanned", "tree_loaded"))
    return min(1.0, present / 3 + (0.3 if metadata.get("tree_loaded") else 0.0)) if present else 0.0


class IntelligenceResult(BaseModel):
    """OnexTree's answer about a context.

    It reads both ways: `result.patterns` and `result["patterns"]`, `"patterns" in result`,
    `result.get("patterns", [])` (the guide shows attributes and mapping access). `degraded` is true for the
    client's fallback and for a service's own emergency answer; such an answer is never cached as good.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    intelligence: dict[str, Any]
    patterns: list[str] = Field(default_factory=list)
    relationships: list[dict[str, Any]] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    confidence: ConfidenceScore = Field(default_factory=ConfidenceScore)
    degraded: bool = False

    def keys(self) -> list[str]:
        """The field names."""
        return list(type(self).model_fields)

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The field `key`, or `default` where there is no such field."""
        return getattr(self, key) if key in type(self).model_fields else default

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields

    def __iter__(self) -> Iterator[str]:  # type: ignore[override] # a mapping yields keys, not pairs
        return iter(type(self).model_fields)
