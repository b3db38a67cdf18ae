"""A look at a queue on RabbitMQ changes nothing, also where the queue goes meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed

from taskyard.queues import look_at


class Server:
    """Has a queue with an argument until it was declared actively once, which it refuses."""

    def __init__(self) -> None:
        self.declared: list[str] = []

    @contextmanager
    def channel(self) -> Any:
        yield self

    def queue_declare(self, queue: str, passive: bool = False, **_: Any) -> None:
        if passive and self.declared:
            raise NotFound(f"no queue '{queue}'")
        if not passive:
            self.declared.append(queue)
            raise PreconditionFailed(
                "inequivalent arg 'x-max-length' for queue: received none but current is the "
                "value '5' of type 'signedint'"
            )


def test_a_queue_that_is_deleted_during_a_look_is_not_made_anew() -> None:
    server = Server()

    assert look_at(server, "exec") is None
    assert server.declared == ["exec"]
