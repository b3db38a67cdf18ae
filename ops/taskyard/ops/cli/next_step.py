"""The next command after a refusal, where its own sentence names none."""

from __future__ import annotations

import re
from typing import Final

from taskyard.errors import (
    InvalidPayload,
    InvalidReason,
    InvalidSettings,
    NotFound,
    NotPermitted,
    PublishFailed,
    Refused,
    ServerUnreachable,
    TaskyardError,
    UnknownJobType,
    UnknownPriority,
    UnknownQueue,
)

__all__ = ["with_next_step"]

_NAMED: Final = re.compile(r"taskyard [a-z]+|pip install|Run: ")
# The first that fits; {path} is the command that failed, {noun} its first two words.
_STEPS: Final[tuple[tuple[tuple[type[TaskyardError], ...], str], ...]] = (
    (
        (NotPermitted,),
        "An admin can give more rights; who has which, shows: taskyard tokens list",
    ),
    ((UnknownQueue, UnknownPriority), "See: taskyard env"),
    ((UnknownJobType,), "See: taskyard types list"),
    ((InvalidSettings, ServerUnreachable, PublishFailed), "See: taskyard check"),
    ((InvalidPayload, InvalidReason), "See: {path} --help"),
    ((Refused, NotFound), "See: {noun} list"),
)


def with_next_step(error: TaskyardError, path: str) -> str:
    """The error's sentence, ending with a command that helps; `path` is the one that failed."""
    text = str(error)
    if _NAMED.search(text):
        return text
    for kinds, step in _STEPS:
        if isinstance(error, kinds):
            noun = " ".join(path.split()[:2])
            return f"{_ended(text)} {step.format(path=path, noun=noun)}"
    return text


def _ended(text: str) -> str:
    """With a full stop; a list of faults gets a line of its own."""
    if "\n" in text:
        return f"{text}\n "
    return text if text.endswith((".", "?", "!")) else f"{text}."
