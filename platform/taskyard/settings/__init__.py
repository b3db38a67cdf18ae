"""Settings: one frozen object, read once from variables and `taskyard.toml`."""

from taskyard.settings.model import QueueSettings, Settings
from taskyard.settings.sources import Loaded, load

__all__ = ["Loaded", "QueueSettings", "Settings", "load"]
