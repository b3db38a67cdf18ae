"""The broker: publishing with confirmation, waiting in the delay store, the Celery app's wiring."""

from taskyard.broker.app import make_app
from taskyard.broker.connection import connection, transport_options
from taskyard.broker.envelope import encode, queue_key
from taskyard.broker.publisher import Publisher

__all__ = ["Publisher", "connection", "encode", "make_app", "queue_key", "transport_options"]
