"""Seams of the worker under test: around the step that binds the nonce of a signed broadcast."""

from __future__ import annotations

import os
from typing import Any

from support import seams
from support.seams import FOLDER_VARIABLE, die_at
from taskyard.records.verb_events import VerbEvents

__all__ = ["STEP"]

STEP = "bind"
seams.NAMES.add(STEP)
_bind = VerbEvents.bind


def _cut(*arguments: Any, **keywords: Any) -> Any:
    die_at(f"before {STEP}")
    answer = _bind(*arguments, **keywords)
    die_at(f"after {STEP}")
    return answer


if FOLDER_VARIABLE in os.environ:
    VerbEvents.bind = _cut  # type: ignore[method-assign]
