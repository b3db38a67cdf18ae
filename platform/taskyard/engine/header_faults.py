"""Check the values of a message's headers against a table of allowed values.

The body of a message in protocol 1 has fields of the same names. The table does not contain the
client's own headers, nor headers that Celery and this package read safely whatever their values
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from taskyard.engine.eta_parsing import is_beyond_waiting
from taskyard.engine.read_message import read_stamp
from taskyard.wire import clean_text
from taskyard.wire.stamp_header import LONGEST_ID, MOST_RETRIES, usable_id

__all__ = ["fault_of_headers", "is_text"]

_LONGEST_LIMIT_S: Final = 10**8
_PAIR: Final = 2

_Check = tuple[str, Callable[[Any], bool]]


def fault_of_headers(values: Mapping[str, Any], where: str = "header {!r}") -> str | None:
    """Return the first fault in the headers; None if there is none.

    `where` is a pattern that says where a header is, for the text.
    """
    for name, (expected, holds) in _CHECKS.items():
        value = values.get(name)
        if not holds(value):
            return f"{where.format(name)} must be {expected}, got {value!r:.60}"
    try:
        read_stamp(values)
    except ValueError as error:
        # A message with an unreadable stamp may be stale: it must not run like one without a stamp.
        return str(error)
    return None


def _is_name(value: Any) -> bool:
    """Return whether a header's value can be a key in every store: text, and not too long."""
    return is_text(value) and 0 < len(value) <= LONGEST_ID


def _is_job_id(value: Any) -> bool:
    return usable_id(value) is not None


def _is_label(value: Any) -> bool:
    return value is None or value == "" or _is_name(value)


def _is_shown(value: Any) -> bool:
    return value is None or is_text(value)


def is_text(value: Any) -> bool:
    """Return whether a value is text that every store and every log can hold."""
    return isinstance(value, str) and clean_text(value) == value


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < MOST_RETRIES)


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(is_text(item) for item in value))


def _are_limits(limits: Any) -> bool:
    if limits is None:
        return True
    if not isinstance(limits, list | tuple) or len(limits) != _PAIR:
        return False
    return all(
        item is None or (isinstance(item, int | float) and 0 < item < _LONGEST_LIMIT_S)
        for item in limits
    )


def _is_date(value: Any) -> bool:
    """Return whether a value is a date, or a text that Celery refuses with an error of its own.

    Other values would end Celery's worker.
    """
    return value is None or (isinstance(value, str) and value != "")


def _is_near(value: Any) -> bool:
    return _is_date(value) and not is_beyond_waiting(value)


_CHECKS: Final[Mapping[str, _Check]] = {
    "id": ("a short plain text that does not end with ':deliveries'", _is_job_id),
    "task": ("a short plain text", _is_name),
    "timelimit": ("two numbers or nulls", _are_limits),
    "stamped_headers": ("a list of texts", _are_texts),
    "stamps": ("a mapping", _is_mapping),
    "headers": ("a mapping", _is_mapping),
    "root_id": ("a short plain text", _is_label),
    "parent_id": ("a short plain text", _is_label),
    "group": ("a short plain text", _is_label),
    "taskset": ("a short plain text", _is_label),
    "group_index": ("a whole number from 0", _is_count),
    "retries": ("a whole number from 0", _is_count),
    "replaced_task_nesting": ("a whole number from 0", _is_count),
    "shadow": ("a plain text", _is_shown),
    "eta": ("the text of a date within eight years", _is_near),
    "expires": ("the text of a date", _is_date),
}
