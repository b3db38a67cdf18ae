"""The relay: carries operators' intents from the outbox to the job's record and the broker."""

from taskyard.relay.keep_switches import SwitchKeeper
from taskyard.relay.ports import GatePort, PublisherPort, QueuesPort, RecordsPort
from taskyard.relay.relay import Relay
from taskyard.relay.retention import Retention

__all__ = [
    "GatePort",
    "PublisherPort",
    "QueuesPort",
    "RecordsPort",
    "Relay",
    "Retention",
    "SwitchKeeper",
]
