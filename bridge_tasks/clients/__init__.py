"""The guide's clients: models in, models out. What they promise is in behaviours.md, name by name."""

from bridge_tasks.clients.base_client import BaseServiceClient
from bridge_tasks.clients.circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitState
from bridge_tasks.clients.metadata_stamping_client import AsyncMetadataStampingClient
from bridge_tasks.clients.onextree_client import (
    AsyncOnexTreeClient,
    CacheEntry,
    ConfidenceLevel,
    ConfidenceScore,
    IntelligenceResult,
)
from bridge_tasks.errors import CircuitBreakerError, ClientError, ServiceUnavailableError

__all__ = [
    "AsyncMetadataStampingClient",
    "AsyncOnexTreeClient",
    "BaseServiceClient",
    "CacheEntry",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerError",
    "CircuitState",
    "ClientError",
    "ConfidenceLevel",
    "ConfidenceScore",
    "IntelligenceResult",
    "ServiceUnavailableError",
]
