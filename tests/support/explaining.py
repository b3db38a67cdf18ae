"""An operator who asks why a job is where it is, and runs the commands of the answer."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.operated import WHY
from support.shell import Ran, Shell
from support.waiting import eventually
from support.worker import TESTS, environment_of
from taskyard.control.explain import Cause, CauseKind
from taskyard.settings import Settings

__all__ = ["Asker"]


class Asker:
    """A shell on the servers of a test."""

    def __init__(self, settings: Settings, database_url: str, folder: Path) -> None:
        variables = {
            **environment_of(settings),
            "TASKYARD_DATABASE_URL": database_url,
            "TASKYARD_TRUST_LOCAL": "1",
        }
        self.shell = Shell(folder, variables)

    def explain(self, job_id: str, **variables: str) -> dict[str, Any]:
        """The answer as a document; its exit code is `code`."""
        ran = self.shell.run("explain", job_id, "--json", **variables)
        return {**ran.document, "code": ran.code}

    def kinds(self, job_id: str, **variables: str) -> list[str]:
        return [cause["kind"] for cause in self.explain(job_id, **variables)["causes"]]

    def await_first(self, job_id: str, kind: CauseKind) -> dict[str, Any]:
        """Wait until this cause blocks the job; the cause."""
        answers: list[dict[str, Any]] = []

        def blocked() -> bool:
            answers[:] = [self.explain(job_id)]
            return bool(answers[0]["causes"]) and answers[0]["causes"][0]["kind"] == kind

        eventually(blocked, f"{kind} blocks", why=lambda: str(answers))
        first: dict[str, Any] = answers[0]["causes"][0]
        return first

    def cause(self, job_id: str, kind: CauseKind) -> dict[str, Any]:
        """This cause of the job, which it must have."""
        answer = self.explain(job_id)
        found = [cause for cause in answer["causes"] if cause["kind"] == kind]
        assert found, answer
        one: dict[str, Any] = found[0]
        return one

    def run(self, cause: dict[str, Any] | Cause, number: int = 0) -> Ran:
        """Run a command of a cause, with a reason of the operator's own."""
        commands = cause.commands if isinstance(cause, Cause) else cause["commands"]
        ran = self.shell.run(*_words(commands[number]))
        assert ran.code == 0, ran
        return ran

    @contextmanager
    def running(self, cause: dict[str, Any], number: int = 0) -> Iterator[None]:
        """Run a command that does not end by itself, such as a worker's, meanwhile."""
        words = _words(cause["commands"][number])
        path = f"{self.shell.folder}:{TESTS}:{os.environ.get('PYTHONPATH', '')}"
        self.shell.variables["PYTHONPATH"] = path
        with (self.shell.folder / "explained.log").open("ab") as log:
            process = self.shell.start(*words, stdout=log, stderr=log, start_new_session=True)
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _words(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program == "taskyard", command
    return [WHY if word == "WHY" else word for word in words]
