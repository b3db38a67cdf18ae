"""The operator tasks: the verb of each, and the arguments that name its targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskyard.access.actions import Action

__all__ = ["OPERATOR_TASKS", "REPLAY_TASK", "OperatorTask"]


@dataclass(frozen=True, slots=True)
class OperatorTask:
    """A task that carries out a verb for the signer of its message."""

    verb: Action
    target: str


REPLAY_TASK: Final = "taskyard.ops.replay"
OPERATOR_TASKS: Final[Mapping[str, OperatorTask]] = {
    REPLAY_TASK: OperatorTask(Action.CONTROLLED_REPLAY, target="letter_id"),
}
