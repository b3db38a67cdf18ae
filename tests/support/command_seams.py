"""Seams of the worker under test: around the two events of a control command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from support import seams
from support.seams import FOLDER_VARIABLE, die_at
from taskyard.records.command_events import CommandEvents

__all__ = ["STEPS"]

STEPS = ("request", "answer")
seams.NAMES.update(STEPS)


def _cut(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def cut(*arguments: Any, **keywords: Any) -> Any:
        die_at(f"before {step}")
        answer = call(*arguments, **keywords)
        die_at(f"after {step}")
        return answer

    return cut


if FOLDER_VARIABLE in os.environ:
    for name in STEPS:
        setattr(CommandEvents, name, _cut(name, getattr(CommandEvents, name)))
