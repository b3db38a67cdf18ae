"""The stage without servers: `taskyard.testing.Yard`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance.handlers import FOLDER, Diary
from conformance.stage import Seen, waits_between
from support.acts import World
from support.yard import catalogue
from taskyard.client import JobHandle
from taskyard.jobs import JobType
from taskyard.settings import Settings
from taskyard.testing import ProcessKilled, Yard
from taskyard.wire.letter_envelope import Letter

__all__ = ["MemoryStage"]


@dataclass
class MemoryStage:
    """Nothing here waits, and nothing runs before `settle`."""

    client: Yard
    diary: Diary
    name: str = "memory"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStage]:
        diary = Diary(folder)
        diary.prepare()
        with Yard(Settings(builtin_jobs=True)) as yard:
            # The client of a service that has imported no handler, as before servers: it checks no
            # annotation, the worker does.
            yard.catalogue = catalogue()
            monkeypatch.setenv(FOLDER, str(folder))
            monkeypatch.setattr(World, "die", staticmethod(_killed))
            monkeypatch.setattr(World, "pass_s", staticmethod(yard.clock.wait_s))
            yield cls(yard, diary)

    def act(self, do: str = "return", job_type: str = "steady", **options: Any) -> JobHandle:
        names = ("times", "value", "code", "label", "retry_after_s")
        payload = {"do": do} | {name: options.pop(name) for name in names if name in options}
        return self.client.enqueue(job_type, payload, **options)

    def settle(self, *jobs: JobHandle | str) -> None:
        self.client.settle()

    @contextmanager
    def holding(self) -> Iterator[None]:
        yield

    def letters(self, job: JobHandle | str) -> list[Seen]:
        job_id = job if isinstance(job, str) else job.job_id
        return [self._seen(letter) for letter in self.client.letters if letter.job_id == job_id]

    def _seen(self, letter: Letter) -> Seen:
        return Seen(
            letter_id=letter.letter_id,
            job_id=letter.job_id,
            generation=letter.generation,
            job_type=letter.job_type,
            domain=letter.domain,
            queue=letter.queue,
            priority=letter.priority,
            category=letter.category.value,
            code=letter.code,
            error_class=letter.error_class,
            message=letter.error_message,
            traceback=letter.traceback,
            args=letter.args,
            body=letter.message.body,
            outcomes=[note.outcome for note in letter.attempts],
            waits_s=waits_between(letter.attempts),
            evidence=letter.evidence,
            eligible=letter.replay_eligible,
            status=self.client.letter_status(letter),
        )

    def replay(self, letter: Seen, **options: Any) -> None:
        self.client.replay(letter.letter_id, **options)

    def redeliver(self, job: JobHandle, *, first: bool = False) -> None:
        self.client.redeliver(job, first=first)
        self.client.run()

    def send_unknown(self, job_type: str) -> str:
        known = self.client.catalogue.with_type(JobType(name=job_type, queue="exec"))
        catalogue, self.client.catalogue = self.client.catalogue, known
        job = self.client.enqueue(job_type, {})
        self.client.catalogue = catalogue
        return job.job_id

    def event_names(self, job: JobHandle | str) -> list[str]:
        return self.client.events(job)

    def need_canvas(self) -> None:
        pytest.skip("canvas is published and continued by Celery itself, which needs a broker")


def _killed() -> None:
    raise ProcessKilled("signal 9 (SIGKILL)")
