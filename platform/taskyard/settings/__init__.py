"""Settings: one frozen object, read once from variables and `taskyard.toml`."""

from taskyard.settings.forbid_operator_credentials import refuse_operator_credentials
from taskyard.settings.model import DEFAULT_QUEUES, QueueSettings, Settings
from taskyard.settings.sources import Loaded, load

__all__ = [
    "DEFAULT_QUEUES",
    "Loaded",
    "QueueSettings",
    "Settings",
    "load",
    "refuse_operator_credentials",
]
