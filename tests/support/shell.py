"""A shell in a folder of its own: runs `taskyard` as a person or a script would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from servers import Servers
from support import preloaded
from support.preloaded import can_fork

__all__ = ["PROGRAM", "Ran", "Shell", "connected_shell"]

MODULE = "taskyard.ops.cli"
PROGRAM = (sys.executable, "-m", MODULE)
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


def _heed_interrupts() -> None:
    """A shell starts background commands deaf to Ctrl-C, and so would be what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@dataclass
class Shell:
    """`variables` are the only `TASKYARD_*` ones that commands see, but for the built-in jobs'."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environ(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"}
        shown = {"NO_COLOR": "1", "TASKYARD_BUILTIN_JOBS": "1"}
        return {**own, **shown, **self.variables, **(variables or {})}

    def run(self, *words: str, stdin: str = "", **variables: str) -> Ran:
        """Run a command to its end; a stack trace of its own fails the test."""
        environment = self.environ(variables)
        if can_fork(environment):
            ran = self._fork(words, stdin, environment)
        else:
            ran = self._spawn(words, stdin, environment)
        output = ran.err + (ran.out if ran.code else "")
        assert "Traceback" not in output, output
        return ran

    def _fork(self, words: Sequence[str], stdin: str, environment: Mapping[str, str]) -> Ran:
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            files = (given.fileno(), out.fileno(), err.fileno())
            process = preloaded.start(
                MODULE, words, environment=environment, folder=self.folder, files=files
            )
            try:
                code = process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return Ran(code, _text(out), _text(err))

    def _spawn(self, words: Sequence[str], stdin: str, environment: Mapping[str, str]) -> Ran:
        done = subprocess.run(
            [*PROGRAM, *words],
            input=stdin,
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command that runs on."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            env=self.environ(),
            cwd=self.folder,
            text=True,
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - no thread of the tests runs here
            **options,
        )


def connected_shell(
    folder: Path,
    servers: Servers,
    database_url: str,
    *,
    broker_url: str | None = None,
    **variables: str,
) -> Shell:
    """One with servers, in a namespace of its own; the broker is the records' Valkey by default."""
    return Shell(
        folder,
        {
            "TASKYARD_REDIS_URL": servers.valkey_url(),
            "TASKYARD_BROKER_URL": broker_url or servers.valkey_url(),
            "TASKYARD_DATABASE_URL": database_url,
            "TASKYARD_NAMESPACE": f"t{uuid.uuid4().hex[:10]}",
            **variables,
        },
    )
