"""Server addresses: a URL is parsed once, for every client library, and compared by its meaning.

redis-py, kombu and Celery parse a URL in three ways, and each drops or refuses what it does not
know. Here it is parsed as it was written, and each library gets its own options from that.
"""

from taskyard.address.amqp import AMQP_SCHEMES, AmqpAddress, amqp_address
from taskyard.address.redis import REDIS_SCHEMES, RedisAddress, redis_address
from taskyard.address.url_comparison import Server, same_server, server_at, server_of

__all__ = [
    "AMQP_SCHEMES",
    "REDIS_SCHEMES",
    "AmqpAddress",
    "RedisAddress",
    "Server",
    "amqp_address",
    "redis_address",
    "same_server",
    "server_at",
    "server_of",
]
