"""More seams of the worker under test: around each step of an operator's message."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from support import seams
from support.seams import FOLDER_VARIABLE, die_at
from taskyard.control import carry_out_signed_message
from taskyard.ops import operator_context

__all__ = ["STEPS"]

STEPS = ("accept", "replay", "wait_outcome")
seams.NAMES.update(STEPS, ("count",))


def _cut(owner: Any, attribute: str, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, attribute)

    def cut(*arguments: Any, **keywords: Any) -> Any:
        die_at(f"before {name}")
        answer = original(*arguments, **keywords)
        die_at(f"after {name}")
        return answer

    setattr(owner, attribute, cut)


if FOLDER_VARIABLE in os.environ:
    for _name in STEPS:
        _cut(operator_context, _name, _name)
    _cut(carry_out_signed_message, "_count", "count")
