"""The operator tasks: which verb each is, and which of its arguments are what it acts on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskyard.access.actions import Action
from taskyard.access.credential import Call, call_of

__all__ = ["OPERATOR_TASKS", "REPLAY_TASK", "OperatorTask", "call_of_task"]


@dataclass(frozen=True, slots=True)
class OperatorTask:
    """A task that carries out a verb for whoever signed its message."""

    verb: Action
    target: str


REPLAY_TASK: Final = "taskyard.ops.replay"
OPERATOR_TASKS: Final[Mapping[str, OperatorTask]] = {
    REPLAY_TASK: OperatorTask(Action.CONTROLLED_REPLAY, target="letter_id"),
}


def call_of_task(audience: str, task: str, arguments: Mapping[str, object]) -> Call:
    """The call that a message of an operator task is; raises `InvalidPayload` if it is not JSON.

    `arguments` are all of its named arguments but the credential.
    """
    known = OPERATOR_TASKS[task]
    target = arguments.get(known.target)
    targets = [target] if isinstance(target, str) else []
    return call_of(audience, known.verb, arguments, targets)
