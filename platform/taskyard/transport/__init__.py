"""A Redis transport for kombu that loses no message when a worker is killed.

kombu's own transport takes a message and records it as unacknowledged in two steps. Here one script
does both, for a whole batch. Keys, priority steps and wire format are kombu's, so that stock
producers, workers, Flower and clients in other languages share the queues.
"""

from kombu.transport import TRANSPORT_ALIASES

from taskyard.transport.ack_rate import BURST
from taskyard.transport.channel import Channel, SentinelChannel
from taskyard.transport.owner_descriptions import OWNER_TTL_S, Owner, owner_of, read_owners
from taskyard.transport.qos import QoS
from taskyard.transport.requeue import give_back
from taskyard.transport.transport import SentinelTransport, Transport

__all__ = [
    "BURST",
    "OWNER_TTL_S",
    "Channel",
    "Owner",
    "QoS",
    "SentinelChannel",
    "SentinelTransport",
    "Transport",
    "give_back",
    "owner_of",
    "read_owners",
]

# kombu takes the transport for a socket's URL from the part before its plus sign.
TRANSPORT_ALIASES.setdefault("taskyard", "taskyard.transport:Transport")
