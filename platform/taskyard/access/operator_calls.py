"""The signed call that a message of an operator task is.

Apart from the table of the tasks, which clients read too: they need no cryptography.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskyard.access.credential import Call, call_of
from taskyard.access.operator_tasks import OPERATOR_TASKS

__all__ = ["call_of_task"]


def call_of_task(audience: str, task: str, arguments: Mapping[str, object]) -> Call:
    """Return the call of an operator task's message; raises `InvalidPayload` if it is not JSON.

    `arguments` are all of its named arguments except the credential.
    """
    known = OPERATOR_TASKS[task]
    target = arguments.get(known.target)
    targets = [target] if isinstance(target, str) else []
    return call_of(audience, known.verb, arguments, targets)
