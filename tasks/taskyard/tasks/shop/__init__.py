"""A sample web shop that can be broken on purpose, for demonstrations and for tests."""

from taskyard.tasks.shop.faults import Fault
from taskyard.tasks.shop.server import ShopServer, feature_text

__all__ = ["Fault", "ShopServer", "feature_text"]
