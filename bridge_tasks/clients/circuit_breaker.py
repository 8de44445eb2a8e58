"""The guide's address of the circuit breaker; it lives in `bridge_tasks.resilience`."""

from bridge_tasks.errors import CircuitBreakerError
from bridge_tasks.resilience.circuit_breaker import CircuitBreaker, CircuitBreakerMetrics
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerError",
    "CircuitBreakerMetrics",
    "CircuitState",
]
