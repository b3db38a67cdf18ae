"""Errors of an owed publication: its message goes back, and its next delivery repeats it."""

from __future__ import annotations

from typing import Final

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.errors import TaskyardError

__all__ = ["PUBLISH_ERRORS"]

PUBLISH_ERRORS: Final = (TaskyardError, RedisError, OperationalError, OSError)
