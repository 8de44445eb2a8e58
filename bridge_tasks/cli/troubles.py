"""Errors that a person may meet at the command line, each as one clear line and an exit status. None is hidden."""

import redis
from kombu.exceptions import OperationalError

from bridge_tasks.errors import BridgeError, ConfigurationError, InvalidRequest
from bridge_tasks.sandbox.processes import ProcessFailed
from bridge_tasks.sandbox.redis import NoRedisServer

FAILED = 1
WRONG_INPUT = 2

_NO_REDIS = "Redis is out of reach (BRIDGE_REDIS_URL). `bridge-tasks up` starts one, and all that goes with it."


def told(error: Exception) -> tuple[str, int] | None:
    """Return what to print and the exit status; None for what nobody foresaw, which deserves its traceback."""
    match error:
        case InvalidRequest() | ConfigurationError():
            return str(error), WRONG_INPUT
        case OperationalError() | redis.RedisError():
            return _NO_REDIS, FAILED
        case RuntimeError() if isinstance(error.__cause__, redis.RedisError):  # Celery, tired of subscribing
            return _NO_REDIS, FAILED
        case BridgeError() | ProcessFailed() | NoRedisServer() | OSError():
            return str(error), FAILED
    return None
