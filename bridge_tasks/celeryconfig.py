"""Celery's configuration: values only, derived from the settings. The reasons are in docs/decisions/0004.

To change one, set the environment; to change what the environment does not reach, point CELERY_CONFIG_MODULE at
a module that imports all of this and goes on (`celeryconfig.py` at the top of the repository is one).
"""

import ssl

from kombu import Exchange, Queue

from bridge_tasks import tls
from bridge_tasks.places import SCHEME, stay
from bridge_tasks.settings import load

_settings = load()
_task = _settings.task
_sentinel = {
    "master_name": _settings.sentinel.master,
    "sentinel_kwargs": _settings.ledger_place.asking({"socket_timeout": 1, "socket_connect_timeout": 1}),
}

broker_url = _settings.broker
broker_transport = _settings.transport
broker_failover_strategy = stay if _settings.broker.startswith(SCHEME) else None
# For Flower, which does not read the address; and for py-amqp, which is told that the URL names the host.
_rabbit_tls = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
broker_use_ssl = _rabbit_tls if _settings.broker.startswith("amqps://") else tls.options(_settings.broker) or False
result_backend = _settings.result_backend
imports = ("bridge_tasks.tasks", "bridge_tasks.worker", "bridge_tasks.dashboard")

# JSON only: a pickle in the queue would be code.
task_serializer = result_serializer = "json"
accept_content = result_accept_content = ["json"]

task_default_queue = "bridge.metadata"
task_queues = [
    Queue(name, Exchange(name), routing_key=name) for name in ("bridge.metadata", "bridge.onextree", "bridge.bulk")
]
task_routes = {
    "bridge.get_intelligence": {"queue": "bridge.onextree"},
    "bridge.query_knowledge": {"queue": "bridge.onextree"},
    "bridge.navigate_tree": {"queue": "bridge.onextree"},
    "bridge.warm_cache": {"queue": "bridge.onextree"},
    "bridge.batch_create_stamps": {"queue": "bridge.bulk"},
    "bridge.stamp_chunk": {"queue": "bridge.bulk"},
}

# A message is acknowledged when its work is done, and comes back when its worker dies; one that killed its
# worker is tried again only as often as any other failure. An expired task is not put back for ever.
task_acks_late = True
task_retry_on_worker_lost = True
task_acks_on_failure = True
task_acks_on_timeout = True

# The deadline is in code and holds in every pool; these two are the net below it, under prefork only.
task_soft_time_limit = _task.deadline + 5
task_time_limit = _task.deadline + 30

# A waiting message belongs to nobody: take one when there is a slot for it.
worker_prefetch_multiplier = 1
worker_disable_prefetch = not _settings.rabbit_broker  # RabbitMQ gives each slot one, of each queue
worker_cancel_long_running_tasks_on_connection_loss = False
worker_soft_shutdown_timeout = _task.deadline

# A producer is told soon that Redis is away; workers outlast a restart (bridge_tasks.worker.signals).
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_pool_acquire_timeout = 10
broker_heartbeat = 20  # RabbitMQ's only: a worker finds out that nobody is at the other end
broker_transport_options = (
    {"confirm_publish": True, "write_timeout": 10}
    if _settings.rabbit_broker
    else {
        "visibility_timeout": _task.visibility_timeout,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 15,
        **(_sentinel if _settings.broker.startswith(SCHEME) else {}),
    }
)
visibility_timeout = _task.visibility_timeout

result_expires = _task.result_ttl
result_backend_transport_options = {
    "visibility_timeout": _task.visibility_timeout,
    "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
    **(_sentinel if _settings.result_backend.startswith(SCHEME) else {}),
}
redis_socket_timeout = 10
redis_socket_connect_timeout = 5
redis_backend_health_check_interval = 15

# Flower sees events; what it may not see is redacted where messages are made (bridge_tasks.messages).
worker_send_task_events = True
task_send_sent_event = True

# One event per fact, through one logging configuration: bridge_tasks.observability.logs.
worker_hijack_root_logger = False
worker_redirect_stdouts = False
