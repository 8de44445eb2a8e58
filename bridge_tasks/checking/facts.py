"""What the rules judge: plain values, as they were gathered. No password is in them. Pure.

The defaults are those of a good deployment, so that whoever tells of another one tells only what is different.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["jobs", "results", "state"]
"""What a Redis holds: messages and their records; results; circuits, limits, cached answers and blobs."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One Redis, as it says itself; None is what it does not tell.

    Attributes:
        roles: what it is used for.
        variable: the setting that names it.
        host: where it is; empty for a socket of this machine.
        port: where it listens.
        loopback: whether the address is this machine.
        tls: whether the connection is encrypted.
        verified: whether the server's certificate is looked at.
        identified: whether we say who we are, by a password or a certificate.
        trouble: why it could not be asked: `away`, `login`, or nothing.
        denied: commands that our user may not run.
        version: of the server.
        cluster: whether it is one shard of several.
        replica: whether it follows another.
        policy: `maxmemory-policy`.
        maxmemory: bytes; 0 is no limit.
        used: bytes.
        evicted: keys that it threw away since it started.
        append_only: whether it keeps an append-only file.
        fsync: `appendfsync`.
        disk_well: whether the last writes to its disk went well.
        idle_timeout: seconds after which it closes a connection that says nothing; 0 is never.
        protected: `protected-mode`.
        listens_beyond: whether it listens beyond its own machine.
        open_door: whether it lets in whoever gives no password.
        clients: how many connections it has, and how many it takes.
        skew: seconds by which its clock is ahead of ours.
        watched: whether sentinels say where it is.
        copies: how many replicas it must have to take writes.
    """

    roles: tuple[Role, ...] = ("jobs", "results", "state")
    variable: str = "BRIDGE_REDIS_URL"
    host: str = "127.0.0.1"
    port: int = 6379
    loopback: bool = True
    tls: bool = False
    verified: bool = True
    identified: bool = False
    trouble: Literal["", "away", "login"] = ""
    denied: tuple[str, ...] = ()
    version: tuple[int, ...] | None = (7, 2, 5)
    cluster: bool = False
    replica: bool = False
    policy: str | None = "noeviction"
    maxmemory: int = 0
    used: int = 0
    evicted: int = 0
    append_only: bool | None = True
    fsync: str | None = "everysec"
    disk_well: bool = True
    idle_timeout: int | None = 0
    protected: bool | None = True
    listens_beyond: bool | None = False
    open_door: bool | None = None
    clients: tuple[int, int] | None = None
    skew: float | None = 0.0
    watched: bool = False
    copies: int | None = None

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}" if self.host else "a socket of this machine"


@dataclass(frozen=True, slots=True)
class RabbitFacts:
    """A RabbitMQ that carries the messages.

    Attributes:
        variable: the setting that names it.
        host: where it is.
        port: where it listens.
        loopback: whether the address is this machine.
        tls: whether the connection is encrypted.
        verified: whether the server's certificate is looked at.
        guest: whether we come as the user that everybody knows.
        trouble: why it could not be asked: `away`, `login`, or nothing.
        version: of the server; None is what it does not tell.
        classic: those of our queues that are there and are no quorum queues.
    """

    variable: str = "BRIDGE_BROKER_URL"
    host: str = "127.0.0.1"
    port: int = 5672
    loopback: bool = True
    tls: bool = False
    verified: bool = True
    guest: bool = True
    trouble: Literal["", "away", "login"] = ""
    version: tuple[int, ...] | None = (3, 10, 8)
    classic: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        """How its URL begins."""
        return "amqps" if self.tls else "amqp"


@dataclass(frozen=True, slots=True)
class CeleryFacts:
    """Celery's configuration as it is in force, whoever set it.

    Attributes:
        module: the module it came from.
        ours: whether messages go through our transport, which writes records; None where none does.
        same_broker: whether the broker is the one that the settings name.
        prefix: a prefix of keys on the broker.
        accepts: formats that are read from queues and results.
        writes: formats that tasks and results are written in.
        acks_late: whether a message is acknowledged after its work.
        acks_on_failure: and after work that failed.
        retries_lost: whether what killed its worker is retried, a limited number of times.
        rejects_lost: whether it is put back without a limit.
        visibility_timeout: seconds after which a message goes to another worker.
        time_limit: seconds after which a run is killed.
        soft_time_limit: seconds after which a run is interrupted.
        prefetch: messages that a worker takes for each of its slots, beyond those that it works on; 0 is none.
        eager: whether tasks run where they are submitted.
        results: whether there is a result backend.
        result_ttl: seconds that results are kept.
        socket_timeout: seconds that a producer waits for an answer.
        connection_retries: how often a worker tries to come back; None for ever.
        undeclared: queues that tasks are routed to, and that no worker reads unless told to.
        remote_control: whether workers answer questions.
        events: whether workers tell Flower what they do.
    """

    module: str = "bridge_tasks.celeryconfig"
    ours: bool | None = True
    same_broker: bool = True
    prefix: str = ""
    accepts: tuple[str, ...] = ("json",)
    writes: tuple[str, ...] = ("json",)
    acks_late: bool = True
    acks_on_failure: bool = True
    retries_lost: bool = True
    rejects_lost: bool = False
    visibility_timeout: float | None = 900
    time_limit: float | None = 150
    soft_time_limit: float | None = 125
    prefetch: int = 0
    eager: bool = False
    results: bool = True
    result_ttl: float | None = 86_400
    socket_timeout: float | None = 5
    connection_retries: int | None = None
    undeclared: tuple[str, ...] = ()
    remote_control: bool = True
    events: bool = True


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """How a service is called.

    Attributes:
        name: `metadata` or `onextree`.
        urls: its replicas.
        open_urls: those that are reached over a network without TLS.
        timeout: seconds of one try.
        deadline: seconds of one call.
    """

    name: str
    urls: tuple[str, ...]
    open_urls: tuple[str, ...] = ()
    timeout: float = 10
    deadline: float = 30


@dataclass(frozen=True, slots=True)
class RootFacts:
    """A directory that jobs may read.

    Attributes:
        path: where.
        is_there: whether it is a directory.
        readable: whether this process can read it.
        writable_by_all: whether every user of the machine may put files there.
        readable_by_all: whether every user of the machine may look into it.
        secrets: names of what lies in it and is nobody's business.
    """

    path: str
    is_there: bool = True
    readable: bool = True
    writable_by_all: bool = False
    readable_by_all: bool = False
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowerFacts:
    """What the environment says to Flower.

    Attributes:
        beyond: whether it listens beyond this machine.
        guarded: whether it asks who comes.
        weak: whether its password can be guessed.
        open_api: whether anybody may send tasks through it.
    """

    beyond: bool = False
    guarded: bool = True
    weak: bool = False
    open_api: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    `retry_maximum` and `retry_total`: the longest countdown of a task, and all of them together. `look_seconds`
    and `beat_seconds`: between two looks for lost messages, and between two signs of life of a worker.
    """

    redis: tuple[RedisFacts, ...] = (RedisFacts(),)
    rabbit: RabbitFacts | None = None
    celery: CeleryFacts = CeleryFacts()
    services: tuple[ServiceFacts, ...] = (
        ServiceFacts("metadata", ("http://127.0.0.1:8053",)),
        ServiceFacts("onextree", ("http://127.0.0.1:8058",)),
    )
    roots: tuple[RootFacts, ...] = (RootFacts("/srv/documents"),)
    hosts: tuple[str, ...] = ()
    inner_hosts: tuple[str, ...] = ()
    flower: FlowerFacts | None = None
    task_deadline: float = 120
    retry_maximum: float = 300
    retry_total: float = 31
    max_age: float = 86_400
    look_seconds: float = 5
    beat_seconds: float = 1
    log_level: str = "INFO"
    root_user: bool = False
    versions: Mapping[str, str] = field(
        default_factory=lambda: {"celery": "5.7.0", "kombu": "5.7.0", "redis": "8.1.0"}
    )
    misspelt: Mapping[str, str] = field(default_factory=dict)
    """Variables that begin like ours and are none, with what may have been meant."""
    ignored_file: str | None = None
    """A file of settings that is not read, since somebody else could have written it."""
