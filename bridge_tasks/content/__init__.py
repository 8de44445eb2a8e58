"""Content by reference: what a job may refer to (`allowed`), and reading it (`store`)."""

from bridge_tasks.content.allowed import file_content, vet
from bridge_tasks.content.opened import Opened
from bridge_tasks.content.store import ContentStore, RedisCommands

__all__ = ["ContentStore", "Opened", "RedisCommands", "file_content", "vet"]
