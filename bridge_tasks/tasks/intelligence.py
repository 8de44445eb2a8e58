"""Ask OnexTree. Adapters only: the work is in `bridge_tasks.operations`."""

from typing import Any

from bridge_tasks import operations
from bridge_tasks.models.requests import GetIntelligence, NavigateTree, QueryKnowledge, WarmCache
from bridge_tasks.models.stamping import Enriched
from bridge_tasks.runtime import current
from bridge_tasks.tasks.base import bridge_task


@bridge_task("bridge.get_intelligence")
def get_intelligence(request: GetIntelligence) -> Enriched:
    """Ask about a context; an outage yields a degraded answer unless `fallback` is false."""
    runtime = current()
    return runtime.run(operations.get_intelligence(runtime.services, request))


@bridge_task("bridge.query_knowledge")
def query_knowledge(request: QueryKnowledge) -> dict[str, Any]:
    """Query the knowledge graph."""
    runtime = current()
    return runtime.run(operations.query_knowledge(runtime.services, request))


@bridge_task("bridge.navigate_tree")
def navigate_tree(request: NavigateTree) -> dict[str, Any]:
    """Walk the tree from a node."""
    runtime = current()
    return runtime.run(operations.navigate_tree(runtime.services, request))


@bridge_task("bridge.warm_cache")
def warm_cache(request: WarmCache) -> dict[str, int]:
    """Ask what will be asked often, unless another worker does so already."""
    runtime = current()
    return runtime.run(operations.warm_cache(runtime.services, request))
