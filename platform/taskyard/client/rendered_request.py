"""A request that is ready to be sent, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskyard.client.check_request import CheckedRequest
from taskyard.records import Admission, Admitted
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["Outcome", "Rendered", "Upcoming"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Everything that is sent for one request, after the request was checked.

    `message` is None if the admission script itself publishes it.
    """

    request: CheckedRequest
    admission: Admission
    message: RawMessage | None


Outcome = Admitted | Exception
Upcoming = Callable[[], Rendered | None]
