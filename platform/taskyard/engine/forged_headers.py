"""Keep a message's headers from replacing attributes of Celery's request.

Celery copies a message's headers onto its request. A header with the name of a method would replace
the method, and a header with the name of one of Taskyard's marks would be believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery.app.task import Context

from taskyard.wire.stamp_header import HEADER

__all__ = ["OF_THE_REQUEST", "is_ours", "without_forged"]

_OURS: Final = "taskyard_"
# What Celery's worker sets itself.
_OF_THE_WORKER: Final = frozenset(
    {
        "args",
        "called_directly",
        "correlation_id",
        "delivery_info",
        "hostname",
        "is_eager",
        "kwargs",
        "logfile",
        "loglevel",
        "properties",
        "reply_to",
        "soft_time_limit",
        "time_limit",
    }
)
_OF_THE_CLASS: Final = frozenset(
    name
    for name, value in vars(Context).items()
    if callable(value) or isinstance(value, property) or name.startswith("_")
)
_FORGED: Final = _OF_THE_WORKER | _OF_THE_CLASS
# Null stands for "not said", and Celery would calculate with it.
_COUNTS: Final = ("retries", "replaced_task_nesting")

OF_THE_REQUEST: Final = _FORGED | {"headers", "id", "task", "timelimit", HEADER}
"""Names that a message's body may not set, because Celery copies the body onto the request."""


def without_forged(headers: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the headers without those that only a worker may set; a client's own headers stay."""
    # No function for each of twenty headers: every job passes here twice.
    return {
        name: value
        for name, value in headers.items()
        if name not in _FORGED
        and not (value is None and name in _COUNTS)
        and not (isinstance(name, str) and name.startswith(_OURS))
    }


def is_ours(name: object) -> bool:
    """Return whether a header has a name that Taskyard uses, other than the stamp's."""
    return isinstance(name, str) and name.startswith(_OURS)
