"""The names of attributes that Taskyard sets on Celery's own objects."""

from __future__ import annotations

from typing import Final

__all__ = ["ACKS_BEFORE", "AS_BEFORE", "ATTEMPT", "COPY", "ETA", "MODE"]

# On a message from a fanout exchange: which of its copies it is.
COPY: Final = "taskyard_copy"
# On a message that waited at the broker: the date that it came with, for the task to read.
ETA: Final = "taskyard_eta"
# On the request in the child: the protected attempt that runs.
ATTEMPT: Final = "taskyard_attempt"
# On a task: its mode, and how it acknowledged before.
MODE: Final = "taskyard_mode"
ACKS_BEFORE: Final = "taskyard_acks_before"
# On a protected task: the earlier values of the names that protection sets.
AS_BEFORE: Final = "taskyard_as_before"
