"""The one table from exceptions to error codes; retry policies use only codes."""

from __future__ import annotations

import builtins
from typing import Final

from taskyard.errors import CodedError

__all__ = [
    "EXCEPTION",
    "INTERNAL_ERROR",
    "RESULT_INVALID",
    "RESULT_TOO_LARGE",
    "TIMEOUT",
    "VALIDATION_ERROR",
    "code_of",
]

EXCEPTION: Final = "exception"
TIMEOUT: Final = "timeout"
INTERNAL_ERROR: Final = "internal_error"
VALIDATION_ERROR: Final = "validation_error"
RESULT_INVALID: Final = "result_invalid"
RESULT_TOO_LARGE: Final = "result_too_large"

# The most derived class wins. Names stand for classes of libraries that may not be installed.
_CODES: Final[dict[str, str]] = {
    "SoftTimeLimitExceeded": TIMEOUT,
    "TimeLimitExceeded": TIMEOUT,
    "TimeoutError": TIMEOUT,
    "Timeout": TIMEOUT,  # gevent's, and the base of those of requests
    "ReadTimeout": "network_timeout",
    "ConnectTimeout": "network_timeout",
    "ConnectionError": "temporary_failure",
    "OperationalError": "temporary_failure",
    "ValidationError": VALIDATION_ERROR,
    "SystemExit": "system_exit",
    "MemoryError": "out_of_memory",
    "OSError": "os_error",
    "KillSwitchOn": "kill_switch",
}


def code_of(error: BaseException) -> str:
    """Return the code of an exception: its own, else that of its class, else `exception`."""
    if isinstance(error, CodedError):
        return error.code
    for cls in type(error).__mro__:
        if cls.__name__ in _CODES and cls is not builtins.Exception:
            return _CODES[cls.__name__]
    return EXCEPTION
