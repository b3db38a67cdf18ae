"""A result backend that fails once, just when the child has something to store.

Imported by a worker before its handlers. A test arms it by a file in the folder that
FAILING_BACKEND_FOLDER names, with the name of the backend's method.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from taskyard.backend import RecordBackend

__all__ = ["FOLDER_VARIABLE"]

FOLDER_VARIABLE = "FAILING_BACKEND_FOLDER"


def _fail_once(method: str) -> None:
    original = getattr(RecordBackend, method)

    def failing_once(*arguments: Any, **options: Any) -> Any:
        try:
            (Path(os.environ[FOLDER_VARIABLE]) / method).unlink()
        except FileNotFoundError:
            return original(*arguments, **options)
        raise RedisConnectionError("the result backend is away")

    setattr(RecordBackend, method, failing_once)


if FOLDER_VARIABLE in os.environ:
    for _method in ("mark_as_retry", "mark_as_done", "mark_as_failure"):
        _fail_once(_method)
