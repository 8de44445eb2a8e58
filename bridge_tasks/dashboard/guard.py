"""Who may see Flower, and how it starts. It shows jobs and can change them: it must never be open to anybody.

Flower itself leaves `/metrics`, `/healthcheck` and static files open to all, listens on every address, forgets all
it saw when it ends, and starts without a password. So the credentials are checked before any route is looked for,
and Flower does not start without them. It is changed from outside, since it offers no place for that.
"""

import hmac
import logging
import os
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any

import flower.app
import flower.views
from flower.options import options
from kombu.utils.url import sanitize_url
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from bridge_tasks.dashboard import pages
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.settings import FlowerSettings, load

HOST = "127.0.0.1"
COLUMNS = "name,state,kwargs,received,runtime,worker,uuid"
SAVE_MILLISECONDS = 60_000
MAX_TASKS = 20_000
"""Flower's own default of 100,000 holds its loop for seconds each time it saves."""
PURGE_SECONDS = 3600
"""After which a worker that has gone is not shown any more: each restart has a name of its own in a container."""

_OAUTH_CLOSED = ("/metrics", "/healthcheck")
"""Flower lets these in without its login page; nobody who reads them has a browser."""

_log = logging.getLogger(__name__)


class Refused(RequestHandler):
    """The answer to whoever has no credentials: on every route, and where there is none."""

    def prepare(self) -> None:
        """Answer every method alike."""
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="flower", charset="UTF-8"')
        self.finish("Access denied")

    def check_xsrf_cookie(self) -> None:
        """Ask for no token: nothing is done."""


def guard() -> None:
    """Change Flower's classes; what this process starts is shut."""
    settings = load().flower
    _prefer(settings)
    find, start = flower.app.Flower.find_handler, flower.app.Flower.start_http_server

    def find_handler(self: Any, request: HTTPServerRequest, **given: Any) -> Any:
        if not admits(request):
            return self.get_handler_delegate(request, Refused)
        return find(self, request, **given)

    def start_http_server(self: Any) -> Any:
        if not (options.basic_auth or options.auth):
            raise SystemExit("Flower needs a password: set BRIDGE_FLOWER__PASSWORD")
        pages.add_to(self)
        return start(self)

    # Celery would begin with the name of our transport, which Flower takes for a broker that it does not know.
    flower.app.Flower.broker_uri = property(lambda _: sanitize_url(load().broker))
    flower.app.Flower.broker_uri_with_password = property(lambda _: load().broker)
    flower.app.Flower.find_handler = find_handler
    flower.app.Flower.start_http_server = start_http_server
    flower.views.BaseHandler.get_active_queue_names = pages.queue_names
    flower.views.BaseHandler.get_broker = pages.queues_of(flower.views.BaseHandler.get_broker)


def admits(request: HTTPServerRequest) -> bool:
    """Tell whether a request has the credentials; those of a login page are Flower's to check."""
    if not options.basic_auth:
        return bool(options.auth) and request.path.rstrip("/") not in _OAUTH_CLOSED
    kind, _, told = request.headers.get("Authorization", "").partition(" ")
    try:
        given = b64decode(told, validate=True)
    except ValueError:
        return False
    if kind.lower() != "basic" or not given:
        return False
    known = [hmac.compare_digest(one.encode(), given) for one in options.basic_auth]  # all: no time tells which
    return any(known)


def _prefer(settings: FlowerSettings) -> None:
    """Choose what Flower's own options (FLOWER_… and --…) leave open."""
    options.basic_auth = settings.credentials(options.basic_auth or ())
    if not options.address:
        options.address = HOST
    options.read_only = options.read_only or not settings.operate
    for name, ours in {
        "tasks_columns": COLUMNS,
        "max_tasks": MAX_TASKS,
        "purge_offline_workers": PURGE_SECONDS,
    }.items():
        if getattr(options, name) == options._options[name.replace("_", "-")].default:  # noqa: SLF001 - no other way
            setattr(options, name, ours)
    if options.persistent:
        return
    try:
        options.db = str(state_file(settings.state))
    except OSError as error:
        _log.warning("Flower forgets what it saw when it ends: its directory cannot be used (%s)", error.strerror)
        return
    options.persistent, options.state_save_interval = True, SAVE_MILLISECONDS


def state_file(directory: str) -> Path:
    """Return where Flower keeps what it saw, in a directory that is made where it is missing.

    Raises:
        ConfigurationError: others can write there. It is a pickle: they could have it run what they like.
        OSError: it cannot be made.
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(directory) if directory else Path(home, "bridge_tasks")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "BRIDGE_FLOWER__STATE: the directory must be yours, and nobody else may write there"
        )
    if not os.access(path, os.W_OK):
        raise PermissionError(13, os.strerror(13))
    return path / "flower"
