"""Convert the message of an operator task to the call that its credential signs.

This file is separate from the table of the operator tasks: clients read the table too, and need no
cryptography for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskyard.access.credential import Call, call_of
from taskyard.access.operator_task_table import OPERATOR_TASKS

__all__ = ["call_of_task"]


def call_of_task(audience: str, task: str, arguments: Mapping[str, object]) -> Call:
    """Return the call of an operator task's message; raises `InvalidPayload` if it is not JSON.

    `arguments` are all named arguments of the message except the credential.
    """
    known = OPERATOR_TASKS[task]
    target = arguments.get(known.target)
    targets = [target] if isinstance(target, str) else []
    return call_of(audience, known.verb, arguments, targets)
