"""The handlers of the suite: one act (support/acts.py); the same on servers and in memory.

What they do is written into a folder, so that every kind of stage can be asked about it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from support.acts import AT_ONCE, NEVER, POLL_S, Act, World, delayed, misbehave
from taskyard.inbox import create_table
from taskyard.jobs import JobContext, job

__all__ = ["FOLDER", "Diary"]

FOLDER = "CONFORMANCE_FOLDER"
SOON = delayed(150)


class Diary:
    """The runs and effects that the handlers of one stage leave in its folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "runs.jsonl"
        self._gate = folder / "gate"
        self._database = create_engine(f"sqlite:///{folder / 'effects.db'}", poolclass=NullPool)

    @classmethod
    def of_this_process(cls) -> Diary:
        return cls(Path(os.environ[FOLDER]))

    def prepare(self) -> None:
        with self._database.begin() as connection:
            create_table(connection)
            connection.execute(text("CREATE TABLE IF NOT EXISTS effects (job TEXT)"))

    def note(self, context: JobContext, label: str) -> int:
        """Write one run down; how many there are of this job."""
        line = json.dumps({"job": context.job_id, "label": label}) + "\n"
        with self._file.open("a") as file:
            file.write(line)
        return self.runs(context.job_id)

    def runs(self, job_id: str) -> int:
        return [note["job"] for note in self._notes()].count(job_id)

    def labels(self) -> list[str]:
        """The labels of all runs that had one, in the order of their start."""
        return [note["label"] for note in self._notes() if note["label"]]

    def apply_once(self, context: JobContext) -> None:
        with self._database.begin() as connection:
            if context.once(connection):
                connection.execute(
                    text("INSERT INTO effects VALUES (:job)"), {"job": context.job_id}
                )

    def effects(self, job_id: str) -> int:
        with self._database.connect() as connection:
            query = text("SELECT count(*) FROM effects WHERE job = :job")
            return int(connection.execute(query, {"job": job_id}).scalar_one())

    def shut(self) -> None:
        self._gate.write_text("shut")

    def open(self) -> None:
        self._gate.unlink(missing_ok=True)

    @property
    def is_shut(self) -> bool:
        return self._gate.exists()

    def _notes(self) -> list[dict[str, str]]:
        if not self._file.exists():
            return []
        return [json.loads(line) for line in self._file.read_text().splitlines()]


def _act(act: Act, context: JobContext) -> Any:
    diary = Diary.of_this_process()
    run = diary.note(context, act.label)
    if act.do == "once":
        diary.apply_once(context)
        if run == 1:
            World.die()
    if not act.misbehaves_in(run):
        return act.value
    answer = misbehave(act, context)
    while act.do == "hang" or (act.do == "wait" and diary.is_shut):
        World.pass_s(POLL_S)
    return answer


@job("steady", queue="exec", policy=AT_ONCE)
def steady(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("patient", queue="plan", policy=SOON)
async def patient(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job(
    "picky",
    queue="locator",
    policy={**AT_ONCE, "no_retry_errors": ["hopeless"], "escalate_on_failure": "manual_review"},
)
def picky(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("brief", queue="exec", policy=NEVER, time_limit_s=1)
def brief(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("warned", queue="exec", policy=NEVER, soft_time_limit_s=1, time_limit_s=60)
def warned(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("owned", queue="exec", policy=NEVER, domain="billing")
def owned(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("relayed", queue="exec", policy=NEVER)
def relayed(payload: Any) -> Any:
    """What came, for chains."""
    return payload
