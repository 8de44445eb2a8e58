"""How far an answer is to be trusted: behaviours.md, part 5 (rows in comments)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge_tasks.clients import AsyncOnexTreeClient, ConfidenceLevel, ConfidenceScore

THOROUGH = {"analysis_type": "security_analysis", "recommendations": "x" * 101}

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def scored(
    intelligence: Any = None,
    patterns: list[Any] | None = None,
    relationships: list[Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> ConfidenceScore:
    """Score through the client's own method, by its keywords (row 126)."""
    return AsyncOnexTreeClient("http://service")._calculate_confidence(
        intelligence_data=intelligence,
        patterns=patterns or [],
        relationships=relationships or [],
        metadata=metadata or {},
    )


def score(quality: float, strength: float, coverage: float, density: float) -> ConfidenceScore:
    return ConfidenceScore(
        data_quality=quality, pattern_strength=strength, coverage=coverage, relationship_density=density
    )


def test_no_score_is_worth_nothing() -> None:  # row 119
    nothing = ConfidenceScore()
    assert nothing == score(0.0, 0.0, 0.0, 0.0)
    assert (nothing.overall, nothing.level) == (0.0, ConfidenceLevel.MINIMAL)


@pytest.mark.parametrize(
    ("parts", "overall", "level"),
    [
        ((1.0, 0.8, 0.6, 0.4), 0.77, ConfidenceLevel.MEDIUM),  # row 120
        ((1.0, 1.0, 1.0, 1.0), 1.0, ConfidenceLevel.HIGH),  # row 121
        ((0.6, 0.6, 0.6, 0.6), 0.6, ConfidenceLevel.MEDIUM),
        ((0.3, 0.3, 0.3, 0.3), 0.3, ConfidenceLevel.LOW),
        ((0.9, 0.8, 0.9, 0.8), 0.855, ConfidenceLevel.HIGH),  # row 122
        ((0.8, 0.8, 0.8, 0.8), 0.8, ConfidenceLevel.HIGH),  # each lower bound belongs to its level
        ((0.5, 0.5, 0.5, 0.5), 0.5, ConfidenceLevel.MEDIUM),
        ((0.2, 0.2, 0.2, 0.2), 0.2, ConfidenceLevel.LOW),
        ((0.1, 0.1, 0.1, 0.1), 0.1, ConfidenceLevel.MINIMAL),
    ],
)
def test_the_overall_score_is_a_weighted_sum_and_has_a_level(
    parts: tuple[float, float, float, float], overall: float, level: ConfidenceLevel
) -> None:
    result = score(*parts)
    assert result.overall == pytest.approx(overall)
    assert result.level is level


def test_levels_are_text() -> None:
    assert [level.value for level in ConfidenceLevel] == ["high", "medium", "low", "minimal"]


@pytest.mark.parametrize("outside", [-0.1, 1.1])
def test_a_dimension_lies_between_0_and_1(outside: float) -> None:
    with pytest.raises(ValidationError):
        ConfidenceScore(data_quality=outside)


@pytest.mark.parametrize("intelligence", [{}, None, "text", [1]])
def test_no_intelligence_is_of_no_quality(intelligence: Any) -> None:  # row 123
    assert scored(intelligence).overall == 0.0


@pytest.mark.parametrize(
    ("intelligence", "quality"),
    [
        ({"something": 1}, 0.0),
        ({"analysis_type": "x"}, 0.5),
        ({"analysis_type": "x", "recommendations": "short"}, 1.0),
        ({"recommendations": "x" * 100}, 0.5),
        ({"recommendations": "x" * 101}, 0.7),
        (THOROUGH, 1.0),
    ],
)
def test_quality_is_what_is_there_and_how_thorough_it_is(intelligence: Any, quality: float) -> None:  # row 125
    assert scored(intelligence).data_quality == pytest.approx(quality)


@pytest.mark.parametrize(
    ("patterns", "strength"),
    [([], 0.0), (["x" * 200] * 15, 1.0), (["x" * 45, "x" * 42], 0.3175), (["a" * 8] * 3, 0.19)],
)
def test_strength_is_how_many_patterns_there_are_and_how_long(patterns: list[str], strength: float) -> None:
    # row 124
    assert scored(patterns=patterns).pattern_strength == pytest.approx(strength)


@pytest.mark.parametrize(
    ("metadata", "coverage"),
    [
        ({}, 0.0),
        ({"analysis_time_ms": 1}, 0.0),
        ({"tree_loaded": False}, 1 / 3),
        ({"tree_loaded": True}, 1 / 3 + 0.3),
        ({"nodes_analyzed": 1, "files_scanned": 1}, 2 / 3),
        ({"nodes_analyzed": 1, "files_scanned": 1, "tree_loaded": True}, 1.0),
    ],
)
def test_coverage_is_what_was_looked_at(metadata: dict[str, Any], coverage: float) -> None:  # row 125
    assert scored(metadata=metadata).coverage == pytest.approx(coverage)


@pytest.mark.parametrize(("count", "density"), [(0, 0.0), (5, 0.25), (25, 1.0)])
def test_density_is_how_many_relationships_there_are(count: int, density: float) -> None:  # row 124
    assert scored(relationships=[{}] * count).relationship_density == density


@pytest.mark.parametrize(
    ("answer", "overall", "level"),
    [
        # What the known service answers without a tree, after a crash, and about authentication: behaviours.md 5.
        (
            ({"analysis_type": "minimal", "recommendations": "short"}, [], [], {"tree_loaded": False}),
            0.4167,
            "low",
        ),
        (({"analysis_type": "error_fallback", "recommendations": "short"}, [], [], {"error": "x"}), 0.35, "low"),
        (
            (
                {"analysis_type": "security_analysis", "recommendations": "short"},
                ["x" * 45, "x" * 42],
                [{}],
                {"tree_loaded": True},
            ),
            0.579,
            "medium",
        ),
    ],
)
def test_the_worked_examples(answer: Any, overall: float, level: str) -> None:
    result = scored(*answer)
    assert result.overall == pytest.approx(overall, abs=5e-4)
    assert result.level == level


@given(
    anything,
    st.lists(anything, max_size=12),
    st.lists(anything, max_size=25),
    st.dictionaries(st.text(), anything),
)
def test_any_answer_has_a_score_within_bounds(
    intelligence: Any, patterns: list[Any], relationships: list[Any], metadata: dict[str, Any]
) -> None:
    assert 0.0 <= ConfidenceScore.of(intelligence, patterns, relationships, metadata).overall <= 1.0 + 1e-9
