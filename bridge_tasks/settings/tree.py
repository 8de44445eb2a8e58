"""The environment, read once into one frozen tree; what carries messages and where records are follows from it.

Variables begin with `BRIDGE_`, parts are joined by `__`: `BRIDGE_METADATA__URLS`. A file `.bridge.env` in the
working directory (`bridge-tasks up` writes one) is read first, if it is ours; the environment wins. No secret is
ever printed: URLs that may hold a password are `SecretStr`.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from bridge_tasks.copies import Copies
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.places import Place
from bridge_tasks.settings.fields import BrokerUrl, Names, RedisUrl, ResultUrl
from bridge_tasks.settings.sections import (
    ContentSettings,
    FlowerSettings,
    LedgerSettings,
    LogSettings,
    MetadataSettings,
    MetricsSettings,
    OnexTreeSettings,
    SentinelSettings,
    TaskSettings,
    TracingSettings,
    WorkerSettings,
)

ENV_FILE = ".bridge.env"


class Settings(BaseSettings):
    """Everything that can be set.

    Attributes:
        redis_url: where shared state is; the broker and the results are there too, unless told otherwise.
        broker_url: Celery's broker.
        result_backend_url: Celery's results.
        check: what a worker that starts does about fatal findings (`bridge-tasks check`): it ends (`stop`), says
            so and goes on (`warn`), or does not look (`off`).
        check_accept: ids of findings that somebody lives with, comma-separated: they are not told.
    """

    model_config = SettingsConfigDict(
        env_prefix="BRIDGE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    redis_url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    broker_url: BrokerUrl | None = None
    result_backend_url: ResultUrl | None = None
    check: Literal["stop", "warn", "off"] = "stop"
    check_accept: Names = ()
    metadata: MetadataSettings = MetadataSettings()
    onextree: OnexTreeSettings = OnexTreeSettings()
    content: ContentSettings = ContentSettings()
    task: TaskSettings = TaskSettings()
    ledger: LedgerSettings = LedgerSettings()
    sentinel: SentinelSettings = SentinelSettings()
    log: LogSettings = LogSettings()
    worker: WorkerSettings = WorkerSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    flower: FlowerSettings = FlowerSettings()

    @property
    def broker(self) -> str:
        """The broker's address, secret and all."""
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def redis_broker(self) -> bool:
        """Whether the broker is a Redis that our transport speaks to."""
        return self.broker.partition("://")[0] in ("redis", "rediss", "sentinel")

    @property
    def transport(self) -> str | None:
        """Kombu's name for the transport of ours that speaks to the broker; None where it is another's."""
        return {
            "redis": "bridge_tasks.broker.redis:Transport",
            "rediss": "bridge_tasks.broker.redis:Transport",
            "sentinel": "bridge_tasks.broker.sentinel:Transport",
            "amqp": "bridge_tasks.broker.rabbitmq:Transport",
            "amqps": "bridge_tasks.broker.rabbitmq:SSLTransport",
        }.get(self.broker.partition("://")[0])

    @property
    def rabbit_broker(self) -> bool:
        """Whether the broker is a RabbitMQ."""
        return self.broker.partition("://")[0] in ("amqp", "amqps")

    @property
    def broker_kind(self) -> Literal["redis", "rabbitmq", "other"]:
        """What carries the messages; `other` is what no transport of ours speaks to."""
        return "redis" if self.redis_broker else "rabbitmq" if self.rabbit_broker else "other"

    @property
    def ledger_url(self) -> str:
        """Where the records are: with the messages, where those are in Redis. Secret and all."""
        return self.broker if self.redis_broker else self.redis_url.get_secret_value()

    @property
    def ledger_place(self) -> Place:
        """The same, to be connected to."""
        return self.place(self.ledger_url)

    @property
    def state_place(self) -> Place:
        """Where shared state is, to be connected to."""
        return self.place(self.redis_url.get_secret_value())

    def copies(self, *, refuse: bool) -> Copies | None:
        """What a write to the ledger waits for; None where there is nothing to wait for.

        Args:
            refuse: whether it may be an error that it waited in vain, where the settings want that.
        """
        rules = self.sentinel
        if not rules.copies or not self.ledger_place.watched:
            return None
        return Copies(rules.copies, rules.copy_seconds, refuse=refuse and rules.uncopied == "refuse")

    def place(self, url: str) -> Place:
        """Where a Redis of ours is, to be connected to: that of one of the URLs above."""
        password = self.sentinel.password
        return Place(url, self.sentinel.master, None if password is None else password.get_secret_value())

    @property
    def result_backend(self) -> str:
        """The result backend's address, secret and all."""
        return (self.result_backend_url or self.redis_url).get_secret_value()


@cache
def load() -> Settings:
    """Read the environment, once per process.

    Raises:
        ConfigurationError: a variable is wrong; the message names it, not its value.
    """
    try:
        return Settings(_env_file=own_file(ENV_FILE))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = "BRIDGE_" + "__".join(str(part).upper() for part in first["loc"] if isinstance(part, str))
        raise ConfigurationError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"BRIDGE_{field[1].upper()}" if field else "the environment"
        raise ConfigurationError(f"{name} cannot be read: set its parts one by one ({name}__…)") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{ENV_FILE} is not UTF-8 text") from None


def own_file(name: str) -> str | None:
    """Let a file speak for the environment only if nobody else can have written it; None otherwise."""
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return name if found.st_uid == os.geteuid() and not found.st_mode & 0o022 else None
