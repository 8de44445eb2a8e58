"""The environment, read once into one frozen tree. Knobs are defined beside what obeys them; this composes.

Variables begin with `BRIDGE_`, parts are joined by `__`: `BRIDGE_METADATA__URLS`. A file `.bridge.env` in the
working directory (`bridge-tasks up` writes one) is read first, if it is ours; the environment wins. No secret is
ever printed: URLs that may hold a password are `SecretStr`.
"""

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic import BaseModel as Model
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from bridge_tasks import tls
from bridge_tasks.copies import Copies
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.models.content import web_address
from bridge_tasks.places import SCHEME, Place
from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.caching import CacheRules
from bridge_tasks.resilience.policy.hedging import HedgingConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RetryConfig

ENV_FILE = ".bridge.env"


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _service_url(value: str) -> str:
    return web_address(value).rstrip("/")


def _root(value: str) -> str:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("must be absolute")
    return str(path.resolve())


def _url_of(*schemes: str) -> AfterValidator:
    """Refuse, without quoting it, what a Redis or AMQP client would trip over with the password in its message."""

    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url.startswith(SCHEME) and "sentinel" in schemes:
            for one in url.split(";"):
                _parts(one, "sentinel")
            return value
        parts = _parts(url, *schemes)
        return SecretStr(tls.trusting(parts)) if parts.scheme == tls.SCHEME else value

    return AfterValidator(check)


def _parts(url: str, *schemes: str) -> SplitResult:
    if ";" in url:  # kombu would go to the next address with its own transport, whose messages have no records
        raise ValueError("must be one address, and ; in it be escaped: put one name before several servers")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL: escape special characters in the password") from None
    if parts.scheme not in schemes or not (parts.hostname or parts.path):
        raise ValueError(f"must be a URL that begins with {', '.join(f'{one}://' for one in schemes)}")
    return parts


Urls = Annotated[
    tuple[Annotated[str, AfterValidator(_service_url)], ...],
    NoDecode,
    BeforeValidator(_split),
    Field(min_length=1),
]
Roots = Annotated[tuple[Annotated[str, AfterValidator(_root)], ...], NoDecode, BeforeValidator(_split)]
Services = Annotated[
    tuple[Literal["metadata", "onextree"], ...],
    NoDecode,
    BeforeValidator(_split),
]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(str.lower)], ...], NoDecode, BeforeValidator(_split)]
RedisUrl = Annotated[SecretStr, _url_of("redis", "rediss", "unix", "sentinel")]
BrokerUrl = Annotated[SecretStr, _url_of("redis", "rediss", "sentinel", "amqp", "amqps")]
ResultUrl = Annotated[SecretStr, _url_of("redis", "rediss", "sentinel")]
SigningKeys = Annotated[
    tuple[Annotated[SecretStr, Field(min_length=32)], ...],
    NoDecode,
    BeforeValidator(_split),
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(Model):
    """A branch of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServiceSettings(Section):
    """How one service is called from tasks.

    Attributes:
        urls: replicas, comma-separated; they share one path.
        timeout: seconds for one try.
        deadline: seconds for one call over all its tries.
        retry: tries of one call, and the pauses between them.
        breaker: when its circuit opens and closes.
        balancing: how tries are spread over replicas, and over the addresses of a name.
        hedging: whether slow reads are sent twice, to two replicas.
        budget: how many retries the service can bear.
        limits: how many calls a minute, and at a time; none by default.
    """

    urls: Urls
    timeout: Seconds = 10.0
    deadline: Seconds = 30.0
    retry: RetryConfig = RetryConfig(attempts=3, initial=0.2, patience=1.0)
    breaker: CircuitBreakerConfig = CircuitBreakerConfig(
        failure_rate_threshold=0.5, max_recovery_timeout=120.0, ramp_seconds=1.0
    )
    balancing: BalancingConfig = BalancingConfig()
    hedging: HedgingConfig = HedgingConfig()
    budget: BudgetConfig = BudgetConfig()
    limits: LimitsConfig = LimitsConfig()


class MetadataSettings(ServiceSettings):
    """MetadataStampingService."""

    urls: Urls = ("http://127.0.0.1:8053",)


class OnexTreeSettings(ServiceSettings):
    """OnexTree, and the cache of its answers.

    Attributes:
        cache: whether answers are kept.
        cache_ttl: seconds that they are fresh.
        cache_max_size: entries, over all processes together.
        cache_rules: how answers age, and who asks anew.
        warm: what workers ask when they start: contexts, comma-separated, or a file with one on each line.
    """

    urls: Urls = ("http://127.0.0.1:8058",)
    cache: bool = True
    cache_ttl: Seconds = 300.0
    cache_max_size: int = Field(default=1000, ge=1)
    cache_rules: CacheRules = CacheRules()
    warm: str = ""


class ContentSettings(Section):
    """What jobs may read.

    Attributes:
        roots: directories, comma-separated and absolute; files elsewhere are refused. None by default.
        hosts: host names that content may be fetched from, comma-separated. None by default.
        max_bytes: largest content; the service's own limit for hashing (wire-contract.md 1.4).
        max_text_bytes: largest text that is sent to be stamped or validated; the service's limit.
        max_blob_bytes: largest content kept in Redis.
        blob_ttl: seconds that Redis keeps it.
    """

    roots: Roots = ()
    hosts: Hosts = ()
    max_bytes: int = Field(default=500 * 1024 * 1024, ge=1)
    max_text_bytes: int = Field(default=100 * 1024 * 1024, ge=1)
    max_blob_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    blob_ttl: Seconds = 3600.0


class TaskSettings(Section):
    """How tasks run.

    Attributes:
        deadline: seconds of one run of a task, in code, so that it holds in every pool.
        retry: runs of a task that fails in a way that may pass, and the countdowns between them. No countdown
            may reach the visibility timeout, or the waiting task runs twice.
        result_ttl: seconds that results are kept.
        visibility_timeout: seconds after which Redis gives an unacknowledged message to another worker.
        pause: services, comma-separated, whose queues no worker takes from while their circuit is open.
    """

    deadline: Seconds = 120.0
    retry: RetryConfig = RetryConfig(attempts=6, initial=1.0, maximum=300.0)
    result_ttl: Seconds = 86_400.0
    visibility_timeout: int = Field(default=900, ge=60)
    pause: Services = ("metadata",)

    @model_validator(mode="after")
    def _messages_come_back_late_enough(self) -> Self:
        if self.visibility_timeout < max(self.deadline, self.retry.maximum) * 2:
            raise ValueError("visibility_timeout must be twice the deadline and the longest countdown, at least")
        return self


class LedgerSettings(Section):
    """The records of jobs, beside the broker's messages.

    Attributes:
        max_age: seconds after which a job that has not ended becomes a dead letter.
        keep: seconds that a record is kept after its end, and a success stands for the same job.
        dead_letters: how many are kept; beyond, the oldest go, and that is told.
        look_seconds: between two looks for lost messages, by one worker of all; no closer together than signs
            of life.
        beat_seconds: between two signs of life of a worker.
        dead_after: seconds without one after which its messages go to others.
        signing_keys: secrets, comma-separated, of 32 characters or more; where there are some, messages are signed
            with the first, and workers run only what is signed with one of them.
        max_message_bytes: largest message that is sent, or taken from a queue.
    """

    max_age: Seconds = 86_400.0
    keep: Seconds = 86_400.0
    dead_letters: int = Field(default=10_000, ge=1)
    look_seconds: float = Field(default=5.0, gt=0, le=300)
    beat_seconds: float = Field(default=1.0, gt=0, le=60)
    dead_after: float = Field(default=10.0, gt=0, le=300)
    signing_keys: SigningKeys = ()
    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=65_536)

    @model_validator(mode="after")
    def _a_late_beat_is_no_death(self) -> Self:
        if self.dead_after < 3 * self.beat_seconds:
            raise ValueError("dead_after must be at least three times beat_seconds")
        return self

    @model_validator(mode="after")
    def _a_copy_is_known_for_one(self) -> Self:
        if self.signing_keys and self.keep < self.max_age:
            raise ValueError("keep must be max_age, at least: a signed message is believed for so long")
        return self


class SentinelSettings(Section):
    """What holds where a URL names sentinels (`sentinel://one:26379/0;sentinel://two:26379/0`).

    Attributes:
        master: what they call the Redis that they watch.
        password: theirs, if they have one; that of the Redis is in the URL.
        copies: how many replicas must have a job before `submit` returns, and before a worker begins it; 0: none.
        copy_seconds: how long both wait for that.
        uncopied: what `submit` does after that: it returns, and that is counted and logged (`warn`), or it raises
            `OperationalError` (`refuse`).
    """

    master: str = Field(default="mymaster", min_length=1)
    password: SecretStr | None = None
    copies: int = Field(default=1, ge=0)
    copy_seconds: float = Field(default=0.5, gt=0, le=0.9)  # a client gives an answer a second
    uncopied: Literal["warn", "refuse"] = "warn"


class LogSettings(Section):
    """How logs look.

    Attributes:
        level: from which on: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        json_lines: a line of JSON for each entry, for machines.
    """

    level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$")
    json_lines: bool = False


class WorkerSettings(Section):
    """What a worker does besides its tasks.

    Attributes:
        pulse: the file in which it gives its pulse, for `bridge-tasks probe`; none by default.
        orders: which orders over Redis it obeys (`celery control`, Flower's buttons): `all`, or only `questions`,
            which change nothing.
    """

    pulse: str = ""
    orders: Literal["all", "questions"] = "all"


class MetricsSettings(Section):
    """Where a worker tells its figures; nowhere by default.

    Attributes:
        port: of its `/metrics`; 0 takes a free one, which `bridge-tasks metrics` tells.
        host: the address to listen on. There is no password: beyond this machine, let a firewall be the door.
    """

    port: int | None = Field(default=None, ge=0, le=65_535)
    host: str = "127.0.0.1"


class TracingSettings(Section):
    """Whether spans are made, with the extra `otel`; where they go is OpenTelemetry's to say (`OTEL_…`).

    Attributes:
        enabled: whether.
        share: of how many jobs (0..1); of those, everything. `OTEL_TRACES_SAMPLER` wins.
    """

    enabled: bool = False
    share: float = Field(default=0.1, ge=0, le=1)


class FlowerSettings(Section):
    """Who may see Flower.

    Attributes:
        user: the name of whoever may.
        password: theirs; without one, it does not start (FLOWER_BASIC_AUTH=user:password will do as well).
        state: the directory in which it keeps what it saw; by default one in the user's own ~/.local/state.
        operate: whether it may change things: revoke jobs, shut workers down. If not, it only shows.
    """

    user: str = Field(default="bridge", pattern=r"^[^:,\s]+$")
    password: SecretStr | None = Field(default=None, min_length=8)
    state: str = ""
    operate: bool = False

    def credentials(self, pairs: Iterable[str]) -> list[str]:
        """Return what to ask for: Flower's own `user:password` pairs, where one is whole; else what is set here.

        An empty FLOWER_BASIC_AUTH is read as one empty pair, which whoever says nothing would match.
        """
        whole = [pair for pair in pairs if all(pair.partition(":"))]
        ours = [] if self.password is None else [f"{self.user}:{self.password.get_secret_value()}"]
        return whole or ours


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
