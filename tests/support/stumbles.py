"""A result backend that is away once, just when the child has something to store.

Imported by a worker before its handlers. A test arms it by a file in the folder that
YARD_STUMBLES names, with the name of the backend's method.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from taskyard.backend import RecordBackend

__all__ = ["FOLDER_VARIABLE"]

FOLDER_VARIABLE = "YARD_STUMBLES"


def _stumble(method: str) -> None:
    original = getattr(RecordBackend, method)

    def stumbling(*arguments: Any, **options: Any) -> Any:
        try:
            (Path(os.environ[FOLDER_VARIABLE]) / method).unlink()
        except FileNotFoundError:
            return original(*arguments, **options)
        raise RedisConnectionError("the result backend is away")

    setattr(RecordBackend, method, stumbling)


if FOLDER_VARIABLE in os.environ:
    for _method in ("mark_as_retry", "mark_as_done", "mark_as_failure"):
        _stumble(_method)
