"""Our transport over sentinels: kombu's way to the master, our way with messages. It adds nothing to either."""

from kombu.transport import redis as kombu_redis

from bridge_tasks import places
from bridge_tasks.broker import redis


class Channel(redis.Channel, kombu_redis.SentinelChannel):
    """A channel to whoever is master."""

    connection_class = places.Connection


class Transport(redis.Transport, kombu_redis.SentinelTransport):
    """The transport over such channels."""

    Channel = Channel
