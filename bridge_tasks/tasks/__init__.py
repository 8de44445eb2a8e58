"""The tasks, by name: `bridge.generate_hash` is `generate_hash`, and so on."""

from bridge_tasks.tasks.bulk import stamp_chunk
from bridge_tasks.tasks.hashing import generate_hash
from bridge_tasks.tasks.intelligence import get_intelligence, navigate_tree, query_knowledge, warm_cache
from bridge_tasks.tasks.stamping import batch_create_stamps, create_stamp, get_stamp, stamp_file
from bridge_tasks.tasks.validation import check_health, validate_protocol, validate_stamp

__all__ = [
    "batch_create_stamps",
    "check_health",
    "create_stamp",
    "generate_hash",
    "get_intelligence",
    "get_stamp",
    "navigate_tree",
    "query_knowledge",
    "stamp_chunk",
    "stamp_file",
    "validate_protocol",
    "validate_stamp",
    "warm_cache",
]
