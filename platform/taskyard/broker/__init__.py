"""The message broker: confirmed publishing, delayed messages, and Celery's configuration."""

from taskyard.broker.amqp_publisher import LONGEST_WAIT_S, PARKED_S, AmqpPublisher
from taskyard.broker.celery_app import Amqp, make_app
from taskyard.broker.compressed_bodies import body_as_it_came, keep_packed
from taskyard.broker.connection import (
    connection,
    is_amqp,
    keep_transport,
    own_layout,
    transport_options,
)
from taskyard.broker.delay_exchanges import has_waited
from taskyard.broker.kombu_envelope import encode
from taskyard.broker.outgoing_message import Outgoing
from taskyard.broker.publisher import BatchPublisher, ParkingPublisher, Publisher, make_publisher
from taskyard.broker.rabbit_start_log import describe, settle_queues
from taskyard.broker.redis_delay import PROMOTE_BATCH
from taskyard.broker.redis_keys import PLAIN, Layout
from taskyard.broker.redis_parked import RELEASE_BATCH, ParkedMessages
from taskyard.broker.redis_publisher import RedisPublisher
from taskyard.broker.undecodable_headers import read_any_header
from taskyard.broker.waiting_in_rabbitmq import RabbitQueueMessages
from taskyard.broker.waiting_in_redis import RedisQueueMessages
from taskyard.broker.waiting_messages import QueueMessages, WaitingMessage

__all__ = [
    "LONGEST_WAIT_S",
    "PARKED_S",
    "PLAIN",
    "PROMOTE_BATCH",
    "RELEASE_BATCH",
    "Amqp",
    "AmqpPublisher",
    "BatchPublisher",
    "Layout",
    "Outgoing",
    "ParkedMessages",
    "ParkingPublisher",
    "Publisher",
    "QueueMessages",
    "RabbitQueueMessages",
    "RedisPublisher",
    "RedisQueueMessages",
    "WaitingMessage",
    "body_as_it_came",
    "connection",
    "describe",
    "encode",
    "has_waited",
    "is_amqp",
    "keep_packed",
    "keep_transport",
    "make_app",
    "make_publisher",
    "own_layout",
    "read_any_header",
    "settle_queues",
    "transport_options",
]
