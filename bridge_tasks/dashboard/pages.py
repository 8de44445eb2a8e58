"""What Flower shows beyond its own: how bulk runs go, and queues as the ledger knows them. It only reads.

Redis is asked in a thread: Flower's loop must not wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flower.views
from redis.exceptions import RedisError
from tornado import template, web

from bridge_tasks.bridge import what_to_look_at
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.runtime import Runtime, current
from bridge_tasks.vitals import SystemHealth, look

RUNS_SHOWN = 50
REFRESH_SECONDS = 5

_TEMPLATES = Path(__file__).parent / "templates"
_BROKER_TAB = "reverse_url('broker')"
_LIST_END = "</ul>"
_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'runs' %} active{% end %}" href="{{ reverse_url('main') }}runs"
            {% if active_tab == 'runs' %}aria-current="page"{% end %}>Runs</a>
        </li>
      """


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read for a page."""

    health: SystemHealth
    runs: Sequence[RunProgress] = ()


class Templates(template.Loader):
    """Our templates, then Flower's, whose row of tabs gets one more."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return a template's name: there are no folders among them."""
        del parent_path
        return name

    def _create_template(self, name: str) -> template.Template:
        ours = _TEMPLATES / name
        text = (ours if ours.is_file() else Path(self.root, name)).read_text(encoding="utf-8")
        if name == "navbar.html":
            text = with_tab(text)
        elif name == "tasks.html":
            text += (_TEMPLATES / "tasks_more.html").read_text(encoding="utf-8")
        return template.Template(text, name=name, loader=self)


class RunsView(flower.views.BaseHandler):  # type: ignore[misc] # Flower has no types
    """The page of bulk runs."""

    @web.authenticated
    async def get(self) -> None:
        """Show the latest runs."""
        try:
            seen = await self.application.io_loop.run_in_executor(None, seen_now)
        except (RedisError, OSError):
            seen = Seen(SystemHealth(redis=False))
        self.render("runs.html", seen=seen, refresh=REFRESH_SECONDS, moment=_moment)


def add_to(application: Any) -> None:
    """Give Flower's application our page and our templates."""
    prefix = (application.options.url_prefix or "").strip("/")
    application.add_handlers(r".*", [(f"/{prefix}/runs" if prefix else "/runs", RunsView)])
    application.settings["template_loader"] = Templates(application.settings["template_path"])


def with_tab(navbar: str) -> str:
    """Put a tab behind the one of the broker; a row that looks otherwise is left as it is."""
    before, found, after = navbar.partition(_BROKER_TAB)
    place = after.find(_LIST_END)
    return before + found + after[:place] + _TAB.lstrip("\n") + after[place:] if found and place >= 0 else navbar


def queue_names(handler: Any) -> list[str]:
    """Return all queues, those that nobody reads just now among them: a backlog is where nobody reads."""
    read = {
        queue["name"] for info in handler.application.workers.values() for queue in info.get("active_queues", ())
    }
    return sorted(read | {queue.name for queue in handler.capp.conf.task_queues or () if queue.name})


def queues_of(broker_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have the brokers that Flower makes tell more of each queue: who reads it, how long its oldest waits."""

    def get_broker(handler: Any) -> Any:
        broker = broker_of(handler)
        counted = broker.queues

        async def queues(names: Sequence[str]) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await counted(names)
            seen = await handler.application.io_loop.run_in_executor(None, seen_now)
            asked = handler.application.update_workers()
            if not handler.application.workers:  # it has just started
                await asked
            oldest = {queue.name: queue.oldest_seconds for queue in seen.health.queues}
            for queue in found:
                queue["consumers"] = _readers(handler.application, queue["name"])
                queue["messages_ready"] = queue.get("messages_ready", queue.get("messages"))
                queue["oldest_seconds"] = oldest.get(queue["name"])
            return found

        broker.queues = queues
        return broker

    return get_broker


def seen_now() -> Seen:
    """Read runs and queues; blocks for a moment."""
    runtime = current(patient=True)
    return runtime.run(_seen(runtime))


async def _seen(runtime: Runtime) -> Seen:
    # Circuits are left out: asking for one is a script that may write, and nobody here needs that right.
    told = {**what_to_look_at(runtime), "circuits": {}}
    health = await look(BlockingRedis(runtime.ledger_redis), runtime.shared, **told)
    runs = [await runtime.runs.progress(name) for name in await runtime.runs.listed(RUNS_SHOWN)]
    return Seen(health, [run for run in runs if run is not None])


def _readers(application: Any, queue: str) -> int:
    """How many workers that live read a queue."""
    alive = {name for name, worker in application.events.state.workers.items() if worker.alive}
    return sum(
        any(one["name"] == queue for one in info.get("active_queues", ()))
        for name, info in application.workers.items()
        if name in alive
    )


def _moment(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "—"
