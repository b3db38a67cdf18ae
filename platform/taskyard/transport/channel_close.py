"""Close a channel: acknowledge, return its messages, and remove its owner from Redis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from redis.exceptions import ResponseError

from taskyard.transport.owner_descriptions import OWNER_TTL_S
from taskyard.wire.redacted_logs import logger

__all__ = ["leave_server"]

log = logger(__name__)


def leave_server(channel: Any) -> None:
    """Acknowledge, return the remaining messages and sign off as their owner.

    What Redis refuses is logged and raises nothing. Messages that could not be returned go back
    to their queues when the channel's owner counts as dead.
    """
    faults = list(_faults(channel))
    if not faults:
        return
    held = channel.qos.held()
    log.log(
        # Without a consumer no message can be out.
        logging.WARNING if channel.ownership.has_beaten else logging.DEBUG,
        "a channel closed, and Redis did not answer or refused (%s), so messages of this worker "
        "may not have been returned (it knows of %d). Other workers put them back into their "
        "queues within about %d s",
        faults[-1],
        held,
        OWNER_TTL_S,
        extra={"action": "channel_left", "held": held},
    )


def _faults(channel: Any) -> Iterator[Exception]:
    """Run each step of the close, and yield the errors of steps that failed."""
    try:
        channel.pops.settle()
    except channel.connection_errors as error:
        # That was the consuming connection; the other one may still work.
        yield error
    for step in (_delete_reply_queues, _return_messages, _sign_off):
        try:
            step(channel)
        except channel.connection_errors as error:
            yield error
            if not isinstance(error, ResponseError):
                # No answer: each further step would wait as long as this one did.
                return


def _delete_reply_queues(channel: Any) -> None:
    for queue in channel.auto_delete_queues & set(channel._fanout_queues):
        channel.queue_delete(queue)


def _return_messages(channel: Any) -> None:
    channel.qos.restore_unacked_once()


def _sign_off(channel: Any) -> None:
    if channel.ownership.has_beaten:
        channel.ownership.sign_off(channel._create_client())
