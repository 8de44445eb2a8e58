"""The branches of the tree: what can be set of each part. Knobs of policies are defined beside what obeys them."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel as Model
from pydantic import ConfigDict, Field, SecretStr, model_validator

from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.caching import CacheRules
from bridge_tasks.resilience.policy.hedging import HedgingConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.settings.fields import Hosts, Roots, Seconds, Services, SigningKeys, Urls


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
