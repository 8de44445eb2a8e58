"""The same from end to end: real servers with odd settings, real directories, Celery's own configuration."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from bridge_tasks import celeryconfig
from bridge_tasks.checking import found
from bridge_tasks.checking.gathering import gather
from bridge_tasks.checking.redis_server import ask
from bridge_tasks.places import Place
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import Settings
from tests.cli.command import NO_REDIS, unprivileged

SECRET = "s3cret-and-long"
Undo = Callable[[], None]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis(append_only=True) as running:
        yield running


@pytest.fixture
def admin(server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def configure(admin: redis.Redis) -> Iterator[Callable[[str, str], None]]:
    """Set a server's parameter, and put it back afterwards."""
    with ExitStack() as undo:

        def set_to(name: str, value: str) -> None:
            (before,) = admin.config_get(name).values()
            undo.callback(admin.config_set, name, str(before))
            admin.config_set(name, value)

        yield set_to


class Deployment:
    """A good one, of which a test spoils one thing."""

    def __init__(self, url: str, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._variables = {"BRIDGE_REDIS_URL": url, "BRIDGE_CONTENT__ROOTS": str(root)}

    def found(self, variables: Mapping[str, str] | None = None, **celery: Any) -> dict[str, str]:
        """The ids of what is found in it, each with its fix."""
        variables = {**self._variables, **(variables or {})}
        for name, value in variables.items():
            self._patch.setenv(name, value)
        settings = Settings()
        own = {name: value for name, value in vars(celeryconfig).items() if name.islower() and name[0] != "_"}
        there = {
            "broker_url": settings.broker,
            "result_backend": settings.result_backend,
            "broker_transport": "bridge_tasks.broker.redis:Transport",
        }
        app = Celery(set_as_current=False)
        app.config_from_object({**own, **there, **celery})
        told = found(gather(settings, app.conf, variables), ("root-user",))
        assert SECRET not in repr(told)
        return {one.id: one.fix for one in told}


@pytest.fixture
def deployment(server: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.chdir(tmp_path)
    return Deployment(server.url, tmp_path, monkeypatch)


def test_nothing_is_found_in_a_good_one(deployment: Deployment) -> None:
    assert deployment.found() == {}


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("redis-appendonly", "appendonly", "no"),
        ("redis-fsync", "appendfsync", "no"),
        ("redis-evicts", "maxmemory-policy", "allkeys-lru"),
        ("redis-timeout", "timeout", "20"),
        ("redis-protected-mode", "protected-mode", "no"),  # it listens to 127.0.0.1 only
        ("redis-full", "maxmemory", "1048576"),
    ],
)
def test_a_servers_odd_setting_is_found(
    name: str, parameter: str, value: str, deployment: Deployment, configure: Callable[[str, str], None]
) -> None:
    configure(parameter, value)
    fixes = deployment.found()
    assert list(fixes) == [name]
    assert parameter in fixes[name]


def test_a_wrong_password_is_told_and_shown_to_nobody(deployment: Deployment) -> None:
    with PrivateRedis() as guarded:
        with redis.Redis.from_url(guarded.url) as client:
            client.config_set("requirepass", f"{SECRET}!")
        for said in ("://", f"://:{SECRET}@"):
            assert list(deployment.found({"BRIDGE_REDIS_URL": guarded.url.replace("://", said)})) == [
                "redis-login"
            ]
        well = deployment.found({"BRIDGE_REDIS_URL": guarded.url.replace("://", f"://:{SECRET}!@")})
        assert list(well) == ["redis-appendonly"]


def test_a_user_who_may_not_run_scripts_is_found(
    deployment: Deployment, server: PrivateRedis, admin: redis.Redis
) -> None:
    with user(admin, "meek", keys=["*"], channels=["*"], commands=["+@all", "-eval", "-config"]):
        url = server.url.replace("://", f"://meek:{SECRET}@")
        assert list(deployment.found({"BRIDGE_REDIS_URL": url})) == ["redis-acl", "redis-untold"]
        assert ask(Place(url), "BRIDGE_REDIS_URL", ("jobs",)).denied == ("EVAL",)


def test_a_user_who_may_not_ask_the_server_about_itself_is_not_told_that_it_is_away(
    deployment: Deployment, server: PrivateRedis, admin: redis.Redis
) -> None:
    with user(admin, "curt", keys=["*"], channels=["*"], commands=["+@all", "-@admin", "-@dangerous"]):
        url = server.url.replace("://", f"://curt:{SECRET}@")
        assert list(deployment.found({"BRIDGE_REDIS_URL": url})) == ["redis-untold"]


def test_a_user_who_may_not_touch_our_keys_is_found(server: PrivateRedis, admin: redis.Redis) -> None:
    with user(admin, "shy", keys=["shop:*"], channels=[], commands=["+@all"]):
        asked = ask(Place(server.url.replace("://", f"://shy:{SECRET}@")), "BRIDGE_REDIS_URL", ("jobs",))
        assert {"EVAL", "BRPOP", "LINDEX", "RPOP"} < set(asked.denied)


@contextmanager
def user(
    admin: redis.Redis, name: str, *, keys: list[str], channels: list[str], commands: list[str]
) -> Iterator[None]:
    rights: dict[str, Any] = {"keys": keys, "channels": channels, "commands": commands}
    admin.acl_setuser(name, enabled=True, passwords=[f"+{SECRET}"], reset=True, **rights)
    try:
        yield
    finally:
        admin.acl_deluser(name)


def test_a_replica_and_a_disk_that_is_full_are_found(
    deployment: Deployment, admin: redis.Redis, configure: Callable[[str, str], None]
) -> None:
    admin.replicaof("127.0.0.1", "1")
    try:
        assert "redis-replica" in deployment.found()
    finally:
        admin.replicaof("NO", "ONE")
    configure("maxclients", "100")
    assert deployment.found() == {}


def test_clocks_that_differ_are_found(server: PrivateRedis) -> None:
    asked = ask(Place(server.url), "BRIDGE_REDIS_URL", ("jobs",), clock=lambda: time.time() - 60)
    assert asked.skew == pytest.approx(60, abs=5)


def test_a_look_leaves_nothing_behind(deployment: Deployment, admin: redis.Redis) -> None:
    deployment.found()
    assert admin.dbsize() == 0


def test_a_redis_that_is_away_is_told_quickly(deployment: Deployment) -> None:
    began = time.monotonic()
    assert list(deployment.found({"BRIDGE_REDIS_URL": NO_REDIS})) == ["redis-away"]
    assert time.monotonic() - began < 10


def test_each_server_is_looked_at_for_what_it_holds(deployment: Deployment) -> None:
    fixes = deployment.found({"BRIDGE_RESULT_BACKEND_URL": "redis://127.0.0.1:1/3"})
    assert fixes == {"redis-away": "redis-cli -h 127.0.0.1 -p 1 PING"}


@pytest.mark.parametrize(
    ("name", "celery"),
    [
        ("pickle", {"accept_content": ["json", "pickle"]}),
        ("pickle", {"result_accept_content": ["json", "pickle"]}),
        ("serializer", {"task_serializer": "msgpack"}),
        ("acks-early", {"task_acks_late": False}),
        ("acks-on-failure", {"task_acks_on_timeout": False}),
        ("poison", {"task_reject_on_worker_lost": True}),
        ("worker-lost", {"task_retry_on_worker_lost": False}),
        ("visibility-countdown", {"broker_transport_options": {"visibility_timeout": 200, "socket_timeout": 5}}),
        ("socket-timeout", {"broker_transport_options": {"visibility_timeout": 900}}),
        (
            "key-prefix",
            {
                "broker_transport_options": {
                    "visibility_timeout": 900,
                    "socket_timeout": 5,
                    "global_keyprefix": "a",
                }
            },
        ),
        ("time-limit", {"task_time_limit": 60}),
        ("lease", {"task_time_limit": 600}),
        ("no-time-limit", {"task_time_limit": None}),
        ("prefetch", {"worker_disable_prefetch": False, "worker_prefetch_multiplier": 4}),
        ("transport", {"broker_transport": "redis"}),
        ("transport", {"broker_transport": "nobody.has:This"}),
        ("broker-elsewhere", {"broker_url": "redis://127.0.0.1:1/0"}),
        ("queues", {"task_queues": []}),
        ("eager", {"task_always_eager": True}),
        ("no-results", {"result_backend": None}),
        ("result-ttl", {"result_expires": 60}),
        ("gives-up", {"broker_connection_max_retries": 10}),
        ("remote-control", {"worker_enable_remote_control": False}),
        ("events", {"worker_send_task_events": False}),
    ],
)
def test_what_a_configuration_module_changes_is_found(
    name: str, celery: dict[str, Any], deployment: Deployment
) -> None:
    assert list(deployment.found(**celery)) == [name]


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("unknown-variable", {"BRIDGE_METADATA_URLS": "http://127.0.0.1:1"}),
        ("unknown-variable", {"BRIDGE_REDISURL": "x"}),
        ("service-no-tls", {"BRIDGE_METADATA__URLS": "http://stamps.example"}),
        ("replica-twice", {"BRIDGE_METADATA__URLS": "http://127.0.0.1:1,http://127.0.0.1:1/"}),
        ("same-service", {"BRIDGE_METADATA__URLS": "http://127.0.0.1:8058"}),
        ("no-second-try", {"BRIDGE_METADATA__TIMEOUT": "30"}),
        ("inner-hosts", {"BRIDGE_CONTENT__HOSTS": "169.254.169.254,docs.example"}),
        ("root-system", {"BRIDGE_CONTENT__ROOTS": "/"}),
        ("root-missing", {"BRIDGE_CONTENT__ROOTS": "/nobody/has/this"}),
        ("root-writable", {"BRIDGE_CONTENT__ROOTS": "/tmp"}),  # noqa: S108 - what nobody should
        ("no-root", {"BRIDGE_CONTENT__ROOTS": ""}),
        ("flower-open", {"FLOWER_ADDRESS": "0.0.0.0"}),  # noqa: S104 - what nobody should
        ("flower-open", {"FLOWER_ADDRESS": "10.0.0.1", "FLOWER_BASIC_AUTH": ""}),
        ("flower-open", {"FLOWER_ADDRESS": "10.0.0.1", "FLOWER_BASIC_AUTH": "bridge:"}),
        ("flower-api", {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_UNAUTHENTICATED_API": "true"}),
        ("flower-password", {"FLOWER_BASIC_AUTH": "admin:admin"}),
        ("look-seconds", {"BRIDGE_LEDGER__LOOK_SECONDS": "0.5"}),
        ("debug-log", {"BRIDGE_LOG__LEVEL": "DEBUG"}),
    ],
)
def test_what_the_environment_says_is_found(name: str, variables: dict[str, str], deployment: Deployment) -> None:
    assert list(deployment.found(variables)) == [name]


@pytest.mark.parametrize(
    "variables",
    [
        {"FLOWER_PORT": "5555"},  # its guard has it listen on this machine only
        {"FLOWER_ADDRESS": "10.0.0.1", "BRIDGE_FLOWER__PASSWORD": "long enough for this"},
        {"FLOWER_ADDRESS": "10.0.0.1", "FLOWER_BASIC_AUTH": "bridge:long enough for this"},
    ],
)
def test_a_flower_that_is_shut_is_no_finding(variables: dict[str, str], deployment: Deployment) -> None:
    assert deployment.found(variables) == {}


def test_a_transport_made_of_ours_is_ours(deployment: Deployment) -> None:
    assert deployment.found(broker_transport="tests.doubling:Transport") == {}


def test_variables_that_mean_something_are_not_taken_for_slips(deployment: Deployment) -> None:
    known = {
        "BRIDGE_METADATA__LIMITS__PER_MINUTE__GET_STAMP": "10",
        "BRIDGE_METADATA__RETRY": "{}",
        "BRIDGE_WORKER_NAME": "w",
        "bridge_log__level": "INFO",
    }
    assert deployment.found(known) == {}


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(deployment: Deployment) -> None:
    (fix,) = deployment.found({"BRIDGE_METADATA_URLS": "http://127.0.0.1:1"}).values()
    assert fix == "export BRIDGE_METADATA__URLS=…; unset BRIDGE_METADATA_URLS"


def test_a_root_that_holds_keys_or_that_others_look_into_or_that_cannot_be_read_is_found(
    deployment: Deployment, tmp_path: Path
) -> None:
    home, open_to_all, shut = (tmp_path / name for name in ("home", "open", "shut"))
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    open_to_all.mkdir(mode=0o755)
    shut.mkdir(mode=0)
    assert list(deployment.found({"BRIDGE_CONTENT__ROOTS": str(home)})) == ["root-secrets"]
    assert list(deployment.found({"BRIDGE_CONTENT__ROOTS": str(open_to_all)})) == ["root-readable"]
    tmp_path.chmod(0o711)
    with unprivileged():
        told = deployment.found({"BRIDGE_CONTENT__ROOTS": str(shut)})
    shut.chmod(0o700)
    assert list(told) == ["root-unreadable"]


def test_a_file_of_settings_that_is_not_read_is_told(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / ".bridge.env"
    file.write_text("BRIDGE_LOG__LEVEL=DEBUG\n")
    file.chmod(0o666)
    assert list(deployment.found()) == ["env-file"]
