"""The categories of dead letters."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Category"]


class Category(StrEnum):
    """Why a job became a dead letter; the database has the same list as a CHECK constraint."""

    TIMEOUT = "timeout"
    RETRY_EXHAUSTED = "retry_exhausted"
    CIRCUIT_OPEN = "circuit_open"
    NON_RETRYABLE = "non_retryable"
    VALIDATION_ERROR = "validation_error"
    POISON = "poison"
    EXPIRED = "expired"
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_HISTORY = "unknown_history"
    UNDECODABLE = "undecodable"
    REJECTED = "rejected"
    INTERNAL_ERROR = "internal_error"
