"""Seams of the worker under test: places where the process that reaches them first is killed.

Imported by a worker before its handlers. A test arms a seam by a file of its name in the folder
that YARD_SEAMS names; whoever reaches the seam takes the file away and dies of SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.canvas import Signature
from celery.worker.request import Request

from taskyard.broker import AmqpPublisher, ParkedMessages, RedisPublisher
from taskyard.deadletters import LetterBox
from taskyard.engine.held_queues import HeldQueues
from taskyard.engine.request import JobRequest
from taskyard.records import AttemptScripts, Records
from taskyard.runner.lease import LeaseKeeper

__all__ = ["FOLDER_VARIABLE", "NAMES", "UNPROTECTED_VARIABLE", "arm", "die_at", "is_armed"]

FOLDER_VARIABLE = "YARD_SEAMS"
UNPROTECTED_VARIABLE = "YARD_UNPROTECTED"

SEAMS: dict[str, tuple[type, str]] = {
    "begin": (AttemptScripts, "begin"),
    "finish": (AttemptScripts, "finish"),
    "lose": (AttemptScripts, "lose"),
    "condemn": (AttemptScripts, "dead_letter"),
    "retry": (RedisPublisher, "publish"),
    "retry at RabbitMQ": (AmqpPublisher, "publish"),
    "delayed retry": (RedisPublisher, "publish_later"),
    "requeued": (Records, "requeued"),
    "letter": (LetterBox, "post"),
    "continuation": (Signature, "apply_async"),
    "return held": (HeldQueues, "return_held"),
    "give back held": (HeldQueues, "flush"),
    "park": (RedisPublisher, "park"),
    "park at RabbitMQ": (AmqpPublisher, "park"),
    "release parked": (ParkedMessages, "release"),
    "acknowledge": (Request, "acknowledge"),
}
# Modules that cut elsewhere add their names.
NAMES = set(SEAMS)


def arm(folder: Path, seam: str) -> None:
    """Let the next process that reaches `seam`, such as "before begin", die there."""
    when, _, name = seam.partition(" ")
    assert when in ("before", "after"), seam
    assert name in NAMES, seam
    folder.mkdir(exist_ok=True)
    (folder / seam).touch()


def is_armed(folder: Path, seam: str) -> bool:
    return (folder / seam).exists()


def die_at(seam: str) -> None:
    """Die here if `seam` is armed."""
    try:
        (Path(os.environ[FOLDER_VARIABLE]) / seam).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _cut(owner: type, method: str, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, method)

    def cut(*arguments: Any, **keywords: Any) -> Any:
        die_at(f"before {name}")
        answer = original(*arguments, **keywords)
        die_at(f"after {name}")
        return answer

    setattr(owner, method, cut)


def _acknowledge_first(request: Any) -> None:
    """The order that Taskyard does not use: acknowledge, then publish."""
    if request.acknowledged:
        return
    request.message.ack()
    request.message.channel.qos.flush()
    request.acknowledged = True
    request._settling.publish()


_finish = AttemptScripts.finish


def _finish_for_the_holder(
    attempts: AttemptScripts, job_id: str, *decision: Any, **facts: Any
) -> Any:
    """What a lock without fencing does: whoever comes, comes in its own name."""
    facts["token"] = int(attempts._calls._client.hget(attempts.keys.record(job_id), "token") or 0)
    return _finish(attempts, job_id, *decision, **facts)


if FOLDER_VARIABLE in os.environ:
    for _name, (_owner, _method) in SEAMS.items():
        _cut(_owner, _method, _name)
    match os.environ.get(UNPROTECTED_VARIABLE):
        case "acknowledge first":
            JobRequest.acknowledge = _acknowledge_first  # type: ignore[method-assign]
        case "no renewal":
            LeaseKeeper.watch = lambda keeper, lease: None  # type: ignore[method-assign]
        case "no token":
            AttemptScripts.finish = _finish_for_the_holder  # type: ignore[method-assign]
