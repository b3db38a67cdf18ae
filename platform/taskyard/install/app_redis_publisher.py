"""Publish into the lists of an app's own Redis broker, with the options of its transport."""

from __future__ import annotations

from collections.abc import Iterable

from taskyard.broker import RedisPublisher
from taskyard.broker.kombu_envelope import encode
from taskyard.broker.queue_name_and_priority import own_priority
from taskyard.broker.republished_headers import headers_of
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["AppRedisPublisher"]


class AppRedisPublisher(RedisPublisher):
    """Publishes to the app's lists by the app's `broker_transport_options`.

    These are `priority_steps`, `sep` and `global_keyprefix`.
    """

    def _prepare(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> tuple[str, str]:
        """Return the key of the list and the document to push.

        The message keeps its priority, and the step only selects the list.
        """
        own = own_priority(message)
        headers = headers_of(message, stamp, strip)
        document = encode(message, queue=queue, step=own, headers=headers)
        return self.layout.key(queue, self.layout.step(own)), document
