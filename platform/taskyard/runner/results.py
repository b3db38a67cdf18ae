"""A handler's result in the form it is stored in: JSON, within its limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskyard.jobs.codes import RESULT_INVALID, RESULT_TOO_LARGE
from taskyard.jobs.outcomes import Failure

__all__ = ["EncodeResult", "encode_result"]

EncodeResult = Callable[[Any], bytes]


def encode_result(value: Any, encode: EncodeResult, limit: int) -> bytes | Failure:
    """The stored bytes; or what is wrong with the result, with the way out.

    `encode` may raise anything: it asks classes of the handler's. `limit` is bytes of the stored
    form, which adds some 200 to the value's own.
    """
    try:
        stored = encode(value)
    except Exception as error:  # noqa: BLE001 - told as the job's failure
        text = (
            f"the result is not JSON: {type(error).__name__}: {error}"[:500]
            + "; return JSON data or a pydantic model"
        )
        return Failure(RESULT_INVALID, "BadResult", text, "", "")
    if len(stored) > limit:
        text = f"the result has {len(stored)} bytes, the limit is {limit}; return a reference to it"
        return Failure(RESULT_TOO_LARGE, "BadResult", text, "", "")
    return stored
