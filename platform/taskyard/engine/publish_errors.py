"""The errors after which a message returns to its queue, so that its publication is repeated."""

from __future__ import annotations

from typing import Final

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.errors import TaskyardError

__all__ = ["PUBLISH_ERRORS"]

PUBLISH_ERRORS: Final = (TaskyardError, RedisError, OperationalError, OSError)
