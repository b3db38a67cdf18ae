"""The answer: why a job is where it is, as values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskyard.control.explain.cause_kinds import CauseKind, Server
from taskyard.control.explain.cause_table import CAUSES

__all__ = ["Cause", "Explanation", "cause_of"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause.

    `commands` move the job, the safest first; `waits` says why none is needed, or what they do.
    `see` is a command that shows more. `facts` are what the text was made of, for programs.
    """

    kind: CauseKind
    text: str
    commands: tuple[str, ...]
    waits: str
    see: str
    facts: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "kind": self.kind,
            "text": self.text,
            "commands": list(self.commands),
            "waits": self.waits or None,
            "see": self.see or None,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: all causes that hold, the blocking one first.

    `unknown` are the servers that did not answer, with their error: what only they know is missing,
    and nothing else is guessed for it. `state` is None if it is unknown; `queue`, `job_type` and
    `priority` are empty then.
    """

    job_id: str
    state: str | None
    job_type: str
    queue: str
    priority: str
    causes: tuple[Cause, ...]
    unknown: Mapping[Server, str]

    @property
    def found(self) -> bool:
        """Whether any server that answered knows the job, or one that knows it may not answer."""
        return all(cause.kind is not CauseKind.UNKNOWN_ID for cause in self.causes)

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "job_id": self.job_id,
            "state": self.state or "unknown",
            "type": self.job_type or None,
            "queue": self.queue or None,
            "priority": self.priority or None,
            "causes": [cause.document() for cause in self.causes],
            "unknown": {str(server): why for server, why in self.unknown.items()},
        }


def cause_of(kind: CauseKind, values: Mapping[str, object], **facts: object) -> Cause:
    """Return the cause with the table's text and commands, filled with `values`.

    `facts` are values in a form for programs, besides those of the text. Words of a command are
    quoted for a shell, except `start_worker`, which is a command.
    """
    meaning = CAUSES[kind]
    words = {name: shlex.quote(str(value)) for name, value in values.items()}
    words["start_worker"] = str(values.get("start_worker", ""))
    return Cause(
        kind,
        meaning.text.format(**values),
        tuple(command.format(**words) for command in meaning.commands),
        meaning.waits.format(**values),
        meaning.see.format(**words),
        {**{name: value for name, value in values.items() if name != "start_worker"}, **facts},
    )
